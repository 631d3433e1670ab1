"""Verdicts before training: which shapes are within every hard constraint, and why not."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import Literal
from typing import TypeAlias
from typing import get_args

from optuna_shape.constraints import Constraint
from optuna_shape.constraints import format_quantity
from optuna_shape.errors import MeasurementUnavailable
from optuna_shape.errors import NoFeasibleShape
from optuna_shape.measure import find_boundary
from optuna_shape.measure.counting import COUNTED
from optuna_shape.measure.counting import measure_count
from optuna_shape.measure.measurement import Measurement
from optuna_shape.measure.measurement import Meter
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape

COUNTED_FINGERPRINT = "counted"
#: Fewest shapes measured together: honest timing interleaves them.
_BATCH = 16
_STORE_EVERY = 1.0  # seconds, so that a slow storage is not asked for every batch

Status: TypeAlias = Literal["within", "over", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """Whether a shape may be trained.

    Attributes:
        status: ``"within"`` every bound, ``"over"`` one, or ``"undecided"``, which counts as over.
        reason: Why it is not within, with the figure; empty if within.
        constraint: The constraint it fails, as text; empty if within.
        excess: How far it is over, relative to the bound; 0 if within.

    Example:
        A filter of one's own, which says why:

        >>> from optuna_shape import DesignSpace, ShapeProblem
        >>> def whole_tiles(shape):
        ...     if shape.width % 8 == 0:
        ...         return Verdict("within")
        ...     return Verdict("over", f"width {shape.width} is no multiple of 8")
        >>> problem = ShapeProblem(
        ...     DesignSpace([1, 2], [8, 12, 16]), "accuracy", filters=[whole_tiles]
        ... )
        >>> import optuna
        >>> study = optuna.create_study(direction=problem.direction)
        >>> [str(shape) for shape in problem.feasible(study)]
        ['(1, 8)', '(1, 16)', '(2, 8)', '(2, 16)']
    """

    status: Status
    reason: str = ""
    constraint: str = ""
    excess: float = 0.0


#: A user's own hard filter.
ShapeFilter = Callable[[Shape], bool | Verdict]


@dataclass(frozen=True)
class Screening:
    """What is known of every shape before the first training.

    Attributes:
        fingerprint: Of the meter that measured.
        bounds: Upper bounds in SI units by constraint text, references resolved.
        verdicts: One verdict for every shape of the space.
        measurements: By quantity and shape. A shape that was inferred to be over has none.
        feasible: The shapes within every bound, sorted.
    """

    fingerprint: str
    bounds: Mapping[str, float]
    verdicts: Mapping[Shape, Verdict]
    measurements: Mapping[str, Mapping[Shape, Measurement]]
    feasible: tuple[Shape, ...] = field(init=False)

    def __post_init__(self) -> None:
        within = (shape for shape, verdict in self.verdicts.items() if verdict.status == "within")
        object.__setattr__(self, "feasible", tuple(sorted(within)))

    def value(self, quantity: str, shape: Shape) -> float | None:
        """The measured value of a quantity in SI units, or None if it was not measured."""
        measurement = self.measurements.get(quantity, {}).get(shape)
        return None if measurement is None else measurement.value

    def label(self, quantity: str) -> str:
        """What to call a quantity where its figures are shown: an estimate is called one."""
        measurements = self.measurements.get(quantity, {}).values()
        estimated = any(measurement.is_estimate for measurement in measurements)
        return f"{quantity} (estimate)" if estimated else quantity

    def figures(self, values: Mapping[str, float | None]) -> dict[str, str]:
        """Label and figure of properties in SI units, for people; what is None is left out.

        Example:
            >>> Screening("", {}, {}, {}).figures({"latency": 0.0021, "energy": None})
            {'latency': '2.1 ms'}
        """
        return {
            self.label(name): format_quantity(name, value)
            for name, value in values.items()
            if value is not None
        }

    def properties(self, shape: Shape) -> dict[str, float]:
        """Everything that was measured of a shape, in SI units."""
        values = {quantity: self.value(quantity, shape) for quantity in self.measurements}
        return {
            quantity: value
            for quantity, value in values.items()
            if value is not None and math.isfinite(value)
        }

    def violations(self, shape: Shape, constraints: Iterable[Constraint]) -> dict[str, float]:
        """Relative excess over each bound, for :meth:`optuna.trial.Trial.set_constraint`.

        Args:
            shape: A shape of the space.
            constraints: Upper bounds on costs.

        Returns:
            The excess by constraint text; 0.1 is 10 % over, and what is not above 0 is within.
        """
        result = {}
        for constraint in constraints:
            text = str(constraint)
            measurement = self.measurements.get(constraint.property, {}).get(shape)
            if measurement is not None and math.isfinite(measurement.high):
                result[text] = _excess(measurement.high, self.bounds[text])
        verdict = self.verdicts[shape]
        if verdict.constraint:
            result[verdict.constraint] = max(verdict.excess, result.get(verdict.constraint, 0.0))
        return result

    def inferred_over(self, quantity: str) -> dict[Shape, float]:
        """The shapes that are over a bound without being measured, and that bound."""
        bounds = {
            text: bound
            for text, bound in self.bounds.items()
            if Constraint.parse(text).property == quantity
        }
        measured = self.measurements.get(quantity, {})
        return {
            shape: bounds[verdict.constraint]
            for shape, verdict in self.verdicts.items()
            if verdict.constraint in bounds and shape not in measured
        }

    def to_json(self) -> dict[str, Any]:
        """Everything but the measurements, which are stored on their own."""
        return {
            "fingerprint": self.fingerprint,
            "bounds": dict(self.bounds),
            "verdicts": [
                [*shape, verdict.status, verdict.reason, verdict.constraint, verdict.excess]
                for shape, verdict in sorted(self.verdicts.items())
            ],
        }

    @classmethod
    def from_json(
        cls, stored: Mapping[str, Any], measurements: Mapping[str, Mapping[Shape, Measurement]]
    ) -> Screening:
        """Make a screening of what :meth:`to_json` returned, and of the measurements.

        Raises:
            LookupError, TypeError or ValueError: It returned something else.
        """
        verdicts = {
            Shape(int(depth), int(width)): _verdict_from_json(*verdict)
            for depth, width, *verdict in stored["verdicts"]
        }
        bounds = {str(text): float(bound) for text, bound in stored["bounds"].items()}
        return cls(str(stored["fingerprint"]), bounds, verdicts, measurements)


class Measurer:
    """Measures shapes once: what is known is looked up, what is new is handed on to be stored.

    Args:
        space: Where networks are built from.
        meter: Measures what cannot be counted; may be None where nothing has to be.
        known: Measurements from before with the same fingerprint, by quantity and shape.
        store: Called with every batch of new measurements.
    """

    def __init__(
        self,
        space: DesignSpace,
        meter: Meter | None,
        known: Mapping[str, Mapping[Shape, Measurement]],
        store: Callable[[str, Mapping[Shape, Measurement]], None],
    ) -> None:
        self._space = space
        self._meter = meter
        self._store = store
        self.known: dict[str, dict[Shape, Measurement]] = {
            quantity: dict(values) for quantity, values in known.items()
        }

    def measure(
        self, quantity: str, shapes: Sequence[Shape], bound: float | None
    ) -> dict[Shape, Measurement]:
        """Measurements of all these shapes; new ones are taken only where none is known.

        Args:
            quantity: A property other than accuracy.
            shapes: What to measure.
            bound: In SI units: measuring may stop as soon as the side of it is sure.

        Raises:
            MeasurementUnavailable: The quantity cannot be measured here.
        """
        known = self.known.setdefault(quantity, {})
        missing = [shape for shape in shapes if shape not in known]
        # Energy is measured shape by shape, and takes seconds for each.
        size = 1 if quantity == "energy" else _BATCH
        new: dict[Shape, Measurement] = {}
        stored = time.monotonic()
        try:
            for start in range(0, len(missing), size):
                new |= self._measure(quantity, missing[start : start + size], bound)
                if time.monotonic() - stored > _STORE_EVERY:
                    self._store(quantity, new)
                    known.update(new)
                    new, stored = {}, time.monotonic()
        finally:  # An interruption, or a machine that turns noisy, loses the last batch only.
            if new:
                self._store(quantity, new)
                known.update(new)
        return {shape: known[shape] for shape in shapes}

    def _measure(
        self, quantity: str, shapes: Sequence[Shape], bound: float | None
    ) -> Mapping[Shape, Measurement]:
        if quantity in COUNTED and self._space.builder is not None:
            return {
                shape: measure_count(self._space, shape, quantity, COUNTED_FINGERPRINT)
                for shape in shapes
            }
        if self._meter is None:
            raise MeasurementUnavailable(
                f"Nothing here can measure {quantity}: the problem has no meter. Pass "
                "ShapeProblem(..., meter=DeviceMeter()), or a TableMeter or FunctionMeter."
            )
        return self._meter.measure(self._space, shapes, quantity, bound)


@dataclass(frozen=True)
class HardFilter:
    """One upper bound on one measured property, as a filter of shapes.

    Attributes:
        constraint: What is asked.
        bound: The upper bound in SI units.
        measurer: Measures, or remembers.
        mode: ``"boundary"`` measures each width from shallow to deep until it is over and infers
            that deeper shapes are over too (latency, energy and size grow with depth, though not
            always with width), checking some of the inferred; ``"exhaustive"`` measures all.
        precise: Measure the value itself, not only the side of the bound it lies on.

    Example:
        >>> from optuna_shape import TableMeter
        >>> space = DesignSpace(depth=[1, 2, 3], width=[8])
        >>> meter = TableMeter({shape: {"latency": 1e-3 * shape.depth} for shape in space.shapes})
        >>> measurer = Measurer(space, meter, known={}, store=lambda quantity, new: None)
        >>> constraint = Constraint.parse("latency <= 2 ms")
        >>> hard = HardFilter(constraint, constraint.bound, measurer)
        >>> hard(Shape(1, 8)).status
        'within'
        >>> hard(Shape(3, 8)).reason
        'latency 3 ms > 2 ms'
    """

    constraint: Constraint
    bound: float
    measurer: Measurer
    mode: Literal["boundary", "exhaustive"] = "boundary"
    precise: bool = False

    def __call__(self, shape: Shape) -> Verdict:
        """Measure one shape and say whether it is within."""
        return self._judge(shape, self._measure([shape])[shape])

    def screen(self, shapes: Sequence[Shape]) -> dict[Shape, Verdict]:
        """Verdicts on many shapes, measuring together what can be, and no more than needed."""
        if self.mode == "exhaustive":
            return {s: self._judge(s, m) for s, m in self._measure(shapes).items()}
        boundary = find_boundary(
            shapes,
            lambda batch: {s: self._side(m) for s, m in self._measure(batch).items()},
        )
        measured = self._measure(list(boundary.measured))
        verdicts = {shape: self._judge(shape, m) for shape, m in measured.items()}
        for shape, witness in boundary.inferred.items():
            known = verdicts[witness]
            verdicts[shape] = Verdict(
                "over",
                f"not measured, deeper than {witness}: {known.reason}",
                known.constraint,
                known.excess,
            )
        return verdicts

    def _measure(self, shapes: Sequence[Shape]) -> dict[Shape, Measurement]:
        bound = None if self.precise else self.bound
        return self.measurer.measure(self.constraint.property, shapes, bound)

    def _side(self, measurement: Measurement) -> bool | None:
        if measurement.high <= self.bound:
            return True
        return False if measurement.low > self.bound else None

    def _judge(self, shape: Shape, measurement: Measurement) -> Verdict:
        name, text = self.constraint.property, str(self.constraint)
        if measurement.high <= self.bound:
            return Verdict("within")
        if not math.isfinite(measurement.value):
            return Verdict("over", measurement.note, text, 1.0)
        figure = f"{name} {format_quantity(name, measurement.value)}"
        if measurement.is_estimate:
            figure += f" ({measurement.note})"
        limit = format_quantity(name, self.bound)
        if measurement.low > self.bound:
            reason = f"{figure} > {limit}"
            return Verdict("over", reason, text, _excess(measurement.high, self.bound))
        reason = (
            f"{figure} lies too close to {limit} to be sure "
            f"(interval {format_quantity(name, measurement.low)} to "
            f"{format_quantity(name, measurement.high)})"
        )
        return Verdict("undecided", reason, text, _excess(measurement.high, self.bound))


def judge(
    space: DesignSpace,
    constraints: Sequence[Constraint],
    measurer: Measurer,
    *,
    fingerprint: str,
    precise: str | None = None,
    needed: Sequence[str] = (),
    extra: Sequence[str] = (),
    filters: Sequence[ShapeFilter] = (),
    mode: Literal["boundary", "exhaustive"] = "boundary",
) -> Screening:
    """Judge every shape of a space, cheapest questions first.

    Args:
        space: The shapes.
        constraints: Upper bounds on costs; what is counted is asked before what is measured.
        measurer: Measures, or remembers.
        fingerprint: Of the meter.
        precise: A cost whose value matters, not only the side of its bound: the goal.
        needed: Quantities to have for every feasible shape besides.
        extra: Likewise, but only where they can be had.
        filters: The user's own filters, asked first.
        mode: See :class:`HardFilter`. In exhaustive mode, shapes that one constraint removed are
            measured for the others too.

    Raises:
        MeasurementUnavailable: A quantity that is constrained or needed cannot be measured.
    """
    verdicts = ask_filters(filters, space.shapes)

    def asked() -> list[Shape]:
        return [s for s in space.shapes if mode == "exhaustive" or s not in verdicts]

    bounds: dict[str, float] = {}
    for constraint in sorted(constraints, key=_dearness):
        bound = constraint.bound
        if constraint.reference is not None:
            bound *= _reference_value(constraint, measurer)
        bounds[str(constraint)] = bound
        hard = HardFilter(constraint, bound, measurer, mode, constraint.property == precise)
        for shape, verdict in hard.screen(asked()).items():
            if verdict.status != "within":
                verdicts.setdefault(shape, verdict)
    for quantity in (*needed, *extra):
        try:
            measurements = measurer.measure(quantity, asked(), None)
        except MeasurementUnavailable:
            if quantity in needed:
                raise
            continue
        for shape, measurement in measurements.items():
            # FLOPs may be uncountable where the device runs the network all the same.
            if not math.isfinite(measurement.value) and quantity != "flops":
                verdicts.setdefault(shape, Verdict("over", measurement.note, quantity, 1.0))
    complete = {shape: verdicts.get(shape, Verdict("within")) for shape in space.shapes}
    return Screening(fingerprint, bounds, complete, measurer.known)


def require_feasible(screening: Screening) -> Screening:
    """Return the screening, if there is anything to train.

    Raises:
        NoFeasibleShape: Nothing is left. The message names the nearest shape and its figure.
    """
    if not screening.feasible:
        raise NoFeasibleShape(_nothing_left(screening))
    return screening


def ask_filters(filters: Sequence[ShapeFilter], shapes: Iterable[Shape]) -> dict[Shape, Verdict]:
    """Verdicts of the user's own filters on the shapes that they exclude."""
    result = {}
    for shape in shapes:
        verdicts = (_own_verdict(own, shape) for own in filters)
        excluded = next((v for v in verdicts if v.status != "within"), None)
        if excluded is not None:
            result[shape] = excluded
    return result


class RecordedMeter:
    """Stands for the meter of a problem that was read back from a study: it can only remember."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    def measure(
        self,
        space: DesignSpace,
        shapes: Sequence[Shape],
        quantity: str,
        bound: float | None = None,
    ) -> Mapping[Shape, Measurement]:
        raise MeasurementUnavailable(
            f"The study holds no {quantity} of {shapes[0]}, and a problem read from a study "
            "cannot measure. Make the ShapeProblem with its meter to go on."
        )


def _own_verdict(own: ShapeFilter, shape: Shape) -> Verdict:
    name = getattr(own, "__name__", type(own).__name__)
    answer = own(shape)
    if isinstance(answer, Verdict):
        if answer.status == "within":
            return answer
        return Verdict(
            answer.status,
            answer.reason or f"excluded by {name}",
            answer.constraint or name,
            answer.excess if answer.excess > 0 else 1.0,
        )
    return Verdict("within") if answer else Verdict("over", f"excluded by {name}", name, 1.0)


def _verdict_from_json(status: Status, reason: str, constraint: str, excess: float) -> Verdict:
    if status not in get_args(Status):
        raise ValueError(f"{status!r} is no verdict")
    return Verdict(status, str(reason), str(constraint), float(excess))


def _dearness(constraint: Constraint) -> int:
    order = ("size", "parameters", "flops", "memory", "latency", "energy")
    return order.index(constraint.property)


def _reference_value(constraint: Constraint, measurer: Measurer) -> float:
    assert constraint.reference is not None
    reference = measurer.measure(constraint.property, [constraint.reference], None)
    measurement = reference[constraint.reference]
    if not math.isfinite(measurement.value):
        raise MeasurementUnavailable(
            f"The reference shape of '{constraint}' cannot be measured: {measurement.note}."
        )
    return measurement.value


def _excess(value: float, bound: float) -> float:
    # An interval may have no upper end; what is stored has to be a number.
    return value / bound - 1.0 if math.isfinite(value) else 1.0


def _nothing_left(screening: Screening) -> str:
    by_excess = sorted(screening.verdicts.items(), key=lambda item: (item[1].excess, item[0]))
    nearest, verdict = by_excess[0]
    counts: dict[str, int] = {}
    for other in screening.verdicts.values():
        counts[other.constraint] = counts.get(other.constraint, 0) + 1
    removed = ", ".join(f"'{name}' removes {n}" for name, n in sorted(counts.items()))
    return (
        f"None of the {len(screening.verdicts)} shapes is within the constraints: {removed}. "
        f"The nearest, {nearest}: {verdict.reason}. Loosen that constraint, "
        "or give the design space smaller depths and widths."
    )
