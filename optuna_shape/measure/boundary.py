"""Which shapes have to be measured, if a deeper network of the same width costs no less.

Cost rises with depth, block by block. It does *not* rise with width everywhere: kernels like
some widths better than others, and a wider network may well be faster. So every width is walked
by itself, from the shallowest depth on, and once one depth is surely over, all deeper ones of that
width are inferred to be over, without being built. A shape that is within is always measured. A
random sample of the inferred is measured nonetheless, and a width in which one of those is within
is measured to the end.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

from optuna_shape.space import Shape


@dataclass(frozen=True)
class Boundary:
    """What is known of every shape of a grid, and how.

    Attributes:
        measured: Whether each shape that was measured is within; None where that is undecided.
        inferred: The shapes that are over by inference, each with its witness: the deepest
            shallower shape of its width that was measured, and is surely over.
        audited: Those measured that would have been inferred, had they not been drawn.
    """

    measured: Mapping[Shape, bool | None]
    inferred: Mapping[Shape, Shape]
    audited: frozenset[Shape]

    @property
    def contradicted(self) -> frozenset[Shape]:
        """The audited shapes that are within, against the inference."""
        return frozenset(shape for shape in self.audited if self.measured[shape] is True)


def find_boundary(
    shapes: Iterable[Shape],
    measure: Callable[[Sequence[Shape]], Mapping[Shape, bool | None]],
    *,
    seed: int = 0,
) -> Boundary:
    """Find out which shapes are within, measuring few of the others.

    Args:
        shapes: The grid, or what is left of it.
        measure: Says of each of some shapes whether it is within, or None if that cannot be
            decided; nothing is inferred from that. It is given one shape of every width
            together, since honest timing alternates between several.
        seed: Of the audit.

    Example:
        >>> shapes = [Shape(depth, width) for depth in range(1, 11) for width in (8, 16)]
        >>> boundary = find_boundary(
        ...     shapes, lambda some: {s: s.depth * s.width <= 32 for s in some}
        ... )
        >>> len(boundary.measured), len(boundary.audited), len(boundary.inferred)
        (10, 2, 10)
        >>> boundary.inferred[Shape(10, 16)]  # Over, since this one was measured to be:
        Shape(depth=6, width=16)
    """
    columns: defaultdict[int, list[Shape]] = defaultdict(list)
    for shape in sorted(set(shapes)):
        columns[shape.width].append(shape)
    within: dict[Shape, bool | None] = {}

    walks = list(columns.values())
    while walks:
        within |= measure([walk[0] for walk in walks])
        walks = [walk[1:] for walk in walks if within[walk[0]] is not False and len(walk) > 1]

    inferred = [shape for column in columns.values() for shape in column if shape not in within]
    audited = _audit(inferred, columns, within, seed)
    if audited:
        within |= measure(audited)
    refuted = {shape.width for shape in audited if within[shape]}
    doubtful = [shape for shape in inferred if shape.width in refuted and shape not in within]
    if doubtful:
        within |= measure(doubtful)

    return Boundary(
        measured=within,
        inferred={
            shape: max(o for o in columns[shape.width] if within.get(o) is False and o < shape)
            for shape in sorted(inferred)
            if shape not in within
        },
        audited=frozenset(audited),
    )


def _audit(
    inferred: Sequence[Shape],
    columns: Mapping[int, Sequence[Shape]],
    within: Mapping[Shape, bool | None],
    seed: int,
) -> list[Shape]:
    """Draw some inferred shapes: a tenth up to ten of them, and a twentieth of further ones.

    The chance of a shape falls with the steps between it and the boundary: there an inference
    fails first, and there measuring is cheapest.
    """
    size = min(10, math.ceil(len(inferred) / 10)) + max(0, len(inferred) - 100) // 20
    # Measurements that find nothing within stay below a fifth of the grid, or are one.
    spare = (len(within) + len(inferred)) // 5 - sum(not inside for inside in within.values())
    size = min(size, max(1, spare))
    steps = {
        shape: step
        for column in columns.values()
        for step, shape in enumerate((s for s in column if s not in within), start=1)
    }
    # Weighted drawing without replacement: the largest of u^(1/weight), here by its logarithm
    # (Efraimidis and Spirakis, Information Processing Letters 97, 2006).
    rng = random.Random(seed)
    keys = {shape: math.log(1 - rng.random()) * steps[shape] for shape in sorted(inferred)}
    return sorted(sorted(keys, key=keys.__getitem__, reverse=True)[:size])
