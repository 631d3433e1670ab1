"""Which shapes to train before anything is known."""

from __future__ import annotations

import numpy as np

from optuna_shape.decide._arrays import Floats
from optuna_shape.decide._arrays import Indices

# Distances on a grid tie; the order of their rounding errors must not decide.
_TIE = 1e-9


def initial_design(
    points: Floats, costs: Floats, count: int = 5, exponent: float = 0.5
) -> Indices:
    r"""A few shapes, cheap and far from each other.

    The first is the cheapest. Each further one maximises

    .. math::
        \frac{\min_{j \,\mathrm{chosen}} \lVert x_i - x_j \rVert}{c_i^\alpha}

    Ties go to the lower cost, then to the lower index. Cheap shapes cost little to know, and the
    distance keeps the dear corners from being forgotten.

    Args:
        points: ``N x 2``, in the unit square.
        costs: Of training each, ``N``, positive, in any unit.
        count: How many to choose; all if there are fewer.
        exponent: :math:`\alpha`. Zero ignores costs.

    Returns:
        Indices in the order in which to train, ``min(count, N)``.

    Example:
        >>> points = np.array([[0.0, 0.0], [0.5, 0.0], [1.0, 0.0], [1.0, 1.0]])
        >>> initial_design(points, np.array([1.0, 2.0, 4.0, 4.0]), count=3).tolist()
        [0, 3, 2]
    """
    chosen: list[int] = []
    handicap = (costs / costs.min(initial=np.inf)) ** exponent
    distances = np.full(len(points), np.inf)
    free = np.ones(len(points), dtype=bool)
    while len(chosen) < min(count, len(points)):
        # The first has no distance to anything: cost alone decides.
        scores = np.where(free, distances / handicap if chosen else 0.0, -np.inf)
        best = scores.max()
        ties = np.flatnonzero(scores >= best - _TIE * abs(best))
        choice = int(ties[np.argmin(costs[ties])])
        chosen.append(choice)
        free[choice] = False
        distances = np.minimum(distances, np.linalg.norm(points - points[choice], axis=1))
    return np.array(chosen, dtype=np.intp)


def spread(points: Floats, count: int) -> Indices:
    """Up to ``count`` points far from each other, the first point among them (maximin design)."""
    return initial_design(points, np.ones(len(points)), count, exponent=0.0)
