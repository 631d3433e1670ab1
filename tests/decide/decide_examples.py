"""Small searches that several tests share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from optuna_shape.decide.surrogate import Posterior
from optuna_shape.decide.surrogate import Surrogate
from optuna_shape.decide.surrogate import fit
from optuna_shape.decide.surrogate import log_error
from optuna_shape.decide.surrogate import unit_points


@dataclass(frozen=True, eq=False)
class Example:
    """``points`` of the space, of which ``trained`` showed ``log_errors``."""

    points: np.ndarray
    truth: np.ndarray
    costs: np.ndarray
    trained: np.ndarray
    log_errors: np.ndarray
    surrogate: Surrogate
    posterior: Posterior


def grid(depths: int, widths: int) -> np.ndarray:
    depth, width = np.meshgrid(np.arange(1, depths + 1), 8 * np.arange(1, widths + 1))
    return unit_points(depth.T.ravel(), width.T.ravel())


def surface(points: np.ndarray) -> np.ndarray:
    """Accuracy: better with width, best at a middle depth."""
    return 0.7 + 0.2 * points[:, 1] - 0.2 * (points[:, 0] - 0.6) ** 2


@cache
def small_search() -> Example:
    """Seven trainings of twenty shapes."""
    rng = np.random.default_rng(0)
    points = grid(4, 5)
    trained = rng.permutation(len(points))[:7]
    accuracies = surface(points)
    seen = log_error(accuracies[trained] + 0.003 * rng.standard_normal(7))
    surrogate = fit(points[trained], seen, seed=0)
    return Example(
        points,
        log_error(accuracies),
        np.exp(3 * points.sum(axis=1)),
        trained,
        seen,
        surrogate,
        surrogate.predict(points),
    )
