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
from pathlib import Path

from optuna_shape.constraints import COSTS
from optuna_shape.errors import MeasurementUnavailable
from optuna_shape.measure._checks import is_count
from optuna_shape.measure._checks import is_positive
from optuna_shape.measure.measurement import Measurement
from optuna_shape.measure.running import out_of_memory
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape


class TableMeter:
    """Looks costs up in a table that was recorded before.

    Args:
        source:
            ``{Shape(1, 8): {"latency": 0.0021, "size": 310_000}, ...}``, or the path of a CSV file
            with the columns ``depth``, ``width`` and any of ``latency``, ``energy``, ``size``,
            ``memory``, ``parameters``, ``flops``; other columns are ignored, and empty cells are
            missing values. All in SI units: seconds, joules, bytes. ``inf`` is for shapes that
            cannot run.

    Raises:
        MeasurementUnavailable: The table cannot be read; the message says where.

    Example:
        >>> meter = TableMeter({(1, 8): {"latency": 0.0021}})
        >>> meter.measure(DesignSpace([1], [8]), [Shape(1, 8)], "latency")[Shape(1, 8)].value
        0.0021
    """

    def __init__(
        self, source: Mapping[tuple[int, int], Mapping[str, float]] | str | os.PathLike[str]
    ) -> None:
        if isinstance(source, Mapping):
            self._table = {
                _shape(key, "The table"): _costs(row, f"The table at {key}", limit=math.inf)
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
            MeasurementUnavailable: The table does not hold it.
        """
        return {shape: self._look_up(shape, quantity) for shape in shapes}

    def _look_up(self, shape: Shape, quantity: str) -> Measurement:
        row = self._table.get(shape)
        if row is None:
            raise MeasurementUnavailable(
                f"The table has no shape {shape}; it has {len(self._table)} others. "
                "Add its row, or take the shape out of the design space."
            )
        value = _pick(row, quantity, f"The table has no {quantity!r} of shape {shape}")
        if math.isinf(value):
            return Measurement.impossible(self.fingerprint, "cannot run, says the table")
        return Measurement.exact(value, self.fingerprint)


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
    """

    def __init__(
        self, function: Callable[[Shape], Mapping[str, float]], *, fingerprint: str | None = None
    ) -> None:
        named = function if hasattr(function, "__qualname__") else type(function)
        self._name = f"{named.__module__}.{named.__qualname__}"
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


def _pick(row: Mapping[str, float], quantity: str, problem: str) -> float:
    if quantity not in row:
        raise MeasurementUnavailable(f"{problem}, only {', '.join(row) or 'nothing at all'}.")
    return row[quantity]


def _read_csv(path: Path) -> dict[Shape, dict[str, float]]:
    table: dict[Shape, dict[str, float]] = {}
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
                cells = {name: _number(row[name]) for name in COSTS if row.get(name)}
                table[shape] = _costs(cells, where, limit=math.inf)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MeasurementUnavailable(f"Cannot read the table {path}: {error}.") from error
    return table


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
