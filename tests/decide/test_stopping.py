from __future__ import annotations

import numpy as np
import pytest
from decide_examples import grid
from decide_examples import small_search
from decide_examples import surface
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from optuna_shape.decide import stopping
from optuna_shape.decide.stopping import leave_one_out
from optuna_shape.decide.stopping import probability_any_reaches
from optuna_shape.decide.stopping import probability_better
from optuna_shape.decide.surrogate import Posterior
from optuna_shape.decide.surrogate import accuracy
from optuna_shape.decide.surrogate import fit
from optuna_shape.decide.surrogate import log_error


def eight_shapes(trained: int) -> Posterior:
    points = grid(2, 4)
    order = np.random.default_rng(1).permutation(8)[:trained]
    return fit(points[order], log_error(surface(points[order])), seed=0).predict(points)


def brute_force(posterior: Posterior, count: int) -> np.ndarray:
    """Joint samples of all shapes by numpy's own sampler, a random member each."""
    rng = np.random.default_rng(7)
    covariance = posterior.covariance(np.arange(len(posterior)))
    members = rng.multinomial(count, posterior.weights)
    return np.concatenate(
        [
            rng.multivariate_normal(posterior.mean[m], covariance[m], size=number, method="eigh")
            for m, number in enumerate(members)
        ]
    )


@pytest.mark.parametrize("trained", [0, 2, 5])
@pytest.mark.parametrize("epsilon", [0.0, 0.005, 0.05])
def test_probability_better_is_that_of_brute_force(trained: int, epsilon: float) -> None:
    posterior = eight_shapes(trained)
    samples = accuracy(brute_force(posterior, 200_000))
    for answer, others in ((0, np.arange(1, 8)), (3, np.array([1, 6])), (7, np.arange(8))):
        rivals = np.setdiff1d(others, [answer])
        better = samples[:, rivals].max(axis=1) > samples[:, answer] + epsilon
        stated = probability_better(posterior, answer, others, epsilon, seed=0, count=20_000)
        assert stated == pytest.approx(better.mean(), abs=0.015)


@pytest.mark.parametrize("trained", [0, 2, 5])
def test_probability_any_reaches_is_that_of_brute_force(trained: int) -> None:
    posterior = eight_shapes(trained)
    samples = brute_force(posterior, 200_000)
    for some in (np.array([2]), np.array([1, 5, 6]), np.arange(8)):
        for threshold in log_error([0.7, 0.8, 0.87]):
            reached = samples[:, some].max(axis=1) >= threshold
            stated = probability_any_reaches(posterior, some, threshold, seed=0, count=20_000)
            assert stated == pytest.approx(reached.mean(), abs=0.015)


def test_nothing_to_compare_with() -> None:
    posterior = eight_shapes(3)
    none = np.array([], dtype=int)
    assert probability_better(posterior, 0, none, 0.005, seed=0) == 0.0
    assert probability_better(posterior, 0, np.array([0]), 0.005, seed=0) == 0.0
    assert probability_any_reaches(posterior, none, 1.0, seed=0) == 0.0


def test_nothing_is_better_than_perfect() -> None:
    points = grid(3, 3)
    posterior = fit(points[:6], log_error([0.9, 0.95, 0.99, 0.999, 1.0, 1.0]), seed=0).predict(
        points
    )
    assert probability_better(posterior, 5, np.arange(9), 0.5, seed=0) < 0.01
    assert probability_any_reaches(posterior, np.arange(9), 1e6, seed=0) == 0.0


@settings(max_examples=20, deadline=None)
@given(st.floats(0.0, 0.2), st.floats(0.0, 0.2), st.integers(0, 19))
def test_a_larger_epsilon_makes_better_less_likely(one: float, other: float, answer: int) -> None:
    posterior = small_search().posterior
    low, high = sorted([one, other])
    everything = np.arange(20)
    assert probability_better(posterior, answer, everything, high, seed=0) <= probability_better(
        posterior, answer, everything, low, seed=0
    )


@settings(max_examples=20, deadline=None)
@given(st.floats(0.5, 3.0), st.floats(0.0, 1.0), st.sets(st.integers(0, 19), min_size=1))
def test_reaching_more_is_less_likely(threshold: float, more: float, some: set[int]) -> None:
    posterior = small_search().posterior
    indices = np.array(sorted(some))
    low = probability_any_reaches(posterior, indices, threshold, seed=0)
    high = probability_any_reaches(posterior, indices, threshold + more, seed=0)
    # The two may leave out different shapes, and so use different random numbers.
    assert high <= low + 0.05
    assert low >= posterior.probability_above(threshold, indices).max() - 0.05


def test_order_of_indices_does_not_matter() -> None:
    posterior = small_search().posterior
    others = np.random.default_rng(0).permutation(20)
    assert probability_better(posterior, 4, others, 0.01, seed=0) == probability_better(
        posterior, 4, np.sort(others), 0.01, seed=0
    )
    assert probability_any_reaches(posterior, others, 1.7, seed=0) == probability_any_reaches(
        posterior, np.sort(others), 1.7, seed=0
    )


def test_leaving_out_the_hopeless_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    example = small_search()
    answer = int(example.trained[np.argmax(example.log_errors)])
    everything = np.arange(20)

    def state() -> tuple[float, float]:
        return (
            probability_better(example.posterior, answer, everything, 0.005, seed=0, count=50_000),
            probability_any_reaches(example.posterior, everything, 1.9, seed=0, count=50_000),
        )

    few = state()
    monkeypatch.setattr(stopping, "_NEGLIGIBLE", -1.0)
    assert few == pytest.approx(state(), abs=0.01)


def test_large_spaces_agree_with_coarser_ones() -> None:
    """Interpolated joint samples of 5,000 shapes, against exact ones of every fifth row."""
    points = grid(70, 72)
    trained = np.arange(0, len(points), 700)
    seen = log_error(surface(points[trained]))
    posterior = fit(points[trained], seen, seed=0).predict(points)
    answer = int(trained[np.argmax(seen)])
    everything = np.arange(len(points))
    coarse = everything.reshape(70, 72)[::5, ::5].ravel()
    dense = probability_better(posterior, answer, everything, 0.005, seed=0)
    sparse = probability_better(posterior, answer, coarse, 0.005, seed=0)
    assert sparse - 0.05 < dense < sparse + 0.15


def test_leave_one_out_scores_are_standard_for_data_of_the_model() -> None:
    rng = np.random.default_rng(0)
    points = grid(6, 6)
    scores = []
    for seed in range(5):
        noise = 0.004 * rng.standard_normal(len(points))
        scores.append(leave_one_out(fit(points, log_error(surface(points) + noise), seed=seed)))
    z = np.concatenate(scores)
    assert abs(z.mean()) < 0.3
    assert 0.7 < z.std() < 1.3


def test_leave_one_out_leaves_out_of_the_weights_too() -> None:
    """By brute force: each observation by the other observations, the members being the same."""
    example = small_search()
    surrogate = example.surrogate
    gp = surrogate._gp
    import torch

    from optuna_shape.decide._gp import BatchGP

    points, targets, noise = gp.points, gp.targets, gp.noise
    full = gp.log_marginal_likelihood()
    expected = np.empty(7)
    for i in range(7):
        rest = torch.arange(7) != i
        part = BatchGP(gp.members, points[rest], targets[:, rest], noise[:, rest])
        change = (part.log_marginal_likelihood() - full).numpy()
        weights = surrogate.weights * np.exp(change)
        weights /= weights.sum()
        mean, variance = (part.numpy()[:, 0] for part in part.moments(points[[i]]))
        centre = weights @ mean
        spread = weights @ (variance + noise.numpy()[:, i] + (mean - centre) ** 2)
        expected[i] = (float(targets[0, i]) - centre) / np.sqrt(spread)
    back = np.argsort(surrogate._order)
    np.testing.assert_allclose(leave_one_out(surrogate), expected[back], rtol=1e-6)
