r"""Batched Gaussian-process regression in torch; :mod:`.surrogate` is its numpy face.

Notation: :math:`n` observations :math:`z_i` at points :math:`x_i \in [0, 1]^2`, and :math:`M`
*members*, draws of the hyper-parameters :math:`\theta_m`. Member :math:`m` has the prior
covariance

.. math::
    k_m(x, x') = c^2 + \tau_m^2 \, (x - \tfrac12)^\top (x' - \tfrac12)
               + s_m^2 \, \mathrm{Matern}_{5/2}(x, x'; \ell_m)

that is, a constant and a linear trend with Gaussian coefficients, integrated exactly, and a smooth
deviation from them. Observation :math:`i` has the noise variance :meth:`Members.noise`.

Kernels and quasi-random draws are those of GPyTorch and BoTorch. The algebra on top is written
out, because ``SingleTaskGP.posterior`` builds the ``M x N x N`` covariance of all ``N`` points
even where only variances are asked for (gigabytes for thousands), and because its jitter
and its solver depend on the size of the problem.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from botorch.sampling.qmc import NormalQMCEngine
from gpytorch.kernels import Kernel
from gpytorch.kernels import MaternKernel
from gpytorch.kernels import ScaleKernel
from torch import Tensor

# Log-normal priors, as (median, standard deviation of the logarithm). Points lie in the unit
# square and targets are standardised, so the first three have no unit.
_LENGTHSCALE = (0.6, 0.7)
_DEVIATION = (0.6, 0.7)
_TREND = (2.0, 0.8)
# Log error, of the most accurate shape. At 95 % about half the binomial deviation on 2,000 images:
# all shapes share one validation set, so its sampling error is no repeat noise. No floor.
_REPEAT_NOISE = (0.04, 0.8)
# Exponent, normal: mean and standard deviation. Networks that train badly repeat badly, too.
_NOISE_GROWTH = (0.5, 0.5)
_CONSTANT = 1.0
# Of the draws: two length scales and one of each other.
_DIMENSIONS = 6

_DRAWS = 256
_KEPT = 32
# More observations than this say little new of the hyper-parameters, and 512 Cholesky factors of
# large matrices take long: the cost of a fit stays bounded. All observations enter the kept
# members.
_MOST_WEIGHED = 40
# Elements of the largest temporary array: 2 MB, which stays in the cache.
_CHUNK = 2**18
_LEAST_VARIANCE = 1e-12
_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)

_LOCK = threading.RLock()


@contextmanager
def isolated() -> Iterator[None]:
    """Make torch compute the same whatever the user has set: on the CPU, with one thread.

    Several threads would gain nothing on matrices this small, and change the last bits. The number
    of threads belongs to the process, hence the lock: two decisions at once would otherwise
    restore each other's setting.
    """
    with _LOCK, torch.inference_mode(False), torch.no_grad(), torch.device("cpu"):
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


@dataclass(frozen=True, eq=False)
class Members:
    """Hyper-parameters of ``M`` members.

    Attributes:
        lengthscale: ``M x 2``, in units of the square's side.
        deviation: ``M``, :math:`s`, in standardised targets.
        trend: ``M``, :math:`\\tau`, in standardised targets per side of the square.
        repeat_noise: ``M``, :math:`\\sigma`, standard deviation of the log error between repeated
            trainings of a shape of relative error 1.
        noise_growth: ``M``, :math:`\\gamma`, exponent with which that deviation grows with the
            relative error.
    """

    lengthscale: Tensor
    deviation: Tensor
    trend: Tensor
    repeat_noise: Tensor
    noise_growth: Tensor

    @classmethod
    def from_normal(cls, draws: Tensor) -> Members:
        """Map standard normal draws, ``M x 6``, to the priors above."""
        centres, deviations = _prior()
        values = centres + deviations * draws
        positive = values[:, :-1].exp()
        return cls(positive[:, :2], positive[:, 2], positive[:, 3], positive[:, 4], values[:, 5])

    def __len__(self) -> int:
        return len(self.deviation)

    def __getitem__(self, members: Tensor | slice) -> Members:
        return Members(
            self.lengthscale[members],
            self.deviation[members],
            self.trend[members],
            self.repeat_noise[members],
            self.noise_growth[members],
        )

    def kernel(self) -> Kernel:
        """The smooth deviation's covariance, of all members."""
        batch = torch.Size([len(self)])
        matern = MaternKernel(nu=2.5, ard_num_dims=2, batch_shape=batch)
        kernel = ScaleKernel(matern, batch_shape=batch).double()
        matern.lengthscale = self.lengthscale[:, None, :]
        kernel.outputscale = self.deviation.square()
        return kernel.requires_grad_(False)

    def noise(self, errors: Tensor) -> Tensor:
        r"""Variance of an observed log error, ``M x n``: :math:`\sigma^2 e^{2 \gamma}`.

        Args:
            errors: :math:`e`, relative error rates: of the least error rate observed, ``n`` or
                ``M x n``.
        """
        growth = (self.noise_growth[:, None] * errors.log()).exp()
        return (self.repeat_noise[:, None] * growth).square()


class BatchGP:
    """``M`` exact Gaussian processes on the same points, one for each member.

    Args:
        members:
            The hyper-parameters.
        points:
            ``n x 2``, in the unit square; ``n`` may be 0.
        targets:
            ``n``, or ``M x n`` where members have targets of their own; standardised.
        noise:
            Noise variance, ``M x n``, standardised.
    """

    def __init__(self, members: Members, points: Tensor, targets: Tensor, noise: Tensor) -> None:
        self.members = members
        self.points = points
        self.targets = targets.expand(len(members), len(points))
        self.noise = noise
        self._kernel = members.kernel()
        covariance = self._prior_covariance(points, points)
        covariance.diagonal(dim1=-2, dim2=-1).add_(noise)
        self._factor = _cholesky(covariance)
        self._weights = torch.cholesky_solve(self.targets[..., None], self._factor)[..., 0]

    def log_marginal_likelihood(self) -> Tensor:
        """``log p(targets | member)``, ``M`` (Rasmussen & Williams 2006, eq. 2.30)."""
        fit = (self.targets * self._weights).sum(-1)
        determinant = self._factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return -0.5 * fit - determinant - len(self.points) * _HALF_LOG_TWO_PI

    def moments(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the noise-free function, each ``M x N`` (eq. 2.25, 2.26)."""
        blocks = torch.split(points, self._rows(len(self.points)))
        means, variances = zip(*(self._moments(some, *self._whitened(some)) for some in blocks))
        return torch.cat(means, -1), torch.cat(variances, -1)

    def covariance(self, left: Tensor, right: Tensor) -> Tensor:
        """Covariance of the noise-free function at two sets of points, ``M x A x B``."""
        _, half_left = self._whitened(left)
        _, half_right = self._whitened(right)
        return self._prior_covariance(left, right) - half_left.mT @ half_right

    def leave_one_out(self) -> tuple[Tensor, Tensor, Tensor]:
        r"""Predict each observation from the others (Rasmussen & Williams 2006, section 5.4.2).

        .. math::
            \mu_i = z_i - \frac{[K^{-1} z]_i}{[K^{-1}]_{ii}}, \qquad
            \sigma_i^2 = \frac{1}{[K^{-1}]_{ii}}

        Returns:
            Mean, variance (repeat noise included) and log density of the observation, ``M x n``.
        """
        precision = torch.cholesky_inverse(self._factor).diagonal(dim1=-2, dim2=-1)
        residual = self._weights / precision
        log_density = 0.5 * (precision.log() - residual.square() * precision)
        return self.targets - residual, 1.0 / precision, log_density - _HALF_LOG_TWO_PI

    def extended(self, points: Tensor, targets: Tensor, noise: Tensor) -> BatchGP:
        """The same members with more observations (targets and noise ``M x p``)."""
        return BatchGP(
            self.members,
            torch.cat([self.points, points]),
            torch.cat([self.targets, targets], -1),
            torch.cat([self.noise, noise], -1),
        )

    def joint(self, points: Tensor, landmarks: Tensor, normals: Tensor, counts: list[int]) -> None:
        """Joint samples of the noise-free function, ``counts[m]`` of them from member ``m``.

        The landmarks are sampled exactly. At the other points the function is predicted from the
        landmarks by kriging, and the variance that this leaves unexplained, very little where
        landmarks are dense, is added independently: marginals stay exact, and no matrix of all
        points is needed.

        Args:
            points: ``k x 2``.
            landmarks: Indices of the points to sample exactly; the others follow from them.
            normals: Standard normal numbers, ``S x k``. The samples take their place.
            counts: For each member; they sum to ``S``.
        """
        known = points[landmarks]
        cross, half = self._whitened(known)
        mean, _ = self._moments(known, cross, half)
        factor = _cholesky(self._prior_covariance(known, known) - half.mT @ half)
        rows = torch.split(normals, counts)
        offsets = [some[:, landmarks] @ factor[m].mT for m, some in enumerate(rows)]
        for m, some in enumerate(rows):
            some[:, landmarks] = mean[m] + offsets[m]
        for block in torch.split(_others(landmarks, len(points)), self._rows(len(known))):
            cross, half_block = self._whitened(points[block])
            mean, variance = self._moments(points[block], cross, half_block)
            shared = self._prior_covariance(known, points[block]) - half.mT @ half_block
            solved = torch.cholesky_solve(shared, factor)
            own = (variance - (shared * solved).sum(-2)).clamp_min(0.0).sqrt()
            for m, some in enumerate(rows):
                some[:, block] = mean[m] + offsets[m] @ solved[m] + own[m] * some[:, block]

    def _moments(self, points: Tensor, cross: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
        mean = (cross.mT @ self._weights[..., None])[..., 0]
        # The diagonal of the prior is known: Matern is one at distance zero.
        trend = self.members.trend.square()[:, None] * (points - 0.5).square().sum(-1)
        prior = self.members.deviation.square()[:, None] + trend + _CONSTANT**2
        return mean, (prior - half.square().sum(-2)).clamp_min(_LEAST_VARIANCE)

    def _prior_covariance(self, left: Tensor, right: Tensor) -> Tensor:
        # The trend is added here: GPyTorch's sum of a dense and a linear kernel would factorise
        # the dense one, with jitter and a warning, in case someone asks for a root of the sum.
        trend = self.members.trend.square()[:, None, None] * ((left - 0.5) @ (right - 0.5).mT)
        smooth: Tensor = self._kernel(left, right).to_dense()
        return smooth + trend + _CONSTANT**2

    def _whitened(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Prior covariance ``C`` with the observations, ``M x n x N``, and ``L^{-1} C``."""
        cross = self._prior_covariance(self.points, points)
        return cross, torch.linalg.solve_triangular(self._factor, cross, upper=False)

    def _rows(self, width: int) -> int:
        return max(1, _CHUNK // (len(self.members) * max(1, width)))


def fit(
    points: Tensor, targets: Tensor, errors: Tensor, extra: Tensor, scale: float, seed: int
) -> tuple[BatchGP, Tensor]:
    """Integrate over the hyper-parameters: members, and the weight of each.

    Importance sampling in two rounds. The first draws from the prior. Once the data say much, few
    of its draws matter, so a second round draws from a Gaussian around the weighted first. Both
    rounds are then weighed as draws from their mixture (Owen & Zhou 2000, "deterministic
    mixture"), which keeps the result an unbiased integral over the prior. Draws are quasi-random
    and follow from ``seed``.

    Args:
        points: ``n x 2``.
        targets: ``n``, standardised.
        errors: ``n``, relative error rates; see :meth:`Members.noise`.
        extra: ``n``, further noise variance, in squared units of the targets before they were
            standardised.
        scale: What the targets were divided by.
        seed: Any integer of 64 bits.

    Returns:
        The kept members on all observations, and their weights, which sum to one.
    """
    weighed = min(len(points), _MOST_WEIGHED)
    some = torch.arange(weighed) * len(points) // max(weighed, 1)

    def condition(members: Members, rows: Tensor | slice = slice(None)) -> BatchGP:
        noise = (members.noise(errors[rows]) + extra[rows]) / scale**2
        return BatchGP(members, points[rows], targets[rows], noise)

    def log_likelihood(draws: Tensor) -> Tensor:
        size = max(1, _CHUNK // max(1, len(some)) ** 2)
        return torch.cat(
            [
                condition(Members.from_normal(block), some).log_marginal_likelihood()
                for block in torch.split(draws, size)
            ]
        )

    draws = _normals(_DRAWS, seed)
    likelihood = log_likelihood(draws)
    if len(points) > 0:
        centre, spread = _gaussian(draws, torch.softmax(likelihood, 0))
        second = centre + _normals(_DRAWS, seed + 1) @ spread.mT
        likelihood = torch.cat([likelihood, log_likelihood(second)])
        draws = torch.cat([draws, second])
        prior = _log_density(
            draws, torch.zeros_like(centre), torch.eye(_DIMENSIONS, dtype=torch.float64)
        )
        proposal = torch.logaddexp(prior, _log_density(draws, centre, spread))
        likelihood = likelihood + prior - proposal
    kept, weights = _select(torch.softmax(likelihood, 0))
    return condition(Members.from_normal(draws[kept])), weights


def _select(weights: Tensor) -> tuple[Tensor, Tensor]:
    """At most ``_KEPT`` draws that stand for all, and their weights (systematic resampling).

    The heaviest alone would be those that fit best by chance, and too sure of themselves.
    """
    order = torch.argsort(weights, descending=True, stable=True)
    quantiles = (torch.arange(_KEPT, dtype=torch.float64) + 0.5) / _KEPT
    picked = torch.searchsorted(torch.cumsum(weights[order], 0), quantiles)
    chosen, counts = torch.unique(picked.clamp_max(len(weights) - 1), return_counts=True)
    return order[chosen], counts.double() / _KEPT


def _gaussian(draws: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and Cholesky factor of a Gaussian proposal around weighted draws, somewhat wider."""
    centre = weights @ draws
    offsets = draws - centre
    covariance = (weights[:, None] * offsets).mT @ offsets
    # Few draws carry most weight when the data say much: their covariance alone is too narrow.
    covariance = 1.5 * covariance + 0.1 * torch.eye(len(centre), dtype=torch.float64)
    return centre, _cholesky(covariance)


def _others(some: Tensor, count: int) -> Tensor:
    """The indices below ``count`` that are not among ``some``."""
    others = torch.ones(count, dtype=torch.bool)
    others[some] = False
    return others.nonzero()[:, 0]


def _log_density(draws: Tensor, centre: Tensor, factor: Tensor) -> Tensor:
    """Logarithm of a Gaussian density, up to the same constant for every Gaussian."""
    white: Tensor = torch.linalg.solve_triangular(factor, (draws - centre).mT, upper=False)
    return -0.5 * white.square().sum(0) - factor.diagonal().log().sum()


def _normals(count: int, seed: int) -> Tensor:
    engine = NormalQMCEngine(_DIMENSIONS, seed=seed, inv_transform=True)
    draws = engine.draw(count + 1, dtype=torch.float64)
    assert draws is not None
    # torch keeps the first point in the default dtype, which is the user's to set.
    return draws[1:]


def _prior() -> tuple[Tensor, Tensor]:
    """Centres and deviations of the normal priors: of logarithms, but for the exponent."""
    rows = (_LENGTHSCALE, _LENGTHSCALE, _DEVIATION, _TREND, _REPEAT_NOISE)
    logs = [(math.log(median), deviation) for median, deviation in rows]
    prior = torch.tensor([*logs, _NOISE_GROWTH], dtype=torch.float64)
    return prior[:, 0], prior[:, 1]


def _cholesky(covariance: Tensor) -> Tensor:
    """Cholesky factors of a batch; jitter goes only to members that need it."""
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(covariance)
    size = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)
    for jitter in (1e-12, 1e-10, 1e-8, 1e-6):
        if not failed.any():
            break
        added = torch.where(failed > 0, jitter * size, 0.0)[..., None]
        covariance.diagonal(dim1=-2, dim2=-1).add_(added)
        factor, failed = torch.linalg.cholesky_ex(covariance)
    if failed.any():
        raise ArithmeticError(
            f"The covariance of {covariance.shape[-1]} observations is not positive definite, in "
            "spite of jitter. Look for accuracies that are not finite."
        )
    return factor
