r"""What a training will end at, from its curve so far.

The *gap* of a training at an epoch is what it still gains: :math:`g = y_{\mathrm{final}} - y_e`, a
difference of log errors. Gaps vary smoothly over shapes, so the gaps of finished trainings predict
that of another. What one training owes to luck is in both terms and cancels. That is why the gap
is predicted, not the final value: on recorded curves it was the sharpest predictor that was honest
(deviation of its standard scores 0.9, against 1.6 for a joint model of all curves).
"""

from __future__ import annotations

import numpy as np

from optuna_shape.decide._arrays import Floats
from optuna_shape.decide.normal import Normal
from optuna_shape.decide.normal import cdf
from optuna_shape.decide.surrogate import Surrogate
from optuna_shape.decide.surrogate import fit_with_levels

# Two gaps give no idea of how gaps vary.
_LEAST_CURVES = 3


def predict_final(
    points: Floats,
    values_now: Floats,
    finals: Floats,
    point: Floats,
    value: float,
    *,
    seed: int = 0,
) -> Normal[float] | None:
    r"""Predict the final log error of a training from its value at an epoch.

    Args:
        points: Of the finished trainings, ``k x 2``.
        values_now: Their log errors at that epoch, ``k``.
        finals: Their final log errors, ``k``.
        point: Of the training in question, ``2``.
        value: Its log error at that epoch.
        seed: Of the model's quasi-random draws.

    Returns:
        The log error that the training would show at its end, repeat noise of the gap included.
        :obj:`None` with fewer than three finished trainings.
    """
    if len(points) < _LEAST_CURVES:
        return None
    surrogate = _gap_model(points, values_now, finals, seed)
    mean, sd = surrogate.predict(np.reshape(point, (1, 2))).marginal()
    final = value + float(mean[0])
    noise = surrogate.noise_variance(_levels(np.array([value]), np.array([final])))
    return Normal(final, float(np.sqrt(sd[0] ** 2 + noise[0])))


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
        seed: Of the model's quasi-random draws.

    Returns:
        Of the trainings that ended at ``target`` or above, the share that would have been cut at
        any of the epochs: 0 if there are none, or too few to predict from.
    """
    good = finals >= target
    if not good.any() or len(points) <= _LEAST_CURVES:
        return 0.0
    cut = np.zeros(len(points), dtype=bool)
    for now in curves.T:
        gap, sd = _gap_model(points, now, finals, seed).leave_one_out()
        cut |= cdf((now + gap - target) / sd) < delta
    return float(cut[good].mean())


def _gap_model(points: Floats, values_now: Floats, finals: Floats, seed: int) -> Surrogate:
    gaps = finals - values_now
    levels = _levels(values_now, finals)
    return fit_with_levels(points, gaps, levels, np.zeros_like(gaps), seed=seed)


def _levels(values_now: Floats, finals: Floats) -> Floats:
    """Reciprocal error rates whose squares add up: a gap is the difference of two noisy values."""
    levels: Floats = np.sqrt(np.exp(2.0 * values_now) + np.exp(2.0 * finals))
    return levels
