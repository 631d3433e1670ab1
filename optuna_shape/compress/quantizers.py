r"""Few values for many weights, by four methods that are compared in [Marino2023]_.

Each takes numbers and returns :class:`Shared`: a codebook of at most ``k`` values, and for each
number which of them it becomes.

``kmeans``
    The codebook of the least sum of squared changes: exact for up to 4,096 distinct numbers
    (:mod:`optuna_shape.compress.clusters`); of more, exact for as many groups of neighbours, and
    then improved by moving numbers to the nearest value.
``probabilistic``
    Values are quantiles, and a number :math:`w` between two of them, :math:`a \le w \le b`,
    becomes :math:`b` with probability :math:`(w - a) / (b - a)`, else :math:`a`. So no number
    changes in expectation.
``uniform``
    Values are multiples of a step, the smallest that makes at most ``k`` of them. A larger step
    may make more again, so steps are tried from below, in strides of a two-thousandth.
``entropy``
    Cells of the least sum of :math:`(w - c_i)^2 - \lambda \log_2 p_i`, where a share :math:`p_i`
    of the numbers is in cell :math:`i` [Chou1989]_. It begins with ``3 k`` cells, and takes the
    smallest :math:`\lambda`, to a hundredth, that leaves at most ``k``. The authors' code has the
    absolute change in place of the squared one.

.. [Marino2023] Marino, Petrini, Malchiodi, Frasca. Deep neural networks compression: a comparative
   survey and choice recommendations. Neurocomputing 520, 2023.
.. [Chou1989] Chou, Lookabaugh, Gray. Entropy-constrained vector quantization. IEEE Trans.
   Acoustics, Speech, and Signal Processing 37, 1989.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from optuna_shape.compress.clusters import Floats
from optuna_shape.compress.clusters import Indices
from optuna_shape.compress.clusters import best_clusters

# Numbers for which clusters are exact: more make no better codebook, but take long.
_EXACT = 4096
# Rounds of moving numbers to their nearest value.
_ROUNDS = 50
# Times that an interval of a step or of lambda is halved.
_HALVINGS = 40
# Steps tried at a time, and how much larger each is than the one before.
_STEPS = 256
_STRIDE = 1.0005


@dataclass(frozen=True, eq=False)
class Shared:
    """Numbers that share a few values.

    Attributes:
        codebook: ``(k,)`` distinct values in ascending order.
        indices: ``(n,)`` which value each number becomes.
    """

    codebook: Floats
    indices: Indices

    @property
    def values(self) -> Floats:
        """What each number becomes, ``(n,)``."""
        return self.codebook[self.indices]


#: ``quantizer(numbers, k, seed)``.
Quantizer = Callable[[Floats, int, int], Shared]


def kmeans(numbers: Floats, k: int, seed: int = 0) -> Shared:
    """Share values by clusters of the least sum of squares; it draws nothing from the seed."""
    values, counts = np.unique(numbers, return_counts=True)
    weights = counts.astype(np.float64)
    cells = _cells(values)
    begins = best_clusters(*_means(values, weights, cells), k)
    centres, _ = _means(values, weights, cells[begins])
    if len(cells) < len(values):
        centres, _ = _settle(np.sort(numbers), centres, 0.0)
    return _nearest(numbers, centres)


def probabilistic(numbers: Floats, k: int, seed: int = 0) -> Shared:
    """Share the ``k`` quantiles from the least to the largest number, at random but unbiased."""
    if k == 1:
        return Shared(np.array([numbers.mean()]), np.zeros(len(numbers), dtype=np.intp))
    codebook = np.unique(np.quantile(numbers, np.linspace(0, 1, k)))
    upper = np.searchsorted(codebook, numbers).clip(1, max(1, len(codebook) - 1))
    if len(codebook) == 1:
        return Shared(codebook, np.zeros(len(numbers), dtype=np.intp))
    low, high = codebook[upper - 1], codebook[upper]
    drawn = np.random.default_rng(seed).random(len(numbers))
    return _used(codebook, upper - 1 + (drawn * (high - low) < numbers - low))


def uniform(numbers: Floats, k: int, seed: int = 0) -> Shared:
    """Share multiples of one step, zero among them; it draws nothing from the seed."""
    step = _smallest_step(np.sort(numbers), k)
    multiples, indices = np.unique(np.rint(numbers / step), return_inverse=True)
    return Shared(multiples * step, indices)


def entropy(numbers: Floats, k: int, seed: int = 0) -> Shared:
    """Share values that are near and often used; it draws nothing from the seed."""
    ordered = np.sort(numbers)
    largest = 4 * float(np.var(ordered)) * max(1.0, np.log2(len(ordered)))
    start = _chunk_means(ordered, 3 * k)
    if len(_settle(ordered, start, largest)[0]) > k:  # Numbers so even that no cell loses any.
        start = _chunk_means(ordered, k)
    low, high = 0.0, largest
    for _ in range(_HALVINGS):
        if high - low <= high / 100:
            break
        middle = (low + high) / 2
        few = len(_settle(ordered, start, middle)[0]) <= k
        low, high = (low, middle) if few else (middle, high)
    centres, borders = _settle(ordered, start, high)
    return _used(centres, np.searchsorted(borders, numbers, side="right"))


#: The methods by name.
QUANTIZERS: Mapping[str, Quantizer] = {
    "kmeans": kmeans,
    "probabilistic": probabilistic,
    "uniform": uniform,
    "entropy": entropy,
}


def _smallest_step(ordered: Floats, k: int) -> float:
    """Return the smallest step of which at most ``k`` multiples are nearest to any number."""

    def few(step: float) -> bool:
        return int(np.count_nonzero(np.diff(np.rint(ordered / step)))) < k

    largest = 4 * float(np.abs(ordered).max()) or 1.0  # This step rounds all to zero.
    # No step is below the least length of k intervals, wherever they lie, that hold all numbers.
    lengths = largest * 0.5 ** np.arange(_HALVINGS, -1.0, -1.0)
    long = _hold(ordered, lengths, k, aligned=False)
    low = lengths[max(0, int(np.argmax(long)) - 1)]
    if few(low):
        return float(low)
    while True:
        steps = low * _STRIDE ** np.arange(_STEPS + 1)
        for place in np.flatnonzero(_hold(ordered, steps, k, aligned=True)):
            if few(steps[place]):  # As rounding has it, too.
                low, high = steps[max(0, place - 1)], steps[place]
                for _ in range(_HALVINGS):
                    middle = (low + high) / 2
                    low, high = (low, middle) if few(middle) else (middle, high)
                return float(high)
        low = steps[-1]


def _hold(ordered: Floats, lengths: Floats, k: int, *, aligned: bool) -> npt.NDArray[np.bool_]:
    """Whether ``k`` intervals of each length hold all numbers.

    They are put from below on, where the next number is: as its cell, the numbers nearest to the
    same multiple of the length, or else so that they begin with it.
    """
    held = np.zeros(len(lengths), dtype=np.intp)
    for _ in range(min(k, len(ordered))):
        first = ordered[held.clip(max=len(ordered) - 1)]
        end = (np.rint(first / lengths) + 0.5) * lengths if aligned else first + lengths
        held = np.maximum(held + 1, np.searchsorted(ordered, end, side="right"))
        if (held >= len(ordered)).all():
            break
    return held >= len(ordered)


def _cells(values: Floats) -> Indices:
    """Return where groups of neighbours begin: half as wide, half as full as one another."""
    if len(values) <= _EXACT:
        return np.arange(len(values))
    full = np.linspace(0, len(values), _EXACT // 2, endpoint=False).astype(np.intp)
    wide = np.searchsorted(values, np.linspace(values[0], values[-1], _EXACT // 2))
    return np.union1d(full, wide)


def _means(values: Floats, weights: Floats, begins: Indices) -> tuple[Floats, Floats]:
    """Return mean and weight of each cell."""
    weight = np.add.reduceat(weights, begins)
    return np.add.reduceat(values * weights, begins) / weight, weight


def _settle(ordered: Floats, centres: Floats, multiplier: float) -> tuple[Floats, Floats]:
    """Move numbers to the cell of the least cost, and centres to their means, by turns.

    Args:
        ordered: ``(n,)`` numbers in ascending order.
        centres: ``(k,)`` means of cells that all are as full to begin with, ascending.
        multiplier: Cost of a bit.

    Returns:
        Means of the cells that are left, and the borders between them.
    """
    sums = np.append(0.0, np.cumsum(ordered))
    rates = np.zeros(len(centres))
    ends = None
    for _ in range(_ROUNDS):
        _, borders = _envelope(centres, multiplier * rates)
        before = ends
        ends = np.concatenate([[0], np.searchsorted(ordered, borders), [len(ordered)]])
        counts = np.diff(ends)
        filled = counts > 0
        centres = np.diff(sums[ends])[filled] / counts[filled]
        # Means that rounding made equal, or swapped, are those of one cell.
        rising = np.append(True, np.diff(np.maximum.accumulate(centres)) > 0)
        centres = centres[rising]
        merged = np.add.reduceat(counts[filled], np.flatnonzero(rising))
        rates = -np.log2(merged / len(ordered))
        if filled.all() and rising.all() and before is not None and np.array_equal(before, ends):
            break
    chosen, borders = _envelope(centres, multiplier * rates)
    return centres[chosen], borders


def _envelope(centres: Floats, costs: Floats) -> tuple[Indices, Floats]:
    """Return the cells that are anywhere the cheapest, and the borders between them.

    The cost ``(w - c)**2 + cost`` less ``w**2`` is a line in ``w``.
    """
    chosen: list[int] = []
    borders: list[float] = []
    for new in range(len(centres)):
        while chosen:
            old = chosen[-1]
            rise = centres[new] ** 2 + costs[new] - centres[old] ** 2 - costs[old]
            border = rise / (2 * (centres[new] - centres[old]))
            if not borders or border > borders[-1]:
                borders.append(border)
                break
            chosen.pop()
            borders.pop()
        chosen.append(new)
    return np.array(chosen, dtype=np.intp), np.array(borders)


def _chunk_means(ordered: Floats, count: int) -> Floats:
    """Return the means of chunks that are as full as one another."""
    chunks = np.array_split(ordered, min(count, len(ordered)))
    return np.unique([chunk.mean() for chunk in chunks])


def _nearest(numbers: Floats, centres: Floats) -> Shared:
    return _used(centres, np.searchsorted((centres[1:] + centres[:-1]) / 2, numbers))


def _used(codebook: Floats, indices: Indices) -> Shared:
    """Leave out values that no number becomes."""
    used, compact = np.unique(indices, return_inverse=True)
    return Shared(codebook[used], compact)
