r"""A quantile known better with every sample: bounds that may be looked at after each of them.

Samples are independent readings of one latency, :math:`q` is the quantile asked for, :math:`B` a
bound on it. Of :math:`n` samples, :math:`k` are at most :math:`B`. If the quantile is above
:math:`B`, a sample is at most :math:`B` with a probability below :math:`q`. Against that stands
every probability :math:`p > q` alike: the mixture likelihood ratio

.. math::
    M(k, n, q) = \frac{1}{1 - q} \int_q^1
        \Bigl(\frac{p}{q}\Bigr)^k \Bigl(\frac{1 - p}{1 - q}\Bigr)^{n - k} \mathrm{d}p

is a supermartingale of mean at most 1 where the quantile is above :math:`B`, so that it ever
reaches :math:`1 / \alpha` with probability :math:`\alpha` at most (Ville's inequality; see
[HowardRamdas2022]_). From then on, :math:`B` is called an upper bound. The mirror image, with
:math:`n - k` and :math:`1 - q`, makes lower bounds. Nothing is assumed about the distribution of
the samples.

.. [HowardRamdas2022] Howard, Ramdas. Sequential estimation of quantiles with applications to A/B
   testing and best-arm identification. Bernoulli 28, 2022.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from numpy.typing import NDArray
from scipy.special import betainc
from scipy.special import betaln


def confidence_sequence(
    samples: Sequence[float], quantile: float = 0.5, alpha: float = 0.01
) -> tuple[float, float]:
    """Return lower and upper bound of a quantile, valid after every sample at once.

    However often it is asked for while samples come in, each of the two bounds is ever wrong with
    probability ``alpha`` at most. Hence "within B" may be said as soon as ``high <= B`` and
    "over B" as soon as ``low > B``.

    Args:
        samples: Independent readings, 0 or more; in any order.
        quantile: The quantile, in (0, 1).
        alpha: Probability of error per bound.

    Returns:
        Two of the samples; 0 and infinity while there are too few.

    Example:
        >>> confidence_sequence([3.0] * 8)
        (0.0, inf)
        >>> confidence_sequence([3.0] * 9)
        (3.0, 3.0)
    """
    ordered = sorted(samples)
    n = len(ordered)
    # So many samples above a bound show that it is over, so many at or below it that it is within.
    above = _rejecting_count(n, 1 - quantile, alpha)
    below = _rejecting_count(n, quantile, alpha)
    low = 0.0 if above is None else ordered[n - above]
    high = math.inf if below is None else ordered[below - 1]
    return low, high


@functools.cache
def fewest(quantile: float, alpha: float) -> int:
    """Return the number of samples that decides if all of them lie on one side of the bound.

    Example:
        >>> [fewest(0.5, alpha) for alpha in (0.05, 0.01, 0.001)]
        [7, 9, 13]
    """
    rarer = max(quantile, 1 - quantile)
    n = 1
    while log_evidence(n, n, rarer) < -math.log(alpha):
        n += 1
    return n


def log_evidence(k: ArrayLike, n: int, p: float) -> NDArray[np.float64]:
    """Return ``log M(k, n, p)``, the evidence of ``k`` hits for a probability above ``p``.

    Args:
        k: Number of hits, 0 to ``n``; any shape.
        n: Number of samples.
        p: The probability that is tested against, in (0, 1).
    """
    k = np.asarray(k)
    # The incomplete beta function underflows where k is far below n * p, and M is 0 there.
    with np.errstate(divide="ignore"):
        tail = np.log(betainc(n - k + 1, k + 1, 1 - p))
    mixture = betaln(k + 1, n - k + 1) + tail - math.log1p(-p)
    return np.asarray(mixture - k * math.log(p) - (n - k) * math.log1p(-p))


@functools.cache
def _rejecting_count(n: int, p: float, alpha: float) -> int | None:
    """Return the smallest number of hits in ``n`` that refutes a probability up to ``p``."""
    enough = np.flatnonzero(log_evidence(np.arange(n + 1), n, p) >= -math.log(alpha))
    return int(enough[0]) if enough.size else None
