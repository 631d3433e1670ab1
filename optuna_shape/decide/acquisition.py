"""Which shape to train next: scores of every shape, to be maximised over those that are allowed.

Scores are logarithms, so that tiny expectations still rank. They compare within one call only.
"""

from __future__ import annotations

import numpy as np

from optuna_shape.decide._arrays import Floats
from optuna_shape.decide._arrays import Indices
from optuna_shape.decide.normal import log_improvement
from optuna_shape.decide.surrogate import Posterior

# A training four times as dear must promise twice as much.
_COST_EXPONENT = 0.5
# Where nothing reaches the accuracy yet, even the worst cost improves on nothing, by this share.
_FIRST_GAIN = 0.05
# P(accuracy reached) between which a second training of a shape says more than a new shape.
_DOUBTFUL = (0.2, 0.8)


def expected_improvement(posterior: Posterior, incumbent: float, costs: Floats) -> Floats:
    r"""Expected improvement of the log error, per root of the cost of training.

    With the members' means :math:`\mu_m` and deviations :math:`s_m`, their weights :math:`w_m`
    and :math:`u_m = (\mu_m - y^*) / s_m` (Jones et al. 1998, averaged over members as by Snoek
    et al. 2012),

    .. math::
        \log \sum_m w_m \, s_m \bigl(\varphi(u_m) + u_m \Phi(u_m)\bigr) - \tfrac12 \log c

    Args:
        posterior: Of ``N`` shapes.
        incumbent: :math:`y^*`, the best log error so far.
        costs: :math:`c`, of training each shape, ``N``, positive, in any unit.

    Returns:
        ``N`` logarithms, all finite.
    """
    standard = (posterior.mean - incumbent) / posterior.sd
    members = np.log(posterior.weights)[:, None] + np.log(posterior.sd) + log_improvement(standard)
    expected: Floats = np.logaddexp.reduce(members, axis=0)
    return expected - _COST_EXPONENT * np.log(costs)


def cost_improvement(
    posterior: Posterior,
    threshold: float,
    goal_costs: Floats,
    best_goal_cost: float | None,
    training_costs: Floats,
) -> Floats:
    r"""Expected saving of a known cost under an accuracy to be reached, per root of training cost.

    .. math::
        \log (g^* - g)_+ + \log P(f \ge y^*) - \tfrac12 \log c

    Without training costs it is the constrained expected improvement of Gardner et al. 2014, of an
    objective that is known.

    Args:
        posterior: Of ``N`` shapes.
        threshold: :math:`y^*`, the log error to be reached.
        goal_costs: :math:`g`, what is to be minimised (seconds, joules, bytes), ``N``, positive.
        best_goal_cost: :math:`g^*`, the least among shapes known to reach the accuracy.
            :obj:`None` if there are none: then slightly more than the worst, so that every shape
            improves on it.
        training_costs: :math:`c`, of training each shape, ``N``, positive, in any unit.

    Returns:
        ``N`` logarithms, ``-inf`` where nothing can be saved.
    """
    if best_goal_cost is None:
        best_goal_cost = (1.0 + _FIRST_GAIN) * float(goal_costs.max(initial=0.0))
    saving = np.maximum(best_goal_cost - goal_costs, 0.0)
    # A probability may underflow to 0: the shape stays allowed, as the last choice.
    reached = np.maximum(posterior.probability_above(threshold), np.finfo(np.float64).tiny)
    with np.errstate(divide="ignore"):
        scores: Floats = np.log(saving) + np.log(reached) - _COST_EXPONENT * np.log(training_costs)
    return scores


def replicate_candidates(
    posterior: Posterior,
    threshold: float,
    trained: Indices,
    goal_costs: Floats,
    best_goal_cost: float | None,
) -> Indices:
    """Trained shapes whose accuracy is in doubt, and whose cost makes the doubt matter.

    A shape that measured a hair below the threshold would otherwise be lost, and one that measured
    a hair above it would win by luck. One training more settles most such cases.

    Args:
        posterior: Of ``N`` shapes.
        threshold: The log error to be reached.
        trained: Shapes trained once, ``t``. Leave out those that were replicated already.
        goal_costs: What is to be minimised, ``N``.
        best_goal_cost: The least among shapes known to reach the accuracy, whose own doubt counts,
            too; :obj:`None` if there are none.

    Returns:
        Indices, the least goal cost first.
    """
    trained = np.asarray(trained, dtype=np.intp)
    reached = posterior.probability_above(threshold, trained)
    doubtful = (reached > _DOUBTFUL[0]) & (reached < _DOUBTFUL[1])
    if best_goal_cost is not None:
        doubtful &= goal_costs[trained] <= best_goal_cost
    found = trained[doubtful]
    return found[np.lexsort([found, goal_costs[found]])]
