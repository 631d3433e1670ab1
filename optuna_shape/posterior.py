"""The one belief about a study's shapes, which sampler, pruner, terminator and figures share.

It depends on nothing but what is stored: the same trials give the same belief on every worker,
whatever the order in which they ended. Fitting is memoised on the observations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from functools import lru_cache

import numpy as np
from optuna.study import Study

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
    def retired(self) -> np.ndarray:
        """Positions of the shapes that are not to be tried again."""
        positions = [self.index[shape] for shape in self.history.retired if shape in self.index]
        return np.array(sorted(positions), dtype=int)

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

    def better_probability(self, epsilon: float) -> float:
        """Probability that a shape not fully trained would be a better answer.

        For an accuracy goal, better by more than ``epsilon`` of accuracy than the answer; for a
        cost goal, cheaper than the answer by more than the share ``epsilon`` and still accurate
        enough. Before there is an answer, the probability that any shape would be one.
        """
        others, answer = np.setdiff1d(self.untrained, self.retired), self.answer
        if len(others) == 0:
            return 0.0
        if self.goal_costs is not None:
            if answer is not None:
                limit = self.goal_costs[answer] * (1 - epsilon)
                others = others[self.goal_costs[others] < limit]
            return self.reach_probability(others)
        if answer is None:
            return self.reach_probability(others) if self.accuracy_bound else 1.0
        return probability_better(self.latent, answer, others, epsilon, seed=self.seed)

    def reach_probability(self, positions: np.ndarray) -> float:
        """Probability that any of these shapes reaches the accuracy constraint."""
        if len(positions) == 0:
            return 0.0
        threshold = float(log_error(self.accuracy_bound or 0.0))
        return probability_any_reaches(self.latent, positions, threshold, seed=self.seed)

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
    finished = set(history.accuracies)
    for cut in history.cuts.values():
        # A cut training stands for its result only until the shape has been trained in full.
        if cut.shape not in finished and cut.log_error is not None and cut.shape in points:
            assert cut.deviation is not None
            observations.append((*points[cut.shape], cut.log_error, cut.deviation**2))
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
