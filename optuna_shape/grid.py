"""Measuring a whole design space for its own sake, without a search."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from optuna_shape.constraints import Constraint
from optuna_shape.decide.design import spread
from optuna_shape.errors import MeasurementUnavailable
from optuna_shape.filters import HardFilter
from optuna_shape.filters import Measurer
from optuna_shape.filters import Screening
from optuna_shape.filters import Verdict
from optuna_shape.measure.counting import COUNTED
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape

_CHEAPEST_FIRST = (*COUNTED, "memory", "latency", "energy")


def measure_grid(
    space: DesignSpace,
    constraints: Sequence[Constraint],
    measurer: Measurer,
    *,
    fingerprint: str,
    mode: Literal["boundary", "exhaustive"] = "boundary",
    energy: bool = False,
) -> Screening:
    """Measure the shapes of a space and judge them; it is no error if none is within.

    What can be counted is counted of all shapes. Latency is measured of all shapes, or in boundary
    mode of no more than it takes to know which ones are within the constraints.

    Args:
        space: The shapes.
        constraints: Upper bounds on costs, asked from the cheapest on.
        measurer: Measures, or remembers; it keeps what was measured before an interruption.
        fingerprint: Of the meter.
        mode: See :class:`~optuna_shape.filters.HardFilter`.
        energy: Measure energy likewise, constrained or not.

    Raises:
        MeasurementUnavailable: A quantity cannot be measured here.
        NoisyMachine: The machine is too busy.
    """
    for quantity in COUNTED:
        with contextlib.suppress(MeasurementUnavailable):  # A table need not hold all of them.
            measurer.measure(quantity, space.shapes, None)
    bounds: dict[str, float] = {}
    removed: dict[Shape, Verdict] = {}

    def asked() -> list[Shape]:
        return [s for s in space.shapes if mode == "exhaustive" or s not in removed]

    for constraint in sorted(constraints, key=lambda c: _CHEAPEST_FIRST.index(c.property)):
        bound = bounds[str(constraint)] = _bound(constraint, measurer)
        verdicts = HardFilter(constraint, bound, measurer, mode).screen(asked())
        over = {
            shape: verdict for shape, verdict in verdicts.items() if verdict.status != "within"
        }
        removed = over | removed
    for quantity in ("latency", "energy") if energy else ("latency",):
        for shape, measurement in measurer.measure(quantity, asked(), None).items():
            if not math.isfinite(measurement.value):
                removed.setdefault(shape, Verdict("over", measurement.note, quantity, 1.0))
    verdicts = {shape: removed.get(shape, Verdict("within")) for shape in space.shapes}
    return Screening(fingerprint, bounds, verdicts, measurer.known)


def inferred_over(screening: Screening, quantity: str) -> dict[Shape, float]:
    """The shapes that are over a bound on a quantity without being measured, and that bound."""
    bounds = {
        text: bound
        for text, bound in screening.bounds.items()
        if Constraint.parse(text).property == quantity
    }
    measured = screening.measurements.get(quantity, {})
    return {
        shape: bounds[verdict.constraint]
        for shape, verdict in screening.verdicts.items()
        if verdict.constraint in bounds and shape not in measured
    }


def spread_out(space: DesignSpace, count: int) -> list[Shape]:
    """Up to ``count`` shapes of a space that lie far from each other.

    Example:
        >>> spread_out(DesignSpace([1, 2, 3], [8, 16, 24]), 4)
        [Shape(depth=1, width=8), Shape(depth=1, width=24), Shape(depth=3, width=8), Shape(depth=3, width=24)]
    """  # noqa: E501
    rows, columns = len(space.depths), len(space.widths)
    # By place in the grid, as widths often double from one to the next.
    places = np.array([(i / rows, j / columns) for i in range(rows) for j in range(columns)])
    return sorted(space.shapes[i] for i in spread(places, count))


def _bound(constraint: Constraint, measurer: Measurer) -> float:
    if constraint.reference is None:
        return constraint.bound
    measured = measurer.measure(constraint.property, [constraint.reference], None)
    reference = measured[constraint.reference]
    if not math.isfinite(reference.value):
        raise MeasurementUnavailable(
            f"The reference shape of '{constraint}' cannot be measured: {reference.note}."
        )
    return constraint.bound * reference.value
