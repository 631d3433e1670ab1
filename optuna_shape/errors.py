"""Every error of this package. Each says what happened, the value, and what to do next."""

from __future__ import annotations


class ShapeError(Exception):
    """Base of all errors raised by :mod:`optuna_shape`."""


class InvalidSpace(ShapeError, ValueError):
    """A design space cannot be made of these depths and widths."""


class InvalidConstraint(ShapeError, ValueError):
    """A constraint names an unknown property or unit, or bounds it by an impossible value."""


class InvalidProblem(ShapeError, ValueError):
    """Goal, constraints, meter and space do not make a problem together."""


class InvalidAccuracy(ShapeError, ValueError):
    """A reported accuracy is no fraction in [0, 1]."""


class NoFeasibleShape(ShapeError, RuntimeError):
    """No shape is within every constraint that is measured before training."""


class MeasurementUnavailable(ShapeError, RuntimeError):
    """A property cannot be measured here, or a table holds no value for it."""


class EnergyUnavailable(MeasurementUnavailable):
    """No energy counter can be read on this machine."""


class NoisyMachine(ShapeError, RuntimeError):
    """The machine is too busy for its latencies to mean anything."""


class BuildFailed(ShapeError, RuntimeError):
    """``build(shape)`` raised, or returned something that is no :class:`torch.nn.Module`."""


class StudyMismatch(ShapeError, ValueError):
    """The study holds another problem, or trials that no problem explains."""


class DataUnavailable(ShapeError, RuntimeError):
    """A data set is missing, empty or malformed."""


class InvalidCheckpoint(ShapeError, ValueError):
    """A checkpoint is missing a part, or its parts do not belong together."""


class PackingUnavailable(ShapeError, RuntimeError):
    """A packed network needs a coder that is not installed."""
