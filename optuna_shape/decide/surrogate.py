r"""What the trained shapes say of the accuracy of every shape.

Notation, used throughout :mod:`optuna_shape.decide`:

* :math:`a \in [0, 1]` is an accuracy, and :math:`y = -\log(1 - a)` its *log error*. Error rates
  fall about as powers of depth and width, so :math:`y` is close to linear in their logarithms.
* :math:`x \in [0, 1]^2` is a point: scaled logarithms of depth and width (:func:`unit_points`).
  ``n`` points were trained, ``N`` points make up the space.
* :math:`f(x)` is the *latent* log error: that of the shape, without the luck of one training. One
  training shows :math:`y = f(x) + \varepsilon`, where :math:`\varepsilon` has the standard
  deviation :math:`\sigma e^\gamma`, with the error rate :math:`e` relative to the least that was
  observed. :math:`\sigma` is the *repeat noise*, between trainings of one shape that differ in
  their seeds only. It grows with the error: networks that train badly repeat badly, too.

The model is a Gaussian process on :math:`f`. Few observations leave its hyper-parameters (length
scales, repeat noise, ...) open, and to plug in the likeliest would make it over-confident. They
are integrated over instead: the model is a weighted mixture of ``M`` *members*, Gaussian processes
with hyper-parameters of their own.

Everything is float64 and follows from the arguments. The order of observations does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from optuna_shape.decide._arrays import Floats
from optuna_shape.decide._arrays import Indices
from optuna_shape.decide.design import spread
from optuna_shape.decide.normal import Normal
from optuna_shape.decide.normal import cdf

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from optuna_shape.decide._gp import BatchGP

# Half an error in 5,000 images. No validation set says more of a network without errors.
_LEAST_ERROR = 1e-4
# Log errors of a family of networks typically differ by about this much. It counts as one
# observation's worth of spread, so that one or two, or equal, observations have a scale, too.
_USUAL_SCALE = 0.3
# Log error expected of a shape before anything was trained: an accuracy of 78 %.
_USUAL_LOG_ERROR = 1.5
# Joint samples of up to so many points are exact; of more, interpolated between landmarks.
_EXACT = 256
_LANDMARKS = 128


def log_error(accuracy: ArrayLike) -> Floats:
    r"""Log error :math:`y = -\log(1 - a)` of an accuracy; accuracies of almost 1 are clipped.

    Example:
        >>> log_error([0.5, 0.9, 1.0]).round(3).tolist()
        [0.693, 2.303, 9.21]
    """
    return -np.log(np.maximum(1.0 - np.asarray(accuracy, dtype=np.float64), _LEAST_ERROR))


def accuracy(log_error: ArrayLike) -> Floats:
    r"""Accuracy :math:`a = 1 - e^{-y}` of a log error."""
    return -np.expm1(-np.asarray(log_error, dtype=np.float64))


def unit_points(depths: ArrayLike, widths: ArrayLike) -> Floats:
    """Points ``N x 2`` of shapes: logarithms of depth and width, each scaled to [0, 1].

    Scaled by the least and the greatest value given, so all shapes of a space belong in one call.
    An axis with one value becomes 0.

    Example:
        >>> unit_points([1, 2, 4], [16, 16, 16]).tolist()
        [[0.0, 0.0], [0.5, 0.0], [1.0, 0.0]]
    """
    logs = np.log(np.stack([np.asarray(depths), np.asarray(widths)], axis=-1, dtype=np.float64))
    least = logs.min(axis=0)
    extent = logs.max(axis=0) - least
    points: Floats = (logs - least) / np.where(extent > 0.0, extent, 1.0)
    return points


def fit(
    points: Floats, log_errors: Floats, extra_variance: Floats | None = None, *, seed: int
) -> Surrogate:
    r"""Learn log errors from observations.

    Args:
        points:
            Where, ``n x 2``. Points may repeat; ``n`` may be 0, which gives the prior.
        log_errors:
            What was seen, ``n``.
        extra_variance:
            Variance on top of the repeat noise, ``n``, in squared log error: for a training that
            was cut short, that of its predicted final log error. :obj:`None` is none.
        seed:
            Of the quasi-random draws of hyper-parameters.

    Raises:
        ValueError: The arrays do not belong together, or hold values that are not finite.

    Example:
        >>> points = unit_points([1, 2, 4, 8], [16] * 4)
        >>> surrogate = fit(points[:2], log_error([0.80, 0.88]), seed=0)
        >>> mean, sd = surrogate.predict(points).marginal()
        >>> bool(mean[2] > mean[1] and sd[3] > sd[2] > sd[1])  # The trend goes on, less surely.
        True
    """
    points = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    log_errors = np.asarray(log_errors, dtype=np.float64)
    if extra_variance is None:
        extra_variance = np.zeros_like(log_errors)
    extra_variance = np.asarray(extra_variance, dtype=np.float64)
    return fit_with_errors(points, log_errors, np.exp(-log_errors), extra_variance, seed=seed)


def fit_with_errors(
    points: Floats, values: Floats, errors: Floats, extra_variance: Floats, *, seed: int
) -> Surrogate:
    r"""Like :func:`fit`, for values whose noise follows error rates of their own.

    Args:
        points: Where, ``n x 2``.
        values: What was seen, ``n``: log errors, or differences of such.
        errors: Error rates, ``n``. Of a log error :math:`y` it is :math:`\exp(-y) = 1 - a`.
        extra_variance: Variance on top, ``n``.
        seed: Of the quasi-random draws of hyper-parameters.

    Raises:
        ValueError: The arrays do not belong together, or hold values that are not finite.
    """
    columns = np.column_stack([points, values, errors, extra_variance])
    if not np.isfinite(columns).all() or (extra_variance < 0.0).any():
        raise ValueError("Points, values and variances must be finite, and no variance negative.")
    # Sums in another order differ in the last bits, and those could tip the choice of a member.
    order = np.lexsort(columns.T)
    points, values = points[order], values[order]
    count = len(values)
    least = float(errors.min(initial=np.inf)) if count > 0 else 1.0
    centre = float(values.mean()) if count > 0 else _USUAL_LOG_ERROR
    squares = float(((values - centre) ** 2).sum())
    scale = float(np.sqrt((squares + _USUAL_SCALE**2) / max(count, 1)))

    import torch

    from optuna_shape.decide import _gp

    with _gp.isolated():
        gp, weights = _gp.fit(
            torch.from_numpy(points),
            torch.from_numpy((values - centre) / scale),
            torch.from_numpy(errors[order] / least),
            torch.from_numpy(extra_variance[order]),
            scale,
            seed,
        )
    return Surrogate(weights.numpy(), centre, scale, least, gp, order)


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A mixture of ``M`` Gaussian processes that has seen ``n`` observations.

    Attributes:
        weights: ``M``, posterior probabilities of the members, heaviest first.
        centre: Log error that the members call 0.
        scale: Log error that the members call 1.
        least_error: Least error rate observed, to which the noise refers.
    """

    weights: Floats
    centre: float
    scale: float
    least_error: float
    _gp: BatchGP
    _order: Indices

    @property
    def values(self) -> Floats:
        """The observations, ``n``, in the order in which they were given."""
        values: Floats = self.centre + self.scale * self._gp.targets[0].numpy()
        return values[np.argsort(self._order)]

    @property
    def repeat_noise(self) -> float:
        """Standard deviation of log error between repeated trainings, the members' median.

        Of the most accurate shape observed. Its accuracy scatters by this share of its error.
        """
        noise = self._gp.members.repeat_noise.numpy()
        order = np.argsort(noise)
        middle = int(np.searchsorted(np.cumsum(self.weights[order]), 0.5))
        return float(noise[order[min(middle, len(order) - 1)]])

    def noise_variance(self, errors: Floats) -> Floats:
        """Mixture mean of the noise variance at some error rates, ``k``."""
        import torch

        relative = torch.from_numpy(np.asarray(errors, dtype=np.float64) / self.least_error)
        variance: Floats = self.weights @ self._gp.members.noise(relative).numpy()
        return variance

    def predict(self, points: Floats) -> Posterior:
        """The posterior at ``N x 2`` points."""
        return _posterior(self, np.asarray(points, dtype=np.float64).reshape(-1, 2))

    def leave_one_out(self) -> Normal[Floats]:
        r"""Each observation as predicted from the others, repeat noise included, ``n``.

        Members predict in closed form (Rasmussen & Williams 2006, section 5.4.2). Their weights
        leave the observation out, too: :math:`w_m^{(-i)} \propto w_m / p_m(y_i \mid y_{-i})`.
        The normal has the mixture's mean and variance.
        """
        from optuna_shape.decide import _gp

        with _gp.isolated():
            mean, variance, log_density = (part.numpy() for part in self._gp.leave_one_out())
        logs = np.log(self.weights)[:, None] - log_density
        weights = np.exp(logs - logs.max(axis=0, initial=-np.inf))
        weights /= weights.sum(axis=0)
        mixture = _mixture(weights, mean, variance)
        # Back from sorted observations to the order in which they were given.
        back = np.argsort(self._order)
        return Normal(self.centre + self.scale * mixture.mean[back], self.scale * mixture.sd[back])


@dataclass(frozen=True, eq=False)
class Posterior:
    """Joint distribution of the latent log errors of ``N`` points: a mixture of ``M`` Gaussians.

    Covariances are computed only where they are asked for: of 5,000 points, all of them would take
    gigabytes.

    Attributes:
        weights: ``M``, they sum to one.
        mean: ``M x N``, the members' means.
        sd: ``M x N``, the members' standard deviations.
        points: ``N x 2``.
    """

    weights: Floats
    mean: Floats
    sd: Floats
    points: Floats
    _surrogate: Surrogate

    def __len__(self) -> int:
        return len(self.points)

    def marginal(self) -> Normal[Floats]:
        """Mean and standard deviation of the mixture, ``N``."""
        return _mixture(self.weights[:, None], self.mean, self.sd**2)

    def probability_above(
        self, threshold: Floats | float, indices: Indices | None = None
    ) -> Floats:
        """Probability that the latent log error is at least a threshold.

        Args:
            threshold: A log error, or one for each index.
            indices: Of which points, ``k``; :obj:`None` is all of them.

        Returns:
            ``k``.
        """
        chosen: Indices | slice = slice(None) if indices is None else indices
        probabilities: Floats = self.weights @ cdf(
            (self.mean[:, chosen] - threshold) / self.sd[:, chosen]
        )
        return probabilities

    def covariance(self, indices: Indices) -> Floats:
        """The members' covariances of some points, ``M x k x k``."""
        import torch

        from optuna_shape.decide import _gp

        points = torch.from_numpy(self.points[indices])
        with _gp.isolated():
            covariance: Floats = self._surrogate._gp.covariance(points, points).numpy()
        return self._surrogate.scale**2 * covariance

    def samples(self, count: int, indices: Indices, seed: int) -> Floats:
        """Joint samples of the latent log errors of some points.

        Every member has its share of the samples, rather than each sample a random member. Up to
        256 points are sampled exactly; of more, 128 that are well spread, between which the others
        are interpolated with exact marginals.

        Args:
            count: How many samples, ``S``.
            indices: Of which points, ``k``.
            seed: Of the random numbers.

        Returns:
            ``S x k``, samples of the heaviest member first.
        """
        import torch

        from optuna_shape.decide import _gp

        points = self.points[indices]
        landmarks = spread(points, len(points) if len(points) <= _EXACT else _LANDMARKS)
        samples = np.random.default_rng(seed).standard_normal((count, len(points)))
        with _gp.isolated():
            self._surrogate._gp.joint(
                torch.from_numpy(points),
                torch.from_numpy(landmarks),
                torch.from_numpy(samples),
                _shares(self.weights, count).tolist(),
            )
        samples *= self._surrogate.scale
        samples += self._surrogate.centre
        return samples

    def given(self, pending: Indices) -> Posterior:
        """This posterior once trainings that are under way have ended, as far as that is known.

        Each is taken to end at its predicted mean ("kriging believer", Ginsbourger et al. 2010):
        means stay, variances shrink as they would by one training more.

        Args:
            pending: Points under training, ``p``. A point may occur more than once.
        """
        if len(pending) == 0:
            return self
        import torch

        from optuna_shape.decide import _gp

        surrogate = self._surrogate
        believed = torch.from_numpy(self.mean[:, pending])
        errors = (-believed).exp()
        with _gp.isolated():
            gp = surrogate._gp.extended(
                torch.from_numpy(self.points[pending]),
                (believed - surrogate.centre) / surrogate.scale,
                surrogate._gp.members.noise(errors / surrogate.least_error) / surrogate.scale**2,
            )
        order = np.arange(len(surrogate._order) + len(pending))
        believer = replace(surrogate, _gp=gp, _order=order)
        return _posterior(believer, self.points)


def _posterior(surrogate: Surrogate, points: Floats) -> Posterior:
    import torch

    from optuna_shape.decide import _gp

    with _gp.isolated():
        mean, variance = surrogate._gp.moments(torch.from_numpy(points))
    return Posterior(
        surrogate.weights,
        surrogate.centre + surrogate.scale * mean.numpy(),
        surrogate.scale * np.sqrt(variance.numpy()),
        points,
        surrogate,
    )


def _mixture(weights: Floats, mean: Floats, variance: Floats) -> Normal[Floats]:
    centre = (weights * mean).sum(axis=0)
    between = (weights * (mean - centre) ** 2).sum(axis=0)
    return Normal(centre, np.sqrt((weights * variance).sum(axis=0) + between))


def _shares(weights: Floats, count: int) -> Indices:
    """Split ``count`` in proportion to the weights (largest remainders; ties: heavier first)."""
    exact = weights * count
    shares = np.floor(exact).astype(np.intp)
    late = np.argsort(shares - exact, kind="stable")[: count - shares.sum()]
    shares[late] += 1
    return shares
