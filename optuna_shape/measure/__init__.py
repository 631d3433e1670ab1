"""Latency, energy and size of shapes: how they are measured, and which shapes need it."""

from __future__ import annotations

from optuna_shape.measure.boundary import Boundary
from optuna_shape.measure.boundary import find_boundary
from optuna_shape.measure.counting import Counts
from optuna_shape.measure.counting import count
from optuna_shape.measure.device import DeviceMeter
from optuna_shape.measure.given import FunctionMeter
from optuna_shape.measure.given import TableMeter
from optuna_shape.measure.measurement import Measurement
from optuna_shape.measure.measurement import Meter

__all__ = [
    "Boundary",
    "Counts",
    "DeviceMeter",
    "FunctionMeter",
    "Measurement",
    "Meter",
    "TableMeter",
    "count",
    "find_boundary",
]
