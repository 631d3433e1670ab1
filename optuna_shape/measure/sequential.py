"""A quantile known better with every sample: bounds that may be looked at after each of them.

Samples ``x`` are independent readings of one latency, ``q`` is the quantile asked for, ``B`` a
bound on it. Of ``n`` samples, ``k`` are at most ``B``. If the quantile is above ``B``, a sample is
at most ``B`` with a probability below ``q``. Against that stands every probability ``p > q``
alike: the mixture likelihood ratio

    M(k, n, q) = 1 / (1 - q) * integral over p from q to 1 of
                 (p / q)^k * ((1 - p) / (1 - q))^(n - k)

is a supermartingale of mean at most 1 where the quantile is above ``B``, so that it ever reaches
``1 / alpha`` with probability ``alpha`` at most (Ville's inequality; see Howard and Ramdas,
Sequential estimation of quantiles, Bernoulli 28, 2022). From then on, ``B`` is called an upper
bound. The mirror image, with ``n - k`` and ``1 - q``, makes lower bounds. Nothing is assumed about
the distribution of the samples.
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
