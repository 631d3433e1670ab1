"""ShapeSampler: the Optuna face of the decision which shape to train next."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import IntDistribution
from optuna.pruners import NopPruner
from optuna.samplers import BaseSampler
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_shape.decide.acquisition import cost_improvement
from optuna_shape.decide.acquisition import expected_improvement
from optuna_shape.decide.design import initial_design
from optuna_shape.decide.surrogate import Posterior
from optuna_shape.errors import InvalidProblem
from optuna_shape.posterior import Belief
from optuna_shape.posterior import believe
from optuna_shape.problem import ShapeProblem
from optuna_shape.records import ACCURACY
from optuna_shape.records import StudyRecords
from optuna_shape.records import claimed_shape
from optuna_shape.records import fixed_parameters
from optuna_shape.records import stop_loop
from optuna_shape.space import Shape

_logger = logging.getLogger(f"optuna.{__name__}")

# Collisions are broken by chance of its own: the user's seeded generators stay untouched.
_chance = random.SystemRandom()
#: Shapes of the initial design.
DESIGN_SIZE = 5
# A doubtful answer is trained again once so little speaks for a cheaper shape: before, new shapes
# say more.
_UNLIKELY = 0.05
_PATIENCE = 0.2


class ShapeSampler(BaseSampler):
    """Suggests the shape that is worth training next.

    The first shapes are a fixed design, the cheapest first. After that, the shape with the largest
    expected gain per root of training cost under a Gaussian process of accuracy, among the shapes
    within every hard constraint that are neither trained nor in training. With nothing left to
    train, the search ends.

    Args:
        problem: What is asked.
        seed: Seed of the study's decisions (that of its first worker counts, so that all workers
            decide alike) and of the default ``independent_sampler``.
        independent_sampler: Samples whatever else an objective suggests besides ``depth`` and
            ``width``; by default :class:`optuna.samplers.RandomSampler`. The effect of such
            parameters is noise to the model of shapes.

    Example:
        >>> from optuna_shape import DesignSpace
        >>> problem = ShapeProblem(
        ...     DesignSpace(depth=range(1, 9), width=[4, 8, 16, 32]),
        ...     goal="accuracy",
        ...     training_cost=lambda shape: shape.depth * shape.width**2,
        ... )
        >>> def objective(trial):
        ...     shape = problem.suggest(trial)  # In place of a training:
        ...     return problem.record(trial, 1 - 0.2 / shape.depth - 0.5 / shape.width)
        >>> study = optuna.create_study(
        ...     direction=problem.direction, sampler=ShapeSampler(problem, seed=0)
        ... )
        >>> study.optimize(objective, n_trials=7)
        >>> study.trials[0].params  # The cheapest comes first.
        {'depth': 1, 'width': 4}
        >>> len({tuple(trial.params.values()) for trial in study.trials})  # None comes twice.
        7
    """

    def __init__(
        self,
        problem: ShapeProblem,
        *,
        seed: int | None = None,
        independent_sampler: BaseSampler | None = None,
    ) -> None:
        self._problem = problem
        self._seed = seed
        self._independent_sampler = independent_sampler or RandomSampler(seed)
        self._has_seen_pruner = False

    def reseed_rng(self) -> None:
        # Decisions rest on the stored seed alone, or workers would decide differently.
        self._independent_sampler.reseed_rng()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._independent_sampler.before_trial(study, trial)
        self._warn_of_rank_pruners(study)
        if StudyRecords(study).stop() is not None:
            stop_loop(study)
        else:
            self._stop_if_exhausted(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        space = self._problem.space
        return {
            "depth": IntDistribution(space.depths[0], space.depths[-1]),
            "width": IntDistribution(space.widths[0], space.widths[-1]),
        }

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Choose a shape and claim it, so that no other worker trains it too.

        Raises:
            optuna.TrialPruned: Nothing is left to train.
        """
        _raise_if_multi_objective(study)
        if set(search_space) != {"depth", "width"}:
            raise ValueError(
                f"ShapeSampler chooses depth and width together, but was asked for "
                f"{sorted(search_space)}. Instead of fixing one of them by PartialFixedSampler, "
                "give the design space a single value of it, or enqueue it."
            )
        self._problem.screen(study)
        records = StudyRecords(study)
        records.propose_seed(self._seed if self._seed is not None else _chance.randrange(2**31))
        fixed = fixed_parameters(trial)
        refused: set[Shape] = set()
        while True:
            belief = believe(self._problem, study)
            shapes = [
                (belief.shapes[i], replicate)
                for i, replicate in _rank(belief, trial.number)
                if belief.shapes[i] not in refused and _agrees(belief.shapes[i], fixed)
            ]
            if shapes:
                # Workers that collided spread out over the next best, or would collide again.
                spread = min(len(shapes), 2 ** len(refused))
                shape, replicate = shapes[_chance.randrange(spread)]
                if records.claim(trial._trial_id, shape, replicate=replicate) is None:
                    return {"depth": shape.depth, "width": shape.width}
                refused.add(shape)
            elif refused or (not len(belief.free) and belief.history.running_here):
                # A rival may withdraw, or a training of this process's threads may yet fail.
                refused.clear()
                time.sleep(_chance.uniform(0.5, 1.5) * _PATIENCE)
            else:
                break
        reason = self._stop_if_exhausted(study, trial)
        if reason is None and len(belief.free) > 0:
            reason = f"no shape with {fixed} is left to train, or {fixed} is not in the space"
        elif reason is None:
            reason = f"nothing is left to pick; {len(belief.running)} shapes are in training"
            stop_loop(study)
        records.write_reason(trial._trial_id, reason)
        raise optuna.TrialPruned(reason)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        _raise_if_multi_objective(study)
        if param_name in ("depth", "width"):
            space = self._problem.space
            values = space.depths if param_name == "depth" else space.widths
            raise ValueError(
                f"{param_name} is suggested from {param_distribution}, which does not hold every "
                f"{param_name} of the design space, {list(values)}. Use problem.suggest(trial), "
                f"or trial.suggest_int({param_name!r}, {values[0]}, {values[-1]})."
            )
        return self._independent_sampler.sample_independent(
            study, trial, param_name, param_distribution
        )

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self._independent_sampler.after_trial(study, trial, state, values)
        if claimed_shape(trial) is None or state != TrialState.COMPLETE:
            return
        if {"depth", "width"} <= set(trial.params) and ACCURACY not in trial.user_attrs:
            raise InvalidProblem(
                f"Trial {trial.number} returned {values} without problem.record(trial, accuracy), "
                "so nothing was learned from it. Return problem.record(trial, accuracy)."
            )
        # The trial that trains the last shape ends the search itself: no empty trial follows it.
        self._stop_if_exhausted(study, trial)

    def _warn_of_rank_pruners(self, study: Study) -> None:
        """Say once that Optuna's own pruners, one of which is its default, misjudge shapes."""
        if self._has_seen_pruner:
            return
        self._has_seen_pruner = True
        pruner = study.pruner
        is_ours = type(pruner).__module__.startswith("optuna_shape.")
        if self._problem.epochs is None or is_ours or isinstance(pruner, NopPruner):
            return
        _logger.warning(
            f"The study prunes by {type(pruner).__name__}, as Optuna does by default or as you "
            "chose. Such a pruner compares shapes at the same epoch, where small ones often lead, "
            "since they learn faster. Create the study with pruner=ShapePruner(problem), or with "
            "optuna.pruners.NopPruner()."
        )

    def _stop_if_exhausted(self, study: Study, trial: FrozenTrial) -> str | None:
        """End the search if nothing is left and no other trial trains; the reason if so."""
        records = StudyRecords(study)
        if not records.is_screened():
            return None
        history, feasible = records.history(), self._problem.known_screening(study).feasible
        if history.left(feasible) or set(history.running) - {trial.number}:
            return None
        reason = f"all {len(feasible)} feasible shapes have been trained"
        retired = history.retired.intersection(feasible)
        if retired:
            reason += f", but for {len(retired)} whose trainings failed or were cut repeatedly"
        records.write_stop({"kind": "exhausted", "reason": reason})
        stop_loop(study)
        return reason


def _rank(belief: Belief, trial_number: int) -> list[tuple[int, bool]]:
    """Positions worth training, best first, and whether each repeats a trained shape."""
    free = belief.free
    fresh = np.setdiff1d(free, belief.cut)
    begun = len(belief.shapes) - len(fresh)
    design = initial_design(belief.points, belief.training_costs, DESIGN_SIZE)
    if begun < len(design):
        # The i-th trial begins at the i-th shape, so that workers starting at once do not collide.
        start = trial_number % len(design)
        turn = [i for i in (*design[start:], *design[:start]) if i in fresh]
        rest = sorted(set(free) - set(design), key=lambda i: (belief.training_costs[i], i))
        return [(int(i), False) for i in (*turn, *rest)]
    pending = belief.latent.given(belief.running)
    if belief.goal_costs is None:
        mean, _ = belief.latent.marginal()
        known = belief.trained if len(belief.trained) else np.arange(len(mean))
        incumbent = float(mean[known].max())
        scores = expected_improvement(pending, incumbent, belief.training_costs)
        return _ordered(belief, scores, free, np.array([], dtype=int))
    return _rank_by_cost(belief, belief.goal_costs, pending, free)


def _rank_by_cost(
    belief: Belief, goal_costs: np.ndarray, pending: Posterior, free: np.ndarray
) -> list[tuple[int, bool]]:
    """Rank for a cost goal: new shapes, and trained ones whose doubtful accuracy decides."""
    threshold, answer = belief.threshold, belief.answer
    best = None if answer is None else float(goal_costs[answer])
    replicates = np.setdiff1d(belief.doubtful, belief.running)
    scores = cost_improvement(pending, threshold, goal_costs, best, belief.training_costs)
    if answer in replicates:
        # What the answer saves is counted from what would be the answer without it.
        others = [i for i in belief.reaching if i != answer]
        second = min((float(goal_costs[i]) for i in others), default=None)
        scores[answer] = cost_improvement(
            pending, threshold, goal_costs, second, belief.training_costs
        )[answer]
    ranked = _ordered(belief, scores, free, replicates)
    if answer is not None and _is_last_doubt(belief):
        return [(answer, True), *(choice for choice in ranked if choice[0] != answer)]
    return ranked


def _is_last_doubt(belief: Belief) -> bool:
    """Whether it is only the answer's own accuracy that keeps the search from its end."""
    return (
        belief.answer not in belief.running
        and belief.is_answer_in_doubt(0.0)
        and belief.better_probability(0.0) <= _UNLIKELY
    )


def _ordered(
    belief: Belief, scores: np.ndarray, free: np.ndarray, replicates: np.ndarray
) -> list[tuple[int, bool]]:
    order = sorted((*free, *replicates), key=lambda i: (-scores[i], belief.training_costs[i], i))
    return [(int(i), i in replicates) for i in order]


def _agrees(shape: Shape, fixed: dict[str, Any]) -> bool:
    return all(getattr(shape, name) == fixed[name] for name in Shape._fields if name in fixed)


def _raise_if_multi_objective(study: Study) -> None:
    if len(study.directions) > 1:
        raise ValueError(
            "ShapeSampler searches for one goal. State the other properties as constraints of "
            "the ShapeProblem, or look at the accuracy-latency figure of the report."
        )
