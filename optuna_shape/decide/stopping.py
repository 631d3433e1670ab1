"""How certain an answer is: probabilities under the joint posterior, and checks of the model."""

from __future__ import annotations

import numpy as np

from optuna_shape.decide._arrays import Floats
from optuna_shape.decide._arrays import Indices
from optuna_shape.decide.normal import cdf
from optuna_shape.decide.surrogate import Posterior
from optuna_shape.decide.surrogate import Surrogate

# The standard error of a probability of 0.05 is then 0.005.
_SAMPLES = 2048
# Shapes may be left out of the joint samples while the sum of their chances is below this.
_NEGLIGIBLE = 1e-3


def probability_better(
    posterior: Posterior,
    answer: int,
    others: Indices,
    epsilon: float,
    *,
    seed: int,
    count: int = _SAMPLES,
) -> float:
    r"""Probability that any other shape is better than the answer by more than ``epsilon``.

    .. math::
        P\bigl(\max_{i \in \mathrm{others}} a_i > a_{\mathrm{answer}} + \epsilon\bigr)

    for latent accuracies :math:`a`, from joint samples. That they are joint matters: neighbours of
    the answer share its error, and many shapes of small chance may have a large chance together.

    Args:
        posterior: Of ``N`` shapes.
        answer: Index of the shape that would be returned now.
        others: Indices it is compared with, ``k``; usually those without a full training.
        epsilon: A difference of accuracy that does not matter.
        seed: Of the samples.
        count: How many samples.
    """
    others = np.setdiff1d(np.asarray(others, dtype=np.intp), [answer])
    if len(others) == 0:
        return 0.0
    # The deviation of a difference is at most the sum of the deviations.
    lead = posterior.mean[:, others] - posterior.mean[:, [answer]]
    most = posterior.sd[:, others] + posterior.sd[:, [answer]]
    others = _likely(others, posterior.weights @ cdf(lead / most))
    if len(others) == 0:
        return 0.0
    samples = posterior.samples(count, np.append(answer, others), seed)
    # With a = 1 - exp(-y), a_i > a + epsilon is exp(-y_i) < exp(-y) - epsilon.
    least_errors = np.exp(-samples[:, 1:].max(axis=1))
    return float(np.mean(least_errors < np.exp(-samples[:, 0]) - epsilon))


def probability_any_reaches(
    posterior: Posterior, indices: Indices, threshold: float, *, seed: int, count: int = _SAMPLES
) -> float:
    r"""Probability :math:`P(\max_i f_i \ge y^*)` that any of some shapes reaches an accuracy.

    Args:
        posterior: Of ``N`` shapes.
        indices: Of which shapes, ``k``.
        threshold: :math:`y^*`, a log error.
        seed: Of the joint samples.
        count: How many samples.
    """
    indices = np.unique(np.asarray(indices, dtype=np.intp))
    indices = _likely(indices, posterior.probability_above(threshold, indices))
    if len(indices) == 0:
        return 0.0
    samples = posterior.samples(count, indices, seed)
    return float(np.mean(samples.max(axis=1) >= threshold))


def _likely(indices: Indices, chances: Floats) -> Indices:
    """Drop shapes whose chances sum to so little that together they cannot matter."""
    order = np.argsort(chances, kind="stable")
    likely = np.cumsum(chances[order]) > _NEGLIGIBLE
    return np.sort(indices[order[likely]])


def leave_one_out(surrogate: Surrogate) -> Floats:
    """Standard scores of the observations, each predicted from the others, ``n``.

    If the model is right they are about standard normal; a mean square far above 1, or a score
    beyond 4, says that its probabilities are not to be trusted.
    """
    mean, sd = surrogate.leave_one_out()
    return (surrogate.values - mean) / sd
