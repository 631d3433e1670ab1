"""The batched Gaussian process against textbook formulas written out in numpy."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from optuna_shape.decide import _gp
from optuna_shape.decide._gp import BatchGP
from optuna_shape.decide._gp import Members

N_OBSERVED = 6


@pytest.fixture
def members() -> Members:
    return Members.from_normal(torch.from_numpy(np.random.default_rng(1).normal(size=(3, 6))))


@pytest.fixture
def observed() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    return rng.random((N_OBSERVED, 2)), rng.normal(size=N_OBSERVED), rng.uniform(1, 9, N_OBSERVED)


def build(members: Members, observed: tuple[np.ndarray, ...]) -> BatchGP:
    points, targets, errors = (torch.from_numpy(part) for part in observed)
    return BatchGP(members, points, targets, members.noise(errors))


def prior(members: Members, m: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The covariance of the module's docstring."""
    difference = (left[:, None] - right[None]) / members.lengthscale[m].numpy()
    r = np.sqrt(5.0) * np.sqrt((difference**2).sum(-1))
    matern = (1 + r + r**2 / 3) * np.exp(-r)
    trend = float(members.trend[m]) ** 2 * (left - 0.5) @ (right - 0.5).T
    return 1.0 + trend + float(members.deviation[m]) ** 2 * matern


def noise_of(members: Members, m: int, errors: np.ndarray) -> np.ndarray:
    """The noise variance of the docstring."""
    growth = errors ** (2 * float(members.noise_growth[m]))
    return float(members.repeat_noise[m]) ** 2 * growth


def test_posterior_is_the_textbook_one(members: Members, observed: tuple[np.ndarray, ...]) -> None:
    points, targets, errors = observed
    elsewhere = np.random.default_rng(3).random((4, 2))
    gp = build(members, observed)
    mean, variance = gp.moments(torch.from_numpy(elsewhere))
    covariance = gp.covariance(torch.from_numpy(elsewhere), torch.from_numpy(elsewhere[:2]))
    for m in range(len(members)):
        noise = noise_of(members, m, errors)
        inverse = np.linalg.inv(prior(members, m, points, points) + np.diag(noise))
        cross = prior(members, m, elsewhere, points)
        expected = prior(members, m, elsewhere, elsewhere) - cross @ inverse @ cross.T
        np.testing.assert_allclose(mean[m], cross @ inverse @ targets, rtol=1e-8)
        np.testing.assert_allclose(variance[m], np.diag(expected), rtol=1e-7)
        np.testing.assert_allclose(covariance[m], expected[:, :2], atol=1e-10)


def test_marginal_likelihood_is_that_of_scipy(
    members: Members, observed: tuple[np.ndarray, ...]
) -> None:
    from scipy.stats import multivariate_normal

    points, targets, errors = observed
    likelihood = build(members, observed).log_marginal_likelihood()
    for m in range(len(members)):
        noise = noise_of(members, m, errors)
        covariance = prior(members, m, points, points) + np.diag(noise)
        expected = multivariate_normal.logpdf(targets, cov=covariance)
        assert float(likelihood[m]) == pytest.approx(expected, rel=1e-8)


def test_agrees_with_botorch(members: Members, observed: tuple[np.ndarray, ...]) -> None:
    from botorch.models import SingleTaskGP
    from gpytorch.kernels import ConstantKernel
    from gpytorch.kernels import LinearKernel
    from gpytorch.means import ZeroMean

    points, targets, errors = (torch.from_numpy(part) for part in observed)
    elsewhere = torch.from_numpy(np.random.default_rng(3).random((4, 2)))
    linear, constant = LinearKernel(), ConstantKernel()
    linear.variance = members.trend[0] ** 2
    constant.constant = torch.tensor(1.0)
    model = SingleTaskGP(
        points - 0.5,
        targets[:, None],
        members[:1].noise(errors).mT,
        covar_module=members[:1].kernel() + linear + constant,
        mean_module=ZeroMean(),
        outcome_transform=None,
    )
    with torch.no_grad():
        theirs = model.posterior(elsewhere - 0.5)
        ours = build(members[:1], observed).moments(elsewhere)
    np.testing.assert_allclose(ours[0][0], theirs.mean.flatten(), rtol=1e-6)
    np.testing.assert_allclose(ours[1][0], theirs.variance.flatten(), rtol=1e-5)


def test_leave_one_out_is_that_of_refits(
    members: Members, observed: tuple[np.ndarray, ...]
) -> None:
    mean, variance, log_density = build(members, observed).leave_one_out()
    errors = torch.from_numpy(observed[2])
    for i in range(N_OBSERVED):
        rest = np.arange(N_OBSERVED) != i
        refitted = build(members, tuple(part[rest] for part in observed))
        point = torch.from_numpy(observed[0][[i]])
        expected, latent = (part[:, 0] for part in refitted.moments(point))
        spread = latent + members.noise(errors)[:, i]
        density = torch.distributions.Normal(expected, spread.sqrt()).log_prob(
            torch.tensor(observed[1][i])
        )
        np.testing.assert_allclose(mean[:, i], expected, rtol=1e-7)
        np.testing.assert_allclose(variance[:, i], spread, rtol=1e-7)
        np.testing.assert_allclose(log_density[:, i], density, rtol=1e-7)


def test_blocks_change_nothing(
    members: Members, observed: tuple[np.ndarray, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    points = torch.from_numpy(np.random.default_rng(3).random((40, 2)))
    normals = torch.from_numpy(np.random.default_rng(4).normal(size=(9, 40)))
    landmarks = torch.arange(0, 40, 2)

    def results() -> list[torch.Tensor]:
        gp, samples = build(members, observed), normals.clone()
        gp.joint(points, landmarks, samples, [4, 0, 5])
        return [*gp.moments(points), samples]

    whole = results()
    monkeypatch.setattr(_gp, "_CHUNK", 50)
    for one, other in zip(whole, results()):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-10)


def test_landmarks_keep_the_joint_distribution(
    members: Members, observed: tuple[np.ndarray, ...]
) -> None:
    side = np.linspace(0.0, 1.0, 17)
    points = torch.from_numpy(np.stack(np.meshgrid(side, side), -1).reshape(-1, 2))
    landmarks = torch.arange(0, len(points), 2)
    gp = build(members[:1], observed)
    samples = torch.from_numpy(np.random.default_rng(5).standard_normal((20_000, len(points))))
    gp.joint(points, landmarks, samples, [20_000])
    exact = gp.covariance(points, points)[0]
    size = float(exact.diagonal().max())
    np.testing.assert_allclose(torch.cov(samples.mT), exact, atol=0.05 * size)
    np.testing.assert_allclose(samples.mean(0), gp.moments(points)[0][0], atol=0.05 * size**0.5)


def test_second_round_integrates_like_many_draws_of_the_prior() -> None:
    rng = np.random.default_rng(6)
    points = torch.from_numpy(rng.random((12, 2)))
    targets = points.sum(-1) - 1.0 + 0.05 * torch.from_numpy(rng.normal(size=12))
    errors, extra = torch.full_like(targets, 5.0), torch.zeros_like(targets)
    where = torch.from_numpy(rng.random((5, 2)))
    gp, weights = _gp.fit(points, targets, errors, extra, 1.0, seed=0)

    many = Members.from_normal(torch.from_numpy(rng.normal(size=(20_000, 6))))
    brute = BatchGP(many, points, targets, many.noise(errors))
    posterior = torch.softmax(brute.log_marginal_likelihood(), 0)
    expected, latent = brute.moments(where)
    mean, variance = gp.moments(where)
    centre, deviation = posterior @ expected, (posterior @ latent).sqrt()
    np.testing.assert_array_less((weights @ mean - centre).abs(), 0.3 * deviation)
    np.testing.assert_allclose((weights @ variance).sqrt(), deviation, rtol=0.25)


def test_members_are_few_and_weighted(observed: tuple[np.ndarray, ...]) -> None:
    points, targets, errors = (torch.from_numpy(part) for part in observed)
    gp, weights = _gp.fit(points, targets, errors, torch.zeros_like(targets), 1.0, seed=0)
    assert len(gp.members) == len(weights) <= 32
    assert float(weights.sum()) == pytest.approx(1.0)
    assert (weights > 0).all()


def test_noise_refers_to_the_least_error_and_grows_from_there(members: Members) -> None:
    noise = members.noise(torch.tensor([1.0, 4.0], dtype=torch.float64))
    np.testing.assert_allclose(noise[:, 0], members.repeat_noise**2)
    np.testing.assert_allclose(noise[:, 1] / noise[:, 0], 16.0**members.noise_growth)


def test_cholesky_helps_only_the_member_that_needs_it() -> None:
    good = torch.eye(3, dtype=torch.float64)
    batch = torch.stack([good, torch.ones(3, 3, dtype=torch.float64)])
    factor = _gp._cholesky(batch.clone())
    np.testing.assert_array_equal(factor[0], good)
    np.testing.assert_allclose(factor[1] @ factor[1].mT, batch[1], atol=1e-5)


def test_settings_of_torch_are_restored() -> None:
    def fail() -> None:
        with _gp.isolated():
            assert torch.get_num_threads() == 1
            raise RuntimeError("inside")

    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.get_num_threads() == before


def test_decisions_at_once_do_not_mix_their_settings() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:

        def enter() -> None:
            for _ in range(50):
                with _gp.isolated():
                    pass

        threads = [threading.Thread(target=enter) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
