from __future__ import annotations

import numpy as np
import pytest

from optuna_shape.compress.clusters import best_clusters
from optuna_shape.compress.quantizers import _STRIDE
from optuna_shape.compress.quantizers import QUANTIZERS
from optuna_shape.compress.quantizers import Shared
from optuna_shape.compress.quantizers import _smallest_step
from optuna_shape.compress.quantizers import entropy
from optuna_shape.compress.quantizers import kmeans
from optuna_shape.compress.quantizers import probabilistic
from optuna_shape.compress.quantizers import uniform

GAUSS = np.random.default_rng(0).standard_normal(3000)
NAMES = pytest.mark.parametrize("name", QUANTIZERS)


def squares(shared: Shared, numbers: np.ndarray = GAUSS) -> float:
    return float(((shared.values - numbers) ** 2).sum())


def bits(shared: Shared) -> float:
    share = np.bincount(shared.indices) / len(shared.indices)
    return float(-(share * np.log2(share)).sum())


@NAMES
@pytest.mark.parametrize("k", [1, 2, 3, 32, 5000])
@pytest.mark.parametrize(
    "numbers",
    [GAUSS, np.array([0.5]), np.full(9, -2.0), np.arange(8.0), np.array([1e-30, 1.0, 1e6])],
    ids=["gauss", "one", "equal", "even", "far"],
)
def test_there_are_at_most_k_values_each_of_them_used(
    name: str, k: int, numbers: np.ndarray
) -> None:
    shared = QUANTIZERS[name](numbers, k, 0)
    assert 1 <= len(shared.codebook) <= k
    assert (np.diff(shared.codebook) > 0).all()
    assert np.array_equal(np.unique(shared.indices), np.arange(len(shared.codebook)))
    assert shared.values.shape == numbers.shape
    assert np.abs(shared.values).max() <= 2.01 * np.abs(numbers).max()


@pytest.mark.parametrize("k", [2, 16, 200])
def test_kmeans_is_exact_for_few_distinct_numbers(k: int) -> None:
    values, counts = np.unique(GAUSS.round(2), return_counts=True)
    begins = best_clusters(values, counts.astype(float), k)
    parts = np.split(np.repeat(values, counts), np.cumsum(np.add.reduceat(counts, begins))[:-1])
    best = sum(float(((part - part.mean()) ** 2).sum()) for part in parts)
    rounded = GAUSS.round(2)
    assert squares(kmeans(rounded, k), rounded) == pytest.approx(best)


def test_kmeans_of_more_numbers_is_within_a_thousandth_of_exact() -> None:
    numbers = np.random.default_rng(1).laplace(size=12_000)
    ordered = np.sort(numbers)
    begins = best_clusters(ordered, np.ones(12_000), 24)
    parts = np.split(ordered, begins[1:])
    exact = sum(float(((part - part.mean()) ** 2).sum()) for part in parts)
    assert exact <= squares(kmeans(numbers, 24), numbers) < 1.001 * exact


@NAMES
def test_kmeans_has_the_least_squares_of_all(name: str) -> None:
    assert squares(kmeans(GAUSS, 12)) <= squares(QUANTIZERS[name](GAUSS, 12, 0)) + 1e-9


def test_probabilistic_values_are_neighbouring_quantiles_and_unbiased() -> None:
    trials = [probabilistic(GAUSS, 9, seed) for seed in range(400)]
    codebook = np.quantile(GAUSS, np.linspace(0, 1, 9))
    assert trials[0].codebook == pytest.approx(codebook)
    below = codebook[np.searchsorted(codebook, GAUSS, side="right").clip(1, 8) - 1]
    for shared in trials[:3]:
        assert (shared.values >= below - 1e-12).all()
        assert (np.abs(shared.indices - np.searchsorted(codebook, GAUSS)) <= 1).all()
    mean = np.mean([shared.values for shared in trials], axis=0)
    widest = np.diff(codebook).max()
    assert np.abs(mean - GAUSS).max() < 6 * widest / 2 / np.sqrt(400)
    assert float((mean - GAUSS).mean()) == pytest.approx(0, abs=0.005)


def test_the_seed_draws() -> None:
    first, same, other = (probabilistic(GAUSS, 9, seed).indices for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("k", [3, 8, 33])
def test_uniform_values_are_multiples_of_a_step_as_fine_as_k_allows(k: int) -> None:
    shared = uniform(GAUSS, k)
    step = np.diff(shared.codebook).min()
    assert shared.codebook / step == pytest.approx(np.rint(shared.codebook / step))
    assert np.abs(shared.values - GAUSS).max() <= step / 2 * (1 + 1e-9)
    assert k / 2 < len(shared.codebook)


def smallest_step(numbers: np.ndarray, k: int, wide: float) -> float:
    """The first step of an interval that is so wide: it ends where a number changes its cell."""
    edges = np.unique(np.abs(numbers)[:, None] / (np.arange(100) + 0.5))
    for low, high in zip(edges, [*edges[1:], 4 * edges[-1]]):
        wide_enough = high > wide * low
        if wide_enough and len(np.unique(np.rint(numbers / ((low + high) / 2)))) <= k:
            return float(low)
    raise AssertionError("none")


@pytest.mark.parametrize("k", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("share", [0.0, 0.6, 0.95])
def test_the_step_of_pruned_numbers_is_the_smallest_of_all(share: float, k: int) -> None:
    magnitudes = np.abs(GAUSS)
    numbers = GAUSS[magnitudes > np.quantile(magnitudes, share)][:80]
    step = _smallest_step(np.sort(numbers), k)
    assert len(uniform(numbers, k).codebook) == len(np.unique(np.rint(numbers / step))) <= k
    # Of narrower ones than a stride, some are missed.
    assert step * (1 + 1e-9) >= smallest_step(numbers, k, 1 + 1e-9)
    assert step <= smallest_step(numbers, k, _STRIDE) * (1 + 1e-9)


def test_few_values_of_pruned_numbers_are_not_all_zero() -> None:
    numbers = np.random.default_rng(0).standard_normal(90_000)
    magnitudes = np.abs(numbers)
    kept = numbers[magnitudes > np.quantile(magnitudes, 0.95)]
    for k, most in ((2, 0.14), (5, 0.03)):
        assert squares(uniform(kept, k), kept) < most * float((kept**2).sum())


def test_entropy_trades_squares_for_bits() -> None:
    numbers = np.random.default_rng(3).standard_normal(20_000)
    fine, coarse = kmeans(numbers, 32), entropy(numbers, 32)
    assert bits(coarse) < bits(fine)
    assert squares(coarse, numbers) < 1.2 * squares(fine, numbers)


@pytest.mark.filterwarnings("error")
def test_numbers_that_vanish_beside_others_share_one_value() -> None:
    rng = np.random.default_rng(0)
    numbers = np.concatenate(
        [0.05 * rng.standard_normal(20_000), 1e-20 * rng.standard_normal(10_000)]
    )
    shared = entropy(numbers, 64)
    assert 2 < len(shared.codebook) <= 64
    assert (np.diff(shared.codebook) > 0).all()
    assert squares(shared, numbers) < 0.01 * float((numbers**2).sum())


def test_entropy_constrained_cells_are_cheapest_for_their_numbers() -> None:
    numbers = np.random.default_rng(2).laplace(size=500)
    shared = entropy(numbers, 7)
    assert (np.diff(shared.indices[np.argsort(numbers)]) >= 0).all()
    for cell in range(len(shared.codebook)):
        inside = numbers[shared.indices == cell]
        assert shared.codebook[cell] == pytest.approx(inside.mean(), abs=0.05)
