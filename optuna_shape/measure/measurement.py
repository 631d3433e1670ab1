"""What measuring gives, and what a meter is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from typing import runtime_checkable

from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape

#: How the note of an estimate begins.
ESTIMATE = "estimate"


@dataclass(frozen=True)
class Measurement:
    """One property of one shape, in SI units.

    Attributes:
        value: The figure itself: for latency the requested quantile. ``inf`` where the shape could
            not be run at all (``note`` says why).
        low: Lower end of the interval that holds the true value, equal to ``value`` if exact.
        high: Upper end. A shape is within a bound only if ``high`` is.
        samples: Number of independent readings behind the value; 1 if exact.
        fingerprint: Device, settings and versions under which this was measured.
        note: What a reader should know besides: an estimate, memory that ran out.

    Example:
        >>> measurement = Measurement(0.0021, 0.0020, 0.0023, samples=9, fingerprint="a phone")
        >>> measurement.high <= 0.0022  # So 2.2 ms are not kept for sure.
        False
        >>> Measurement.exact(310_000, "counted").low
        310000.0
    """

    value: float
    low: float
    high: float
    samples: int
    fingerprint: str
    note: str = ""

    @property
    def is_estimate(self) -> bool:
        """Whether this was reckoned from something else, at the user's wish; ``note`` says how."""
        return self.note.startswith(ESTIMATE)

    @classmethod
    def exact(cls, value: float, fingerprint: str, note: str = "") -> Measurement:
        """A value without uncertainty: a count, or a figure from a table."""
        value = float(value)
        return cls(value, value, value, 1, fingerprint, note)

    @classmethod
    def impossible(cls, fingerprint: str, note: str) -> Measurement:
        """A shape that cannot run on the device; over every bound."""
        return cls(math.inf, math.inf, math.inf, 0, fingerprint, note)


@runtime_checkable
class Meter(Protocol):
    """Anything that measures shapes: this machine, a recorded table, the user's own script.

    Several shapes are passed at once because honest timing interleaves them.

    Example:
        A meter of one's own needs no base class. (For a function of the shape,
        :class:`FunctionMeter` does this.)

        >>> class CycleCount:
        ...     fingerprint = "simulator 3.1 at 200 MHz"
        ...
        ...     def measure(self, space, shapes, quantity, bound=None):
        ...         return {
        ...             s: Measurement.exact(5000 * s.depth * s.width / 200e6, self.fingerprint)
        ...             for s in shapes
        ...         }
        >>> isinstance(CycleCount(), Meter)
        True
    """

    @property
    def fingerprint(self) -> str:
        """Device, settings and versions; measurements with different ones are never mixed."""
        ...

    def measure(
        self,
        space: DesignSpace,
        shapes: Sequence[Shape],
        quantity: str,
        bound: float | None = None,
    ) -> Mapping[Shape, Measurement]:
        """Measure one quantity of some shapes.

        Args:
            space: Where the networks come from.
            shapes: What to measure.
            quantity: ``"latency"``, ``"energy"``, ``"size"``, ``"memory"``, ``"parameters"`` or
                ``"flops"``.
            bound: A bound in SI units: measuring may stop as soon as the side of it is sure.
                :obj:`None` asks for the value itself.

        Returns:
            One measurement for every shape given, in SI units.

        Raises:
            MeasurementUnavailable: This meter cannot measure the quantity.
        """
        ...
