"""The one belief about a study's shapes, which sampler, pruner, terminator and figures share.

It depends on nothing but what is stored: the same trials give the same belief on every worker,
whatever the order in which they ended. Fitting is memoised on the observations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from functools import lru_cache

import numpy as np
from optuna.study import Study

from optuna_shape.decide.acquisition import replicate_candidates
from optuna_shape.decide.curves import LEAST_CURVES
from optuna_shape.decide.curves import curve_jitter
from optuna_shape.decide.curves import predict_final
from optuna_shape.decide.normal import Normal
from optuna_shape.decide.stopping import leave_one_out
from optuna_shape.decide.stopping import probability_any_reaches
from optuna_shape.decide.stopping import probability_better
from optuna_shape.decide.surrogate import Posterior
from optuna_shape.decide.surrogate import Surrogate
from optuna_shape.decide.surrogate import fit
from optuna_shape.decide.surrogate import log_error
from optuna_shape.decide.surrogate import unit_points
from optuna_shape.problem import ShapeProblem
from optuna_shape.records import ACCURACY
from optuna_shape.records import History
from optuna_shape.records import StudyRecords
from optuna_shape.space import Shape

# Trainings after which the accuracy of an answer is not doubted any more, but stated.
_MOST_TRAININGS = 2
# Standard deviation of the log error that stands in for a training that failed: the worst seen.
_FAILED = 0.25

#: (unit depth, unit width, log error, extra variance of the log error)
_Observation = tuple[float, float, float, float]


@dataclass(frozen=True)
class Belief:
    """What is believed of the accuracy of each feasible shape.

    Arrays are aligned with ``shapes``; N is their number.

    Attributes:
        shapes: The feasible shapes, depth-major.
        points: ``(N, 2)``, their logarithms scaled to the unit square.
        training_costs: ``(N,)``, relative cost of one epoch.
        goal_costs: ``(N,)``, measured values of the goal in SI units; None for an accuracy goal.
        accuracy_bound: The accuracy that the answer has to reach, or None.
        history: What the trials say.
        surrogate: The Gaussian process, fitted to the trained shapes.
        latent: Posterior of the latent log error of the N shapes.
        seed: Of every sampling that decisions rest on.
    """

    shapes: tuple[Shape, ...]
    points: np.ndarray
    training_costs: np.ndarray
    goal_costs: np.ndarray | None
    accuracy_bound: float | None
    history: History
    surrogate: Surrogate
    latent: Posterior
    seed: int

    @cached_property
    def index(self) -> dict[Shape, int]:
        """Position of each feasible shape."""
        return {shape: i for i, shape in enumerate(self.shapes)}

    @property
    def threshold(self) -> float:
        """The log error that the answer has to reach; that of accuracy 0 without a constraint."""
        return float(log_error(self.accuracy_bound or 0.0))

    @cached_property
    def means(self) -> dict[int, float]:
        """Mean observed accuracy of each trained shape, by position."""
        return {
            self.index[shape]: float(np.mean(values))
            for shape, values in self.history.accuracies.items()
            if shape in self.index
        }

    @property
    def trained(self) -> np.ndarray:
        """Positions of the fully trained shapes."""
        return np.array(sorted(self.means), dtype=int)

    @property
    def untrained(self) -> np.ndarray:
        """Positions of all others, in training and cut short ones included."""
        return np.setdiff1d(np.arange(len(self.shapes)), self.trained)

    @property
    def running(self) -> np.ndarray:
        """Positions of the shapes in training."""
        return np.array(
            sorted(self.index[s] for s in self.history.claimed if s in self.index), dtype=int
        )

    @property
    def untrainable(self) -> np.ndarray:
        """Positions of the shapes whose trainings failed repeatedly."""
        shapes = self.history.untrainable
        return np.array(sorted(self.index[s] for s in shapes if s in self.index), dtype=int)

    @property
    def cut(self) -> np.ndarray:
        """Positions of the shapes whose training was cut short, and not resumed since."""
        positions = {
            self.index[c.shape] for c in self.history.cuts.values() if c.shape in self.index
        }
        return np.setdiff1d(np.array(sorted(positions), dtype=int), self.trained)

    @property
    def free(self) -> np.ndarray:
        """Positions of the shapes that may be trained next."""
        return np.array([self.index[s] for s in self.history.left(self.shapes)], dtype=int)

    @cached_property
    def reaching(self) -> list[int]:
        """Positions of the trained shapes whose mean accuracy meets the accuracy constraint."""
        return [int(i) for i in self.trained if self.means[i] >= (self.accuracy_bound or 0.0)]

    @cached_property
    def answer(self) -> int | None:
        """Position of the shape that would be the answer now, or None.

        For an accuracy goal the trained shape of largest posterior mean: the best observation is
        partly luck. For a cost goal the cheapest trained shape that reached the accuracy.
        """
        if not self.reaching:
            return None
        if self.goal_costs is not None:
            costs = self.goal_costs
            return min(self.reaching, key=lambda i: (costs[i], -self.means[i], i))
        mean, _ = self.latent.marginal()
        return max(self.reaching, key=lambda i: (mean[i], -i))

    @cached_property
    def answer_reaches(self) -> float:
        """Probability that the answer's accuracy, without the luck of its trainings, is enough.

        1 without an accuracy constraint, 0 before there is an answer.
        """
        if self.answer is None:
            return 0.0
        if self.accuracy_bound is None:
            return 1.0
        return float(self.latent.probability_above(self.threshold, np.array([self.answer]))[0])

    def is_answer_in_doubt(self, delta: float) -> bool:
        """Whether another training of the answer to a cost goal has to say if it was lucky.

        It has where the answer reaches the accuracy with less than ``1 - delta``, and was trained
        only once.
        """
        if self.goal_costs is None or self.answer is None:
            return False
        trainings = self.history.trainings(self.shapes[self.answer])
        return self.answer_reaches < 1 - delta and trainings < _MOST_TRAININGS

    @cached_property
    def doubtful(self) -> np.ndarray:
        """Positions of trained shapes that another training may make the answer, or unmake.

        Only cost goals have such: their answer hangs on a threshold.
        """
        if self.goal_costs is None:
            return np.array([], dtype=int)
        history, shapes = self.history, self.shapes
        once = [i for i in self.trained if history.trainings(shapes[i]) < _MOST_TRAININGS]
        return replicate_candidates(
            self.latent,
            self.threshold,
            np.array(once, dtype=int),
            self.goal_costs,
            None if self.answer is None else float(self.goal_costs[self.answer]),
        )

    def better_probability(self, epsilon: float) -> float:
        """Probability that a shape not fully trained would be a better answer.

        For an accuracy goal, better by more than ``epsilon`` of accuracy than the answer; for a
        cost goal, cheaper than the answer by more than the share ``epsilon`` and still accurate
        enough, trained shapes included that just missed it and can be trained again. Before there
        is an answer, the probability that any shape would be one.
        """
        others, answer = np.setdiff1d(self.untrained, self.untrainable), self.answer
        if self.goal_costs is not None:
            others = np.union1d(others, self.doubtful)
            if answer is not None:
                limit = self.goal_costs[answer] * (1 - epsilon)
                others = others[self.goal_costs[others] < limit]
            return self.reach_probability(np.setdiff1d(others, [answer]))
        if len(others) == 0:
            return 0.0
        if answer is None:
            return self.reach_probability(others) if self.accuracy_bound else 1.0
        return probability_better(self.latent, answer, others, epsilon, seed=self.seed)

    def reach_probability(self, positions: np.ndarray) -> float:
        """Probability that any of these shapes reaches the accuracy constraint."""
        if len(positions) == 0:
            return 0.0
        return probability_any_reaches(self.latent, positions, self.threshold, seed=self.seed)

    def surprise(self) -> float:
        """Root mean square of the leave-one-out z-scores: about 1 if the model is honest."""
        z = leave_one_out(self.surrogate)
        return float(np.sqrt(np.mean(z**2))) if len(z) else 0.0


def believe(problem: ShapeProblem, study: Study) -> Belief:
    """The belief about a study, given what is stored in it now."""
    screening = problem.screen(study)
    records = StudyRecords(study)
    history = records.history()
    seed = records.seed()
    points = _points(problem)
    observations = [
        (*points[history.shapes[number]], float(log_error(accuracy)), 0.0)
        for number, accuracy in history.trained.items()
        if history.shapes[number] in points
    ]
    # What failed teaches, too: networks around one that diverges are likely to diverge.
    worst = min((observation[2] for observation in observations), default=None)
    if worst is not None:
        observations += [
            (*points[shape], worst, _FAILED**2)
            for shape in set(history.failures) - set(history.accuracies)
            if shape in points
        ]
    observations += [
        (*points[shape], prediction.mean, prediction.sd**2)
        for shape, curve in _cut_curves(history).items()
        if shape in points
        and (prediction := _predict_cut(history, points, shape, curve, seed)) is not None
    ]
    shapes = screening.feasible
    feasible_points = tuple(points[shape] for shape in shapes)
    surrogate, latent = _posterior(tuple(sorted(observations)), feasible_points, seed)
    costs = problem.costs(screening)
    goal_costs = None
    if problem.goal != ACCURACY:
        goal_costs = np.array([screening.value(problem.goal, shape) for shape in shapes])
    return Belief(
        shapes,
        np.array(feasible_points),
        np.array([costs[shape] for shape in shapes]),
        goal_costs,
        problem.accuracy_bound,
        history,
        surrogate,
        latent,
        seed,
    )


@dataclass(frozen=True, eq=False)
class FinishedCurves:
    """Curves of the finished trainings up to an epoch: k of them at E epochs.

    Attributes:
        points: ``(k, 2)``.
        log_errors: ``(k, E)``; the last column is the epoch at hand.
        finals: ``(k,)``, final log errors.
        jitter: Standard deviation of one epoch's log error around its curve.
    """

    points: np.ndarray
    log_errors: np.ndarray
    finals: np.ndarray
    jitter: float

    @classmethod
    def of(
        cls, history: History, points: Mapping[Shape, tuple[float, float]], last: int
    ) -> FinishedCurves | None:
        """The curves of these shapes up to a step, or None if too few report there."""
        numbers = [
            number
            for number, curve in sorted(history.curves.items())
            if last in curve and history.shapes[number] in points
        ]
        if len(numbers) < LEAST_CURVES:
            return None
        steps = sorted(set.intersection(*(set(history.curves[n]) for n in numbers)))
        so_far = steps.index(last) + 1
        values = log_error([[history.curves[n][step] for step in steps] for n in numbers])
        return cls(
            np.array([points[history.shapes[number]] for number in numbers]),
            values[:, :so_far],
            log_error([history.trained[number] for number in numbers]),
            # Fewer than three epochs do not show how much a single one scatters.
            curve_jitter(values[:, : max(3, so_far)]),
        )

    def predict(
        self, point: tuple[float, float], accuracy: float, seed: int
    ) -> Normal[float] | None:
        """The final log error of a training that has this accuracy at the epoch at hand."""
        return predict_final(
            self.points,
            self.log_errors[:, -1],
            self.finals,
            np.array(point),
            float(log_error(accuracy)),
            jitter=self.jitter,
            seed=seed,
        )


def _cut_curves(history: History) -> dict[Shape, Mapping[int, float]]:
    """The longest curve of each shape that was cut short and not trained in full since."""
    finished = set(history.accuracies)
    cuts = sorted(history.cuts.items(), key=lambda item: (len(item[1].curve), item[0]))
    return {cut.shape: cut.curve for _, cut in cuts if cut.curve and cut.shape not in finished}


def _predict_cut(
    history: History,
    points: Mapping[Shape, tuple[float, float]],
    shape: Shape,
    curve: Mapping[int, float],
    seed: int,
) -> Normal[float] | None:
    """What a cut training would have ended at; None if too little is known."""
    last = max(curve)
    curves = FinishedCurves.of(history, points, last)
    if curves is None or not math.isfinite(curves.jitter):
        return None
    return curves.predict(points[shape], curve[last], seed)


def _points(problem: ShapeProblem) -> dict[Shape, tuple[float, float]]:
    shapes = problem.space.shapes
    depths, widths = np.array(shapes, dtype=float).T
    points = unit_points(depths, widths)
    return {shape: (float(x), float(y)) for shape, (x, y) in zip(shapes, points)}


@lru_cache(maxsize=16)
def _posterior(
    observations: tuple[_Observation, ...], points: tuple[tuple[float, float], ...], seed: int
) -> tuple[Surrogate, Posterior]:
    table = np.array(observations, dtype=float).reshape(-1, 4)
    surrogate = fit(table[:, :2], table[:, 2], table[:, 3], seed=seed)
    return surrogate, surrogate.predict(np.array(points, dtype=float))
