"""Find the depth and width of a neural network that fits a device, inside Optuna."""

from __future__ import annotations

from optuna_shape import families
from optuna_shape.callbacks import ShapeTerminator
from optuna_shape.constraints import Constraint
from optuna_shape.dashboard import ShapeDashboard
from optuna_shape.errors import BuildFailed
from optuna_shape.errors import DataUnavailable
from optuna_shape.errors import EnergyUnavailable
from optuna_shape.errors import InvalidAccuracy
from optuna_shape.errors import InvalidCheckpoint
from optuna_shape.errors import InvalidConstraint
from optuna_shape.errors import InvalidProblem
from optuna_shape.errors import InvalidSpace
from optuna_shape.errors import MeasurementUnavailable
from optuna_shape.errors import NoFeasibleShape
from optuna_shape.errors import NoisyMachine
from optuna_shape.errors import PackingUnavailable
from optuna_shape.errors import ShapeError
from optuna_shape.errors import StudyMismatch
from optuna_shape.filters import HardFilter
from optuna_shape.filters import Screening
from optuna_shape.filters import Verdict
from optuna_shape.measure import DeviceMeter
from optuna_shape.measure import FunctionMeter
from optuna_shape.measure import Measurement
from optuna_shape.measure import Meter
from optuna_shape.measure import TableMeter
from optuna_shape.problem import Answer
from optuna_shape.problem import ShapeProblem
from optuna_shape.pruner import ShapePruner
from optuna_shape.sampler import ShapeSampler
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "BuildFailed",
    "Constraint",
    "DataUnavailable",
    "DesignSpace",
    "DeviceMeter",
    "EnergyUnavailable",
    "FunctionMeter",
    "HardFilter",
    "InvalidAccuracy",
    "InvalidCheckpoint",
    "InvalidConstraint",
    "InvalidProblem",
    "InvalidSpace",
    "Measurement",
    "MeasurementUnavailable",
    "Meter",
    "NoFeasibleShape",
    "NoisyMachine",
    "PackingUnavailable",
    "Screening",
    "Shape",
    "ShapeDashboard",
    "ShapeError",
    "ShapeProblem",
    "ShapePruner",
    "ShapeSampler",
    "ShapeTerminator",
    "StudyMismatch",
    "TableMeter",
    "Verdict",
    "families",
]
