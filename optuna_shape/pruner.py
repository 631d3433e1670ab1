"""ShapePruner: the Optuna face of the decision to cut a training short."""

from __future__ import annotations

import logging
import math

import numpy as np
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_shape.constraints import format_quantity
from optuna_shape.decide.curves import combine
from optuna_shape.decide.curves import curve_jitter
from optuna_shape.decide.curves import probability_reaches
from optuna_shape.decide.curves import replay
from optuna_shape.decide.normal import Normal
from optuna_shape.decide.surrogate import log_error
from optuna_shape.errors import InvalidAccuracy
from optuna_shape.posterior import Belief
from optuna_shape.posterior import FinishedCurves
from optuna_shape.posterior import believe
from optuna_shape.problem import ShapeProblem
from optuna_shape.records import StudyRecords
from optuna_shape.records import shape_of

_logger = logging.getLogger(f"optuna.{__name__}")

#: No training is cut before this share of its epochs, nor when so little is left that its result
#: is worth more than the rest costs.
_MIN_SHARE, _MAX_SHARE = 0.3, 0.75
#: Nor before so many shapes have been trained in full: what a curve still gains is learned there.
#: From fewer, which are those of the cheapest shapes, too much is read of what the dearest gain.
_MIN_CURVES = 8
#: Epochs of a training at which it is judged, at most: each takes a model of its own.
_RUNGS = 12


class ShapePruner(BasePruner):
    """Cuts a training short when it will almost surely not give the answer.

    For an accuracy goal: when the probability that it ends above the best answer so far falls
    below ``delta``, predicted from how much the finished trainings still gained from this epoch
    on. For the other goals: when a cheaper shape has meanwhile reached the accuracy, and not by
    luck, so that this one can no longer win. Nothing is predicted there: a cut near the
    threshold may lose the answer.

    A cut shape is not a trained one: what its curve predicts informs the model, whichever pruner
    cut it, and it may be trained in full later. ``trial.report`` carries accuracy in [0, 1],
    whatever the goal is.

    Args:
        problem: What is asked. Without its ``epochs`` nothing is predicted.
        delta: Largest probability of cutting what would have been better, per decision.

    Raises:
        ValueError: ``delta`` is no probability.
        InvalidAccuracy: From ``trial.should_prune()``, if a reported value is no fraction.

    Example:
        >>> import optuna
        >>> from optuna_shape import DesignSpace, ShapeSampler
        >>> problem = ShapeProblem(
        ...     DesignSpace(depth=range(1, 5), width=[4, 8, 16]), goal="accuracy", epochs=8
        ... )
        >>> def objective(trial):
        ...     shape = problem.suggest(trial)  # In place of a training:
        ...     final = 1 - 0.2 / shape.depth - 0.5 / shape.width
        ...     for epoch in range(1, 9):
        ...         trial.report(final * (1 - 0.5**epoch), epoch)
        ...         if trial.should_prune():
        ...             raise optuna.TrialPruned()
        ...     return problem.record(trial, final)
        >>> study = optuna.create_study(
        ...     direction=problem.direction,
        ...     sampler=ShapeSampler(problem, seed=0),
        ...     pruner=ShapePruner(problem),
        ... )
        >>> study.optimize(objective, n_trials=9)  # Eight have to be complete before a cut.
        >>> [trial.state.name for trial in study.trials[7:]]
        ['COMPLETE', 'PRUNED']
        >>> study.trials[8].user_attrs["reason"][:39]
        'at epoch 3 of 8 its accuracy is 76.2 %;'
    """

    def __init__(self, problem: ShapeProblem, *, delta: float = 0.05) -> None:
        if not 0 < delta < 1:
            raise ValueError(f"delta is {delta}; it is a probability between 0 and 1.")
        self._problem = problem
        self._delta = delta

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        shape, step = shape_of(trial), trial.last_step
        if shape is None or step is None:
            return False
        value = trial.intermediate_values[step]
        if value > 1 or value < 0:
            raise InvalidAccuracy(
                f"trial.report({value}, {step}) was called; report the accuracy as a fraction "
                f"in [0, 1], such as {value / 100:g}."
            )
        belief = believe(self._problem, study)
        if shape not in belief.index or shape in {
            cut.shape for cut in belief.history.cuts.values()
        }:
            return False  # Cut once and chosen again, a shape is trained in full.
        position = belief.index[shape]
        reason = self._obsolete(belief, position)
        if reason is None and belief.goal_costs is None and not math.isnan(value):
            reason = self._hopeless(belief, trial, position, step, value)
        if reason is None:
            return False
        StudyRecords(study).write_reason(trial._trial_id, reason)
        _logger.info(f"Trial {trial.number} is cut short: {reason}")
        return True

    def _obsolete(self, belief: Belief, position: int) -> str | None:
        costs, answer = belief.goal_costs, belief.answer
        if costs is None or answer is None or costs[answer] >= costs[position]:
            return None
        if belief.answer_reaches < 1 - self._delta:
            return None  # It may have been lucky.
        goal = self._problem.goal
        return (
            f"{belief.shapes[answer]} has reached the accuracy with {goal} "
            f"{format_quantity(goal, costs[answer])}, less than "
            f"{format_quantity(goal, costs[position])} here"
        )

    def _hopeless(
        self, belief: Belief, trial: FrozenTrial, position: int, step: int, value: float
    ) -> str | None:
        epochs, answer = self._problem.epochs, belief.answer
        reports = len(trial.intermediate_values)
        if answer is None or epochs is None:
            return None
        if not _MIN_SHARE * epochs <= reports <= _MAX_SHARE * epochs:
            return None
        every = math.ceil(epochs / _RUNGS)
        if reports % every:
            return None
        points = dict(zip(belief.shapes, map(tuple, belief.points)))
        curves = FinishedCurves.of(belief.history, points, step)
        if curves is None or len(curves.finals) < _MIN_CURVES:
            return None
        best = belief.means[answer]
        target = float(log_error(best))
        prediction = curves.predict(points[belief.shapes[position]], value, belief.seed)
        if prediction is None:
            return None
        # The curve has to say so, and the model of shapes must not know better: a shape that it
        # still holds for good would be chosen again at once.
        mean, sd = belief.latent.marginal()
        noise = belief.surrogate.noise_variance(np.exp(-mean[[position]]))[0]
        of_shape = Normal(float(mean[position]), math.hypot(sd[position], math.sqrt(noise)))
        together = combine(prediction, of_shape)
        probability = max(
            probability_reaches(prediction, target), probability_reaches(together, target)
        )
        if probability >= self._delta:
            return None
        if _would_lose(curves, target, self._delta, every, belief.seed):
            _logger.info(
                f"Trial {trial.number} goes on: the rule that would cut it here would also have "
                "cut the best finished training."
            )
            return None
        return (
            f"at epoch {reports} of {epochs} its accuracy is "
            f"{format_quantity('accuracy', value)}; "
            f"the probability of ending above {format_quantity('accuracy', best)} is "
            f"{probability:.2g}"
        )


def _would_lose(
    curves: FinishedCurves, target: float, delta: float, every: int, seed: int
) -> bool:
    """Whether the rule would have cut one of these trainings that reached the target."""
    epochs = curves.log_errors.shape[1]
    first = max(2, math.ceil(_MIN_SHARE * epochs))
    # The same epochs at every report, so that their models are fitted once.
    judged = [e for e in range(first, epochs) if (e + 1) % every == 0]
    jitters = np.array([curve_jitter(curves.log_errors[:, : e + 1]) for e in judged])
    values = curves.log_errors[:, judged]
    lost = replay(
        curves.points, values, curves.finals, target, delta=delta, jitters=jitters, seed=seed
    )
    return lost > 0
