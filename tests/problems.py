"""Problems whose properties come from formulas, so that no test depends on the clock."""

from __future__ import annotations

import math
from collections.abc import Callable

import optuna

from optuna_shape import DesignSpace
from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape import TableMeter


def surface(shape: Shape) -> float:
    """An accuracy that grows with depth and width and saturates, like a trained network's."""
    return 1 - 0.05 - 0.3 * shape.depth**-0.6 * (shape.width / 4) ** -0.5


def latency(shape: Shape) -> float:
    """Seconds: linear in depth, growing with width."""
    return 1e-4 * shape.depth * (1 + shape.width / 16)


def table(space: DesignSpace) -> TableMeter:
    """Latency, energy and size of every shape, by formula."""
    return TableMeter(
        {
            shape: {
                "latency": latency(shape),
                "energy": 20 * latency(shape),
                "size": 400.0 * shape.depth * shape.width**2,
            }
            for shape in space.shapes
        }
    )


def formula_objective(
    problem: ShapeProblem, accuracy: Callable[[Shape], float] = surface, epochs: int = 0
) -> Callable[[optuna.Trial], float]:
    """The define-by-run objective of someone whose trainings are already known."""

    def objective(trial: optuna.Trial) -> float:
        shape = problem.suggest(trial)
        final = accuracy(shape)
        for epoch in range(1, epochs + 1):
            trial.report(final * (1 - 0.5 * math.exp(-3 * epoch / epochs)), epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return problem.record(trial, final)

    return objective
