"""The callback that ends a search."""

from __future__ import annotations

import logging
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_shape.posterior import Belief
from optuna_shape.posterior import believe
from optuna_shape.problem import ShapeProblem
from optuna_shape.records import ACCURACY
from optuna_shape.records import StudyRecords
from optuna_shape.records import stop_loop
from optuna_shape.sampler import DESIGN_SIZE

_logger = logging.getLogger(f"optuna.{__name__}")

#: Fewest trainings before the model's word is taken, or shown: the initial design and one it chose
#: itself. From the cheapest shapes alone it cannot tell how accurate the dearest may be.
MIN_TRAININGS = DESIGN_SIZE + 1
#: Largest root mean square of leave-one-out z-scores of a model that is believed.
_MAX_SURPRISE = 3.0

# Probabilities are shares of a finite number of draws.
_RESOLVED = 0.002


class ShapeTerminator:
    """Ends the search, on all workers, when its answer is certain enough, and says why.

    Accuracy goal: when the probability that a shape not yet trained is more accurate than the
    answer by more than ``epsilon`` is at most ``delta``. Other goals: when the probability that a
    shape cheaper by more than the share ``epsilon`` still reaches the accuracy is at most
    ``delta``, and that of the answer itself at least ``1 - delta``, or the mean of two trainings
    says so. Any goal: when no shape is likely to reach the accuracy constraint at all.

    The guarantee is conditional on the Gaussian process. Its leave-one-out errors are checked
    before it is believed, and at least six shapes are trained.

    Args:
        problem: What is asked.
        epsilon: What a better shape has to gain to be worth going on: 0.005 of accuracy, or 5 % of
            the cost, unless given.
        delta: Probability, between 0 and 1, of such a shape at which the search ends. It is
            resolved to about 0.002.

    Raises:
        ValueError: ``epsilon`` or ``delta`` is out of its range.

    Example:
        >>> import optuna
        >>> from optuna_shape import DesignSpace, ShapeSampler
        >>> space = DesignSpace(depth=range(1, 9), width=[4, 8, 16, 32])
        >>> problem = ShapeProblem(space, goal="accuracy")
        >>> def objective(trial):
        ...     shape = problem.suggest(trial)  # In place of a training:
        ...     return problem.record(trial, 1 - 0.2 / shape.depth - 0.5 / shape.width)
        >>> study = optuna.create_study(
        ...     direction=problem.direction, sampler=ShapeSampler(problem, seed=0)
        ... )
        >>> study.optimize(objective, callbacks=[ShapeTerminator(problem)])
        >>> print(problem.best(study))
        shape (8, 32): accuracy 95.9 %
        >>> len(study.trials) < len(space) / 2
        True
    """

    def __init__(
        self, problem: ShapeProblem, *, epsilon: float | None = None, delta: float = 0.05
    ) -> None:
        if epsilon is None:
            epsilon = 0.005 if problem.goal == ACCURACY else 0.05
        if not 0 <= epsilon < 1:
            raise ValueError(f"epsilon is {epsilon}; it is a fraction of at least 0 and below 1.")
        if not 0 < delta < 1:
            raise ValueError(f"delta is {delta}; it is a probability between 0 and 1.")
        self._problem = problem
        self._epsilon = epsilon
        self._delta = delta

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        records = StudyRecords(study)
        if records.stop() is not None:
            stop_loop(study)
            return
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            return
        belief = believe(self._problem, study)
        if len(belief.means) < MIN_TRAININGS:
            return
        probability = belief.better_probability(self._epsilon)
        records.write_certainty(trial.number, probability)
        decision = self._decide(belief, probability)
        if decision is not None:
            records.write_stop(decision)
            _logger.info(f"The search stops: {decision['reason']}.")
            stop_loop(study)

    def _decide(self, belief: Belief, probability: float) -> dict[str, Any] | None:
        if probability > self._delta:
            return None
        surprise = belief.surprise()
        if surprise > _MAX_SURPRISE:
            _logger.info(
                f"The search goes on: the probability of a better shape is {probability:.2g}, but "
                f"the model is not believed. Trained shapes lie {surprise:.1f} standard "
                "deviations from what it predicts of each from the others."
            )
            return None
        if belief.is_answer_in_doubt(self._delta):
            return None
        decision = {
            "probability": probability,
            "epsilon": self._epsilon,
            "delta": self._delta,
            "trained": len(belief.means),
            "surprise": surprise,
        }
        if belief.answer is None:
            reason = (
                f"no shape is likely to reach accuracy {belief.accuracy_bound:.3f} "
                f"(probability {probability:.2g})"
            )
            return {"kind": "hopeless", "reason": reason, **decision}
        shape = belief.shapes[belief.answer]
        if belief.goal_costs is None:
            better = (
                f"some untrained shape is more accurate by more than {self._epsilon:g} than "
                f"{shape}, the best trained one by the model,"
            )
        else:
            better = (
                f"some untrained shape reaches the accuracy with {self._epsilon:.0%} less "
                f"{self._problem.goal} than {shape}"
            )
        reason = f"the probability that {better} is {_told(probability)} <= {self._delta:g}"
        if belief.goal_costs is not None:
            decision["reaches"] = belief.answer_reaches
            reason += f", and that {shape} reaches it is {belief.answer_reaches:.2g}"
        return {"kind": "certain", "reason": reason, "answer": list(shape), **decision}


def _told(probability: float) -> str:
    """A probability, as it is resolved."""
    return f"{probability:.2g}" if probability >= _RESOLVED else f"< {_RESOLVED:g}"
