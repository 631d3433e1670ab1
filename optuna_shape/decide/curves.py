r"""What a training will end at, from its curve so far.

The *gap* of a training at an epoch is what it still gains: :math:`g = y_{\mathrm{final}} - y_e`, a
difference of log errors. Gaps vary smoothly over shapes, so the gaps of finished trainings predict
that of another. What one training owes to luck is in both terms and cancels. That is why the gap
is predicted, not the final value.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from optuna_shape.decide._arrays import Floats
from optuna_shape.decide.normal import Normal
from optuna_shape.decide.normal import cdf
from optuna_shape.decide.surrogate import Surrogate
from optuna_shape.decide.surrogate import fit_with_errors

#: Two gaps give no idea of how gaps vary.
LEAST_CURVES = 3


def predict_final(
    points: Floats,
    values_now: Floats,
    finals: Floats,
    point: Floats,
    value: float,
    *,
    jitter: float = 0.0,
    seed: int = 0,
) -> Normal[float] | None:
    r"""Predict the final log error of a training from its value at an epoch.

    Args:
        points: Of the finished trainings, ``k x 2``.
        values_now: Their log errors at that epoch, ``k``.
        finals: Their final log errors, ``k``.
        point: Of the training in question, ``2``.
        value: Its log error at that epoch.
        jitter: Standard deviation of one epoch's log error around its curve; see
            :func:`curve_jitter`.
        seed: Of the model's quasi-random draws.

    Returns:
        The log error that the training would show at its end, repeat noise of the gap included.
        :obj:`None` with fewer than three finished trainings.
    """
    if len(points) < LEAST_CURVES:
        return None
    surrogate = _gap_model(points, values_now, finals, jitter, seed)
    mean, sd = surrogate.predict(np.reshape(point, (1, 2))).marginal()
    final = value + float(mean[0])
    noise = surrogate.noise_variance(_errors(np.array([value]), np.array([final])))
    return Normal(final, float(np.sqrt(sd[0] ** 2 + noise[0] + jitter**2)))


def curve_jitter(curves: Floats) -> float:
    r"""How much the value of an epoch scatters around its curve.

    The last three epochs of a smooth curve lie almost on a line. Their second difference
    :math:`y_{e-2} - 2 y_{e-1} + y_e` then is noise of variance :math:`6 \sigma^2`, and
    :math:`\sigma` follows from its root mean square over the curves. Where curves bend, as in
    the first epochs, the bend counts as noise: predictions become careful there.

    Args:
        curves: Log errors of ``k`` trainings at ``E`` consecutive epochs, ``k x E``.

    Returns:
        A standard deviation of log error; infinite with fewer than three epochs.

    Example:
        >>> curve_jitter(np.array([[1.0, 1.5, 2.0]]))  # A line does not scatter.
        0.0
    """
    if curves.shape[1] < 3 or len(curves) == 0:
        return float("inf")
    bends = curves[:, -3] - 2.0 * curves[:, -2] + curves[:, -1]
    return float(np.sqrt(np.mean(bends**2) / 6.0))


def combine(first: Normal[float], second: Normal[float]) -> Normal[float]:
    """Two independent statements on one quantity, as one: the product of their densities.

    Example:
        >>> combine(Normal(1.0, 0.5), Normal(2.0, 0.5)).mean
        1.5
    """
    weight, other = first.sd**-2, second.sd**-2
    mean = (weight * first.mean + other * second.mean) / (weight + other)
    return Normal(mean, (weight + other) ** -0.5)


def probability_reaches(prediction: Normal[float], target: float) -> float:
    """Probability that the predicted training ends at a log error of at least ``target``."""
    return float(cdf(np.array((prediction.mean - target) / prediction.sd)))


def replay(
    points: Floats,
    curves: Floats,
    finals: Floats,
    target: float,
    *,
    delta: float,
    jitters: Floats | None = None,
    seed: int = 0,
) -> float:
    r"""Share of good trainings that the pruning rule would have cut.

    The rule cuts a training when the probability that it reaches ``target`` falls below ``delta``.
    Each finished training is judged at every epoch given, by all others.

    Args:
        points: Of the finished trainings, ``k x 2``.
        curves: Their log errors at the ``E`` epochs at which the rule judges, ``k x E``.
        finals: Their final log errors, ``k``.
        target: A log error.
        delta: Probability below which the rule cuts.
        jitters: Of each of these epochs, ``E``; :obj:`None` is no jitter.
        seed: Of the model's quasi-random draws.

    Returns:
        Of the trainings that ended at ``target`` or above, the share that would have been cut at
        any of the epochs: 0 if there are none, or too few to predict from.
    """
    good = finals >= target
    if not good.any() or len(points) <= LEAST_CURVES:
        return 0.0
    cut = np.zeros(len(points), dtype=bool)
    for now, jitter in zip(curves.T, np.zeros(curves.shape[1]) if jitters is None else jitters):
        gap, sd = _gap_model(points, now, finals, float(jitter), seed).leave_one_out()
        cut |= cdf((now + gap - target) / sd) < delta
    return float(cut[good].mean())


def _gap_model(
    points: Floats, values_now: Floats, finals: Floats, jitter: float, seed: int
) -> Surrogate:
    arrays = (points, values_now, finals)
    return _fitted(*(np.ascontiguousarray(a, dtype=float).tobytes() for a in arrays), jitter, seed)


@lru_cache(maxsize=64)
def _fitted(
    points: bytes, values_now: bytes, finals: bytes, jitter: float, seed: int
) -> Surrogate:
    # Until another training ends, every report at an epoch asks the same model, and so does the
    # replay of the rule.
    now, final = np.frombuffer(values_now), np.frombuffer(finals)
    gaps = final - now
    extra = np.full_like(gaps, jitter**2)
    where = np.frombuffer(points).reshape(-1, 2)
    return fit_with_errors(where, gaps, _errors(now, final), extra, seed=seed)


def _errors(values_now: Floats, finals: Floats) -> Floats:
    """Error rates that a gap's noise follows: between that of now and the final one."""
    errors: Floats = np.exp(-(values_now + finals) / 2.0)
    return errors
