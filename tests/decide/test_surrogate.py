from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from decide_examples import grid
from decide_examples import small_search
from decide_examples import surface
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from optuna_shape.decide.surrogate import Posterior
from optuna_shape.decide.surrogate import accuracy
from optuna_shape.decide.surrogate import fit
from optuna_shape.decide.surrogate import log_error
from optuna_shape.decide.surrogate import unit_points

_SLOW = settings(max_examples=15, deadline=None)


@st.composite
def observations(draw: st.DrawFn, least: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points on a grid, so that some repeat, with any accuracies and variances."""
    count = draw(st.integers(least, 12))
    steps = st.lists(st.integers(0, 5), min_size=count, max_size=count)
    points = np.array([draw(steps), draw(steps)]).T / 5
    accuracies = draw(st.lists(st.floats(0.0, 1.0), min_size=count, max_size=count))
    extra = draw(st.lists(st.floats(0.0, 1.0), min_size=count, max_size=count))
    return points, log_error(accuracies), np.array(extra)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.5, 0.93, 0.9999])
def test_accuracy_undoes_log_error(value: float) -> None:
    assert float(accuracy(log_error(value))) == pytest.approx(value, abs=1e-12)


def test_perfect_accuracy_has_a_finite_log_error() -> None:
    assert np.isfinite(log_error(1.0))
    assert log_error(1.0) == log_error(0.99999) > log_error(0.999)


def test_unit_points_are_scaled_logarithms() -> None:
    points = unit_points([1, 2, 4], [8, 8, 32])
    np.testing.assert_allclose(points, [[0.0, 0.0], [0.5, 0.0], [1.0, 1.0]])


def test_axis_with_one_value_is_zero() -> None:
    np.testing.assert_array_equal(unit_points([3, 3], [8, 16]), [[0.0, 0.0], [0.0, 1.0]])


def test_recovers_a_surface() -> None:
    points = grid(8, 8)
    rng = np.random.default_rng(0)
    trained = rng.permutation(len(points))[:20]
    noise = 0.003 * rng.standard_normal(20)
    surrogate = fit(points[trained], log_error(surface(points[trained]) + noise), seed=0)
    mean, sd = surrogate.predict(points).marginal()
    error = mean - log_error(surface(points))
    assert np.abs(accuracy(mean) - surface(points)).max() < 0.02
    assert 0.3 < np.sqrt(np.mean((error / sd) ** 2)) < 2.0
    error = 1 - surface(points[trained]).max()
    assert 0.001 < surrogate.repeat_noise * error < 0.009


def test_repeat_noise_is_learned_from_replicates() -> None:
    rng = np.random.default_rng(0)
    points = np.repeat(grid(2, 3), 5, axis=0)
    found = [
        fit(points, log_error(0.8 + sigma * rng.standard_normal(30)), seed=0).repeat_noise
        for sigma in (0.001, 0.01)
    ]
    assert found == pytest.approx([0.005, 0.05], rel=0.4)


def test_noise_that_grows_with_the_error_is_learned() -> None:
    rng = np.random.default_rng(0)
    points = np.repeat(grid(2, 3), 8, axis=0)
    errors = np.repeat([0.4, 0.2, 0.1, 0.08, 0.06, 0.05], 8)
    scatter = {}
    for growth in (0.0, 1.0):
        noise = 0.05 * (errors / 0.05) ** growth * rng.standard_normal(len(points))
        surrogate = fit(points, -np.log(errors) + noise, seed=0)
        scatter[growth] = np.sqrt(surrogate.noise_variance(np.array([0.05, 0.4])))
    assert scatter[0.0] == pytest.approx([0.05, 0.05], rel=0.4)
    assert scatter[1.0] == pytest.approx([0.05, 0.4], rel=0.4)


def test_prior_without_observations() -> None:
    points = grid(3, 3)
    posterior = fit(np.empty((0, 2)), np.empty(0), seed=0).predict(points)
    mean, sd = posterior.marginal()
    np.testing.assert_allclose(mean, mean[0])
    assert (sd > 0.2).all()
    assert posterior.samples(10, np.arange(9), seed=0).shape == (10, 9)
    assert fit(np.empty((0, 2)), np.empty(0), seed=0).leave_one_out().mean.shape == (0,)


@pytest.mark.parametrize(
    "accuracies",
    [[0.9], [0.0], [1.0], [0.9, 0.9], [0.1, 1.0], [0.8] * 6, [0.0] * 6, [1.0] * 6, [0, 1, 0, 1]],
)
def test_degenerate_observations_give_finite_answers(accuracies: list[float]) -> None:
    points = grid(3, 3)
    trained = np.arange(len(accuracies))
    surrogate = fit(points[trained], log_error(accuracies), seed=0)
    posterior = surrogate.predict(points)
    mean, sd = posterior.marginal()
    assert np.isfinite(mean).all()
    assert np.isfinite(sd).all()
    assert (sd > 0).all()
    assert np.isfinite(posterior.samples(16, np.arange(9), seed=0)).all()
    assert np.isfinite(surrogate.leave_one_out().sd).all()
    assert np.isfinite(posterior.given(np.arange(9)).sd).all()


def test_space_of_one_shape() -> None:
    points = unit_points([3], [16])
    posterior = fit(points, log_error([0.9]), seed=0).predict(points)
    mean, sd = posterior.marginal()
    assert float(accuracy(mean)[0]) == pytest.approx(0.9, abs=0.01)
    assert sd[0] < 0.1


def test_space_of_5000_shapes() -> None:
    points = grid(70, 72)
    trained = np.arange(0, len(points), 600)
    posterior = fit(points[trained], log_error(surface(points[trained])), seed=0).predict(points)
    samples = posterior.samples(200, np.arange(len(points)), seed=0)
    mean, sd = posterior.marginal()
    assert np.sqrt(np.mean(((samples.mean(axis=0) - mean) / sd) ** 2)) < 0.3
    assert (posterior.given(np.array([7])).sd[:, 7] < 0.7 * posterior.sd[:, 7]).all()


def test_300_observations() -> None:
    points = grid(20, 20)
    trained = np.random.default_rng(0).integers(0, 400, 300)
    noise = 0.003 * np.random.default_rng(1).standard_normal(300)
    surrogate = fit(points[trained], log_error(surface(points[trained]) + noise), seed=0)
    mean, _ = surrogate.predict(points).marginal()
    assert np.abs(accuracy(mean) - surface(points)).max() < 0.012


def test_refuses_values_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="finite"):
        fit(np.zeros((1, 2)), np.array([np.nan]), seed=0)
    with pytest.raises(ValueError, match="negative"):
        fit(np.zeros((1, 2)), np.array([1.0]), np.array([-1.0]), seed=0)


def test_follows_from_its_arguments() -> None:
    example = small_search()
    again = fit(example.points[example.trained], example.log_errors, seed=0)
    np.testing.assert_array_equal(again.predict(example.points).mean, example.posterior.mean)
    one, two = (example.posterior.samples(50, np.arange(20), seed=s) for s in (1, 1))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, example.posterior.samples(50, np.arange(20), seed=2))


@contextmanager
def _settings_of_a_user() -> Iterator[None]:
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_default_device("meta")
    torch.set_default_dtype(torch.float16)
    torch.set_num_threads(2)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)


def test_settings_of_the_user_change_nothing() -> None:
    example = small_search()
    with _settings_of_a_user():
        surrogate = fit(example.points[example.trained], example.log_errors, seed=0)
        posterior = surrogate.predict(example.points)
        samples = posterior.samples(50, np.arange(20), seed=1)
        threads = torch.get_num_threads()
    assert threads == 2
    np.testing.assert_array_equal(posterior.mean, example.posterior.mean)
    np.testing.assert_array_equal(samples, example.posterior.samples(50, np.arange(20), seed=1))
    # What was made under the user's settings still works without them.
    posterior.given(np.array([3])).covariance(np.arange(4))


@_SLOW
@given(observations(), st.randoms(use_true_random=False))
def test_order_of_observations_does_not_matter(
    seen: tuple[np.ndarray, np.ndarray, np.ndarray], random: object
) -> None:
    points, values, extra = seen
    order = np.arange(len(values))
    random.shuffle(order)  # type: ignore[attr-defined]
    one = fit(points, values, extra, seed=3)
    other = fit(points[order], values[order], extra[order], seed=3)
    where = grid(3, 4)
    np.testing.assert_array_equal(one.predict(where).mean, other.predict(where).mean)
    np.testing.assert_array_equal(one.predict(where).sd, other.predict(where).sd)
    np.testing.assert_array_equal(one.leave_one_out().mean[order], other.leave_one_out().mean)
    np.testing.assert_allclose(one.values, values, atol=1e-12)


@_SLOW
@given(observations(), st.lists(st.integers(0, 11), min_size=1, max_size=5))
def test_conditioning_keeps_means_and_never_raises_variances(
    seen: tuple[np.ndarray, np.ndarray, np.ndarray], pending: list[int]
) -> None:
    before = fit(*seen, seed=0).predict(grid(3, 4))
    after = before.given(np.array(pending))
    scale = before.sd.max()
    np.testing.assert_allclose(after.mean, before.mean, atol=1e-6 * scale)
    assert (after.sd**2 <= before.sd**2 + 1e-9 * scale**2).all()
    assert (after.sd[:, pending] < before.sd[:, pending] + 1e-6 * scale).all()


@_SLOW
@given(observations())
def test_covariances_are_positive_semidefinite(
    seen: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    posterior = fit(*seen, seed=0).predict(grid(3, 4))
    covariance = posterior.covariance(np.arange(12))
    size = np.abs(covariance).max()
    np.testing.assert_allclose(covariance, covariance.transpose(0, 2, 1), atol=1e-9 * size)
    assert np.linalg.eigvalsh(covariance).min() > -1e-7 * size
    np.testing.assert_allclose(
        np.diagonal(covariance, axis1=1, axis2=2), posterior.sd**2, atol=1e-7 * size
    )


@_SLOW
@given(observations(), st.floats(-1.0, 10.0), st.floats(0.0, 3.0))
def test_chances_fall_with_the_threshold(
    seen: tuple[np.ndarray, np.ndarray, np.ndarray], threshold: float, more: float
) -> None:
    posterior = fit(*seen, seed=0).predict(grid(3, 4))
    low = posterior.probability_above(threshold)
    high = posterior.probability_above(threshold + more)
    assert (high <= low).all()
    assert (low >= 0).all()
    assert (low <= 1 + 1e-12).all()


@_SLOW
@given(observations(least=3))
def test_replicates_sharpen(seen: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """The same result again, members given, is more certainty and no other mean there."""
    points, values, extra = seen
    posterior = fit(points, values, extra, seed=0).predict(points)
    again = posterior.given(np.array([0, 0]))
    assert (again.sd[:, 0] <= posterior.given(np.array([0])).sd[:, 0] + 1e-9).all()


def test_marginal_is_that_of_the_samples() -> None:
    posterior = small_search().posterior
    samples = posterior.samples(20_000, np.arange(20), seed=0)
    mean, sd = posterior.marginal()
    np.testing.assert_allclose(samples.mean(axis=0), mean, atol=0.05 * sd.max())
    np.testing.assert_allclose(samples.std(axis=0), sd, rtol=0.1)
    share = (samples >= 1.6).mean(axis=0)
    np.testing.assert_allclose(share, posterior.probability_above(1.6), atol=0.02)
    some = np.array([4, 1])
    np.testing.assert_allclose(
        posterior.probability_above(np.array([1.6, 1.4]), some),
        [posterior.probability_above(1.6)[4], posterior.probability_above(1.4)[1]],
    )


def test_samples_are_joint() -> None:
    posterior = small_search().posterior
    some = np.array([3, 17, 4, 0])
    samples = posterior.samples(60_000, some, seed=0)
    mean = posterior.mean[:, some]
    centred = mean - posterior.weights @ mean
    within = np.einsum("m,mij->ij", posterior.weights, posterior.covariance(some))
    between = np.einsum("m,mi,mj->ij", posterior.weights, centred, centred)
    expected = within + between
    np.testing.assert_allclose(np.cov(samples.T), expected, atol=0.05 * np.diag(expected).max())


def test_given_is_a_fit_with_one_observation_more() -> None:
    """For one member, by the formula of conditional covariance."""
    posterior = small_search().posterior
    pending, where = 5, np.arange(20)
    after: Posterior = posterior.given(np.array([pending]))
    covariance = posterior.covariance(where)
    surrogate = posterior._surrogate
    members = surrogate._gp.members
    relative = torch.from_numpy(np.exp(-posterior.mean[:, pending]) / surrogate.least_error)
    noise = (members.repeat_noise * relative**members.noise_growth).numpy() ** 2
    gain = covariance[:, :, pending] ** 2 / (covariance[:, pending, pending] + noise)[:, None]
    np.testing.assert_allclose(after.sd**2, posterior.sd**2 - gain, rtol=1e-5)
    assert posterior.given(np.array([], dtype=int)) is posterior


def test_extra_variance_weakens_an_observation() -> None:
    points = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, 0.5]])
    values = np.array([1.0, 1.2, 1.5, 1.7, 1.6])
    sure = fit(points, values, seed=0).predict(points).marginal()
    vague = fit(points, values, np.array([0, 0, 0, 0, 1.0]), seed=0).predict(points).marginal()
    assert sure.mean[4] == pytest.approx(1.6, abs=0.05)
    assert 1.3 < vague.mean[4] < 1.5
    assert vague.sd[4] > sure.sd[4]


def test_leave_one_out_is_honest_about_an_outlier() -> None:
    points = grid(4, 4)
    values = log_error(surface(points))
    values[5] += 1.0
    mean, sd = fit(points, values, seed=0).leave_one_out()
    z = (values - mean) / sd
    assert np.argmax(np.abs(z)) == 5
    assert z[5] > 3
