"""What repeating tells: how far sessions that measure the same (A/A) lie apart."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optuna_shape.errors import InvalidProblem
from optuna_shape.space import Shape

_LEAST_GUARD = 0.02
_MOST_GUARD = 0.9
_SIGMA = 1.4826  # of a normal distribution, from its median absolute deviation


@dataclass(frozen=True)
class Spread:
    """How far the sessions of a shape lie from their median, as a share of it, over all shapes.

    Attributes:
        median: Median of the deviations.
        ninetieth: Their 90th percentile.
        largest: The largest of them.
        sigma: Robust standard deviation of a session: 1.4826 times the median absolute logarithm
            of the ratio of two sessions of a shape, over the square root of 2. Unlike ``median``,
            which few sessions make too small (by half for three of them, since the middle one
            deviates from itself by nothing), it does not depend on their number.
    """

    median: float
    ninetieth: float
    largest: float
    sigma: float

    @property
    def guard(self) -> float | None:
        """What ``DeviceMeter(guard=...)`` should allow for: 2 sigma, and 2 % at least.

        None where that is beyond 90 %: with twice its latency still possible, hardly a shape could
        be decided.
        """
        guard = max(_LEAST_GUARD, 2 * self.sigma)
        return guard if guard <= _MOST_GUARD else None


def spread(sessions: Mapping[Shape, Sequence[float]]) -> Spread:
    """Compare what several sessions measured of each of some shapes.

    Args:
        sessions: The values of each shape, one per session, above 0, in any unit.

    Raises:
        InvalidProblem: A shape was measured once only, or not everywhere with success.

    Example:
        >>> result = spread({Shape(1, 8): [1.0, 1.1, 1.2]})
        >>> round(result.largest, 4)
        0.0909
        >>> round(result.guard, 4)  # The middle of ln(1.1), ln(1.2/1.1) and ln(1.2) is ln(1.1).
        0.1998
    """
    for shape, values in sessions.items():
        if len(values) < 2 or not all(0 < value < math.inf for value in values):
            raise InvalidProblem(
                f"The sessions of shape {shape} gave {list(values)}; "
                "a spread takes two or more numbers above 0 of every shape."
            )
    if not sessions:
        raise InvalidProblem("There is no shape whose sessions could be compared. Give some.")
    deviations = [
        abs(value / statistics.median(values) - 1)
        for values in sessions.values()
        for value in values
    ]
    differences = [
        abs(math.log(one / other))
        for values in sessions.values()
        for one, other in itertools.combinations(values, 2)
    ]
    return Spread(
        median=statistics.median(deviations),
        ninetieth=float(np.quantile(deviations, 0.9)),
        largest=max(deviations),
        sigma=_SIGMA * statistics.median(differences) / math.sqrt(2),
    )
