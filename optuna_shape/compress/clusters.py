r"""The best division of numbers into clusters, by dynamic programming.

Of numbers in ascending order, the clusters of the least sum of squares are intervals. With
:math:`D_k(j)` the least sum for the first :math:`j` numbers in :math:`k` clusters, and
:math:`c(i, j)` the sum of squares of those from :math:`i` to below :math:`j` about their mean,

.. math:: D_k(j) = \min_i D_{k - 1}(i) + c(i, j),

and the best :math:`i` never falls as :math:`j` grows. So all :math:`j` halfway between two that
are solved need look between their two answers only, :math:`O(n)` sums for all of them, and
:math:`O(k n \log n)` for all clusters [Wang2011]_, [Gronlund2017]_.

.. [Wang2011] Wang, Song. Ckmeans.1d.dp: optimal k-means clustering in one dimension by dynamic
   programming. R Journal 3, 2011.
.. [Gronlund2017] Gronlund et al. Fast exact k-means, k-medians and Bregman divergence clustering
   in 1D. 2017. arXiv 1701.07204.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


def best_clusters(values: Floats, weights: Floats, k: int) -> Indices:
    """Return where each of the clusters of the least weighted sum of squares begins.

    Args:
        values: ``(n,)`` numbers in strictly ascending order.
        weights: ``(n,)`` how often each occurs, above 0.
        k: Clusters, from 1 on; ``n`` if there are fewer numbers.

    Returns:
        ``(min(k, n),)`` indices in ascending order, the first of them 0.
    """
    n = len(values)
    k = min(k, n)
    centred = values - np.average(values, weights=weights)  # So that squares cancel little.
    sums = np.stack([np.append(0, np.cumsum(part)) for part in (weights, weights * centred)])

    def gain(begin: Indices, end: Indices) -> Floats:
        # The sum of squares about zero, which no division changes, less that about the mean.
        weight, total = sums[:, end] - sums[:, begin]
        gains: Floats = total**2 / weight
        return gains

    best = np.full(n + 1, -np.inf)
    best[1:] = gain(np.zeros(n, dtype=np.intp), np.arange(1, n + 1))
    begins = np.zeros((k, n + 1), dtype=np.intp)
    for clusters in range(1, k):
        best, begins[clusters] = _add_cluster(best, clusters, gain)
    result = np.zeros(k, dtype=np.intp)
    end = n
    for cluster in range(k - 1, 0, -1):
        end = result[cluster] = begins[cluster, end]
    return result


def _add_cluster(
    before: Floats, clusters: int, gain: Callable[[Indices, Indices], Floats]
) -> tuple[Floats, Indices]:
    """Return the largest gain of the first ``j`` numbers, and where their last cluster begins.

    Args:
        before: ``(n + 1,)`` largest gains without that cluster.
        clusters: Number of clusters without it.
        gain: Of clusters by first number and by the one after the last.
    """
    n = len(before) - 1
    best = np.full(n + 1, -np.inf)
    begins = np.full(n + 1, clusters, dtype=np.intp)
    stride = 1 << (n - clusters).bit_length()
    while stride > 1:
        # All ends halfway between those that are solved, or behind the last of them.
        stride //= 2
        end = np.arange(clusters + stride, n + 1, 2 * stride)
        after = end + stride
        least = begins[end - stride]
        most = np.where(after <= n, begins[after.clip(max=n)], n)
        count = np.minimum(most, end - 1) - least + 1
        first = np.cumsum(count) - count
        group = np.repeat(np.arange(len(end)), count)
        begin = np.arange(len(group)) - first[group] + least[group]
        gains = before[begin] + gain(begin, end[group])
        best[end] = np.maximum.reduceat(gains, first)
        is_best = np.flatnonzero(gains == best[end][group])
        _, chosen = np.unique(group[is_best], return_index=True)
        begins[end] = begin[is_best[chosen]]
    return best, begins
