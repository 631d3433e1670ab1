from __future__ import annotations

import itertools

import numpy as np
import pytest

from optuna_shape.compress.clusters import Floats
from optuna_shape.compress.clusters import best_clusters


def cost(values: Floats, weights: Floats, begins: list[int]) -> float:
    total = 0.0
    for begin, end in itertools.pairwise([*begins, len(values)]):
        part, weight = values[begin:end], weights[begin:end]
        total += float(weight @ (part - np.average(part, weights=weight)) ** 2)
    return total


@pytest.mark.parametrize("seed", range(15))
def test_no_division_is_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 11))
    values = np.sort(rng.standard_normal(n) * 10.0 ** rng.integers(-6, 7)) + rng.integers(-9, 9)
    weights = rng.integers(1, 6, n).astype(float)
    for k in range(1, n + 1):
        best = min(
            cost(values, weights, [0, *cuts])
            for cuts in itertools.combinations(range(1, n), k - 1)
        )
        begins = best_clusters(values, weights, k).tolist()
        assert begins[0] == 0
        assert begins == sorted(set(begins))
        assert len(begins) == k
        assert cost(values, weights, begins) == pytest.approx(best, rel=1e-9, abs=1e-12)


def test_many_numbers_agree_with_the_plain_recursion() -> None:
    rng = np.random.default_rng(0)
    values, weights, k = np.sort(rng.gamma(0.3, size=150)), rng.integers(1, 9, 150) * 1.0, 12
    n = len(values)
    sums = np.array([[cost(values[i:j], weights[i:j], [0]) if i < j else 0 for j in range(n + 1)]
                     for i in range(n + 1)])  # fmt: skip
    best = sums[0]
    for _ in range(1, k):
        best = np.array([min(best[i] + sums[i, j] for i in range(j + 1)) for j in range(n + 1)])
    begins = best_clusters(values, weights, k).tolist()
    assert cost(values, weights, begins) == pytest.approx(best[n])


def test_there_are_no_more_clusters_than_numbers() -> None:
    assert best_clusters(np.array([1.0, 2.0]), np.ones(2), 5).tolist() == [0, 1]
