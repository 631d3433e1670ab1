"""Meters that are told: a recorded table, a script of the user's own."""

from __future__ import annotations

import csv
import hashlib
import math
import os
import sys
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from typing import TypeVar

from optuna_shape.constraints import COSTS
from optuna_shape.constraints import format_quantity
from optuna_shape.errors import MeasurementUnavailable
from optuna_shape.measure._checks import is_count
from optuna_shape.measure._checks import is_positive
from optuna_shape.measure.measurement import Measurement
from optuna_shape.measure.running import out_of_memory
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape

_T = TypeVar("_T")


class _Cell(NamedTuple):
    """One cost: finite if measured, all ``inf`` if impossible, finite ``low`` if inferred."""

    value: float
    low: float
    high: float
    note: str = ""


class TableMeter:
    """Looks costs up in a table that was recorded before.

    Args:
        source:
            ``{Shape(1, 8): {"latency": 0.0021, "size": 310_000}, ...}``, or the path of a CSV file
            with the columns ``depth``, ``width`` and any of ``latency``, ``energy``, ``size``,
            ``memory``, ``parameters``, ``flops``; other columns are ignored, and empty cells are
            missing values. All in SI units: seconds, joules, bytes. ``inf`` is for shapes that
            cannot run. In a file, ``latency_low`` and ``latency_high`` (and so for every cost)
            are the interval that holds the true value; ``latency_low`` without ``latency`` says
            that the shape is over this bound, although it was not measured. So does ``optuna-shape
            measure`` write its files.

    Raises:
        MeasurementUnavailable: The table cannot be read; the message says where.

    Example:
        >>> meter = TableMeter(
        ...     {(1, 8): {"latency": 0.0021, "size": 310_000}, (2, 8): {"latency": float("inf")}}
        ... )
        >>> space = DesignSpace(depth=[1, 2], width=[8])
        >>> found = meter.measure(space, space.shapes, "latency")
        >>> found[Shape(1, 8)].value, found[Shape(2, 8)].note
        (0.0021, 'cannot run, says the table')
    """

    def __init__(
        self, source: Mapping[tuple[int, int], Mapping[str, float]] | str | os.PathLike[str]
    ) -> None:
        if isinstance(source, Mapping):
            self._table = {
                _shape(key, "The table"): {
                    name: _Cell(value, value, value)
                    for name, value in _costs(row, f"The table at {key}", limit=math.inf).items()
                }
                for key, row in source.items()
            }
        else:
            self._table = _read_csv(Path(source))
        content = repr(sorted((shape, sorted(row.items())) for shape, row in self._table.items()))
        self.fingerprint = f"table {hashlib.sha256(content.encode()).hexdigest()[:16]}"

    def measure(
        self,
        space: DesignSpace,
        shapes: Sequence[Shape],
        quantity: str,
        bound: float | None = None,
    ) -> Mapping[Shape, Measurement]:
        """Look one quantity of some shapes up.

        Raises:
            MeasurementUnavailable: The table does not hold it, or of a shape that is over a bound
                by inference no more than that, which does not answer for a looser bound.
        """
        return {shape: self._look_up(shape, quantity, bound) for shape in shapes}

    def _look_up(self, shape: Shape, quantity: str, bound: float | None) -> Measurement:
        row = self._table.get(shape)
        if row is None:
            raise MeasurementUnavailable(
                f"The table has no shape {shape}; it has {len(self._table)} others. "
                "Add its row, or take the shape out of the design space."
            )
        cell = _pick(row, quantity, f"The table has no {quantity!r} of shape {shape}")
        if math.isinf(cell.low):
            why = cell.note or "cannot run, says the table"
            return Measurement.impossible(self.fingerprint, why)
        if math.isfinite(cell.value):
            return Measurement(cell.value, cell.low, cell.high, 1, self.fingerprint, cell.note)
        over = f"inferred to be over {format_quantity(quantity, cell.low)}"
        if bound is None or bound > cell.low:
            asked = "at all" if bound is None else f"within {format_quantity(quantity, bound)}"
            raise MeasurementUnavailable(
                f"The {quantity} of shape {shape} was not measured, only {over}; the table cannot "
                f"tell it {asked}. Measure this shape too: `optuna-shape measure --mode "
                "exhaustive`."
            )
        note = f"{quantity} not measured, {over}, says the table"
        return Measurement(math.inf, cell.low, math.inf, 0, self.fingerprint, note)


class FunctionMeter:
    """Asks a function of the user's: a phone on a cable, a simulator, a formula.

    Args:
        function:
            ``function(shape)`` returns ``{"latency": seconds, "energy": joules, "size": bytes}``,
            any subset. It is called once per shape. :exc:`MemoryError` says that the shape does
            not fit.
        fingerprint:
            Names the device and its settings: measurements with another one are not reused.
            Default: the name of the function.

    Example:
        >>> def ask_phone(shape):  # A real one would run a benchmark over adb, say.
        ...     if shape.depth * shape.width > 100:
        ...         raise MemoryError
        ...     return {"latency": 1e-4 * shape.depth, "energy": 3e-5 * shape.width}
        >>> meter = FunctionMeter(ask_phone, fingerprint="my phone, flight mode")
        >>> space = DesignSpace(depth=[2, 20], width=[8])
        >>> found = meter.measure(space, space.shapes, "latency")
        >>> found[Shape(2, 8)].value, found[Shape(20, 8)].value
        (0.0002, inf)
    """

    def __init__(
        self, function: Callable[[Shape], Mapping[str, float]], *, fingerprint: str | None = None
    ) -> None:
        self._name = _name_of(function)
        self._function = function
        self._known: dict[Shape, Mapping[str, float] | None] = {}
        self.fingerprint = fingerprint or f"function {self._name}"

    def measure(
        self,
        space: DesignSpace,
        shapes: Sequence[Shape],
        quantity: str,
        bound: float | None = None,
    ) -> Mapping[Shape, Measurement]:
        """Ask for one quantity of some shapes.

        Raises:
            MeasurementUnavailable: The function raised, or returned no such quantity or no number.
        """
        return {shape: self._ask(shape, quantity) for shape in shapes}

    def _ask(self, shape: Shape, quantity: str) -> Measurement:
        asked = f"{self._name}({shape})"
        if shape not in self._known:
            self._known[shape] = self._call(shape, asked)
        row = self._known[shape]
        if row is None:
            return Measurement.impossible(self.fingerprint, f"out of memory, says {asked}")
        value = _pick(row, quantity, f"{asked} returned no {quantity!r}")
        return Measurement.exact(value, self.fingerprint)

    def _call(self, shape: Shape, asked: str) -> Mapping[str, float] | None:
        try:
            answer = self._function(shape)
        except Exception as error:
            if out_of_memory(error):
                return None
            raise MeasurementUnavailable(
                f"{asked} raised {type(error).__name__}: {error}. It must return a dictionary "
                "like {'latency': 0.002}; MemoryError says that a shape does not fit."
            ) from error
        if not isinstance(answer, Mapping):
            raise MeasurementUnavailable(
                f"{asked} returned {answer!r}. It must return a dictionary like "
                "{'latency': 0.002, 'size': 310_000}, in seconds, joules and bytes."
            )
        return _costs(answer, asked, limit=sys.float_info.max)


def _name_of(function: Callable[..., object]) -> str:
    """Name a function; one with some arguments given is another one for each of them."""
    if isinstance(function, partial):
        given = [*map(repr, function.args), *(f"{k}={v!r}" for k, v in function.keywords.items())]
        return f"{_name_of(function.func)}({', '.join(given)})"
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _costs(row: Mapping[str, object], where: str, *, limit: float) -> dict[str, float]:
    """Return the known costs of a row, checked; anything else in it is ignored."""
    costs = {}
    for name in COSTS:
        if name not in row:
            continue
        value = row[name]
        if not is_positive(value) or not value <= limit:
            raise MeasurementUnavailable(
                f"{where}: {name} is {value!r}; it must be a number above 0 in SI units "
                "(seconds, joules, bytes). Leave out what was not measured."
            )
        costs[name] = float(value)
    return costs


def _pick(row: Mapping[str, _T], quantity: str, problem: str) -> _T:
    if quantity not in row:
        raise MeasurementUnavailable(f"{problem}, only {', '.join(row) or 'nothing at all'}.")
    return row[quantity]


def _read_csv(path: Path) -> dict[Shape, dict[str, _Cell]]:
    table: dict[Shape, dict[str, _Cell]] = {}
    try:
        # "-sig" for spreadsheets, which begin their files with a byte order mark.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            missing = {"depth", "width"} - set(reader.fieldnames or ())
            if missing:
                raise MeasurementUnavailable(
                    f"{path}, line 1: no column {' and '.join(sorted(missing))}. "
                    "The first line must be like 'depth,width,latency,energy,size'."
                )
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                shape = _shape((_number(row["depth"]), _number(row["width"])), where)
                if shape in table:
                    raise MeasurementUnavailable(f"{where}: shape {shape} for a second time.")
                table[shape] = _cells(row, where)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MeasurementUnavailable(f"Cannot read the table {path}: {error}.") from error
    return table


def _cells(row: Mapping[str, str | None], where: str) -> dict[str, _Cell]:
    values = {name: _number(row[name]) for name in COSTS if row.get(name)}
    costs = _costs(values, where, limit=math.inf)
    cells = {}
    for name in COSTS:
        low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
        if name not in costs and not low:
            continue
        value = costs.get(name, math.inf)
        cell = _Cell(
            value,
            _end(low, value, f"{where}: {name}_low"),
            _end(high, value, f"{where}: {name}_high"),
            row.get(f"{name}_note") or "",
        )
        impossible = math.isinf(value) and name in costs
        if not cell.low <= value <= cell.high or math.isinf(cell.low) != impossible:
            raise MeasurementUnavailable(
                f"{where}: {name} is {row.get(name) or 'empty'} and its interval from "
                f"{cell.low:g} to {cell.high:g}. The interval must hold the value; without a "
                f"value, {name}_low alone must be the number that the shape is known to be over."
            )
        cells[name] = cell
    return cells


def _end(cell: str | None, value: float, where: str) -> float:
    """Return one end of an interval; without one, the value is exact."""
    end = _number(cell) if cell else value
    # Of a tail, too few samples say nothing but that it is above 0.
    if end == 0 or is_positive(end):
        return float(end)
    raise MeasurementUnavailable(
        f"{where} is {end!r}; it must be a number of 0 or more in SI units. "
        "Leave it empty if the value is exact."
    )


def _number(cell: str | None) -> object:
    """Return a cell as the number that it is, or as it is."""
    for number in (int, float):
        try:
            return number(cell or "")
        except ValueError:
            pass
    return cell


def _shape(key: object, where: str) -> Shape:
    if isinstance(key, tuple) and len(key) == 2 and all(is_count(n) for n in key):
        return Shape(int(key[0]), int(key[1]))
    raise MeasurementUnavailable(
        f"{where}: {key!r} is no shape; it takes two whole numbers above 0, depth and width."
    )
