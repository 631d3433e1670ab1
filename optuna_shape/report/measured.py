"""The measurements of a design space, as a CSV file and as a table for the terminal."""

from __future__ import annotations

import csv
import errno
import io
import math
import os
import tempfile
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from optuna_shape.constraints import format_quantity
from optuna_shape.filters import Screening
from optuna_shape.filters import Verdict
from optuna_shape.measure.measurement import Measurement
from optuna_shape.measure.repeat import Spread
from optuna_shape.space import Shape

#: Measured with an interval; the others are exact.
_UNCERTAIN = ("latency", "energy")
_COLUMNS = ("latency", "energy", "size", "parameters", "flops", "memory")
_SHOWN = ("latency", "energy", "memory", "size", "flops")
_STYLES = {"within": "green", "over": "red", "undecided": "yellow"}


def csv_text(screening: Screening) -> str:
    """Everything that was measured, one line per shape, as a :class:`TableMeter` reads it.

    Values are in SI units. A cell is empty where nothing was measured; of a shape that is over a
    bound by inference, the lower end of the interval is that bound.
    """
    columns = _measured(screening, _COLUMNS)
    bounds = {name: screening.inferred_over(name) for name in columns}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = [title for name in columns for title in _titles(name)]
    writer.writerow(["depth", "width", *header, "verdict", "reason", "fingerprint"])
    for shape in _shapes(screening):
        cells: list[str] = []
        for name in columns:
            measurement = screening.measurements[name].get(shape)
            triple = _cells(measurement, bounds[name].get(shape))
            note = "" if measurement is None else measurement.note
            cells += [*triple, note] if name in _UNCERTAIN else triple[:1]
        verdict = screening.verdicts.get(shape)
        said = ["", ""] if verdict is None else [verdict.status, verdict.reason]
        writer.writerow([*shape, *cells, *said, screening.fingerprint])
    return text.getvalue()


def _titles(name: str) -> tuple[str, ...]:
    if name not in _UNCERTAIN:
        return (name,)
    return (name, f"{name}_low", f"{name}_high", f"{name}_note")


def write_csv(path: Path, screening: Screening) -> None:
    """Write :func:`csv_text`; a file of that name is replaced in full or not at all.

    Raises:
        OSError: It cannot be written.
    """
    write_whole(path, csv_text(screening))


def write_whole(path: Path, text: str) -> None:
    """Write beside the target first: a name never stands for half a file.

    Raises:
        OSError: It cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8", newline="")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Find out whether a file can be written, without touching one that is there.

    Raises:
        OSError: It cannot.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with tempfile.TemporaryFile(dir=path.parent):
        pass


def shape_table(screening: Screening) -> Table:
    """Latency and its interval, other costs and the verdict of each shape, for people."""
    names = _measured(screening, _SHOWN)
    judged = bool(screening.bounds) or any(
        verdict.status != "within" for verdict in screening.verdicts.values()
    )
    # Two costs with intervals have to fit into 80 columns.
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("depth", "width"):
        table.add_column(title, justify="right", no_wrap=True)
    for name in names:
        table.add_column(screening.label(name).replace(" ", "\n"), justify="right", no_wrap=True)
        if name in _UNCERTAIN:
            table.add_column("interval", style="dim", no_wrap=True)
    if judged:
        table.add_column("verdict", overflow="fold", min_width=20)
    for shape in _shapes(screening):
        cells: list[str | Text] = []
        for name in names:
            measurement = screening.measurements[name].get(shape)
            cells.append("-" if measurement is None else figure_text(name, measurement.value))
            if name in _UNCERTAIN:
                cells.append("" if measurement is None else interval_text(name, measurement))
        if judged:
            cells.append(_verdict_text(screening.verdicts.get(shape)))
        table.add_row(str(shape.depth), str(shape.width), *cells)
    return table


def session_table(latencies: Mapping[Shape, Sequence[float]]) -> Table:
    """The latency of each shape (rows), in seconds, in each session (columns)."""
    sessions = max(map(len, latencies.values()))
    table = Table(box=box.SIMPLE, pad_edge=False)
    for title in ("depth", "width", *(f"session {i}" for i in range(1, sessions + 1)), "range"):
        table.add_column(title, justify="right", no_wrap=True)
    for shape, values in latencies.items():
        figures = [figure_text("latency", value) for value in values]
        share = max(values) / min(values) - 1
        table.add_row(
            str(shape.depth),
            str(shape.width),
            *figures,
            f"{share:.1%}" if math.isfinite(share) else "",
        )
    return table


def spread_lines(spread: Spread) -> list[str]:
    """What the spread between sessions is, and which guard it suggests, if any."""
    suggested = (
        "No guard allows for that: leave the machine to this program, and measure again."
        if spread.guard is None
        else f"Suggested guard: DeviceMeter(guard={spread.guard:.3f}), "
        f"or --guard {spread.guard:.3f}."
    )
    return [
        "Distance of a session from the median of its shape: "
        f"median {spread.median:.1%}, 90th percentile {spread.ninetieth:.1%}, "
        f"largest {spread.largest:.1%}.",
        f"Standard deviation between sessions (robust): {spread.sigma:.1%}. {suggested}",
    ]


def figure_text(name: str, value: float) -> str:
    """A value in a unit for people; ``"cannot run"`` where there is none.

    Example:
        >>> figure_text("latency", 0.0021)
        '2.1 ms'
    """
    return format_quantity(name, value) if math.isfinite(value) else "cannot run"


def interval_text(name: str, measurement: Measurement) -> str:
    """The interval of a measurement, the unit once if one serves both ends.

    Example:
        >>> interval_text("latency", Measurement(0.0021, 0.002, 0.0022, 9, ""))
        '2-2.2 ms'
        >>> interval_text("latency", Measurement(0.0021, 0.0009, float("inf"), 9, ""))
        'from 900 us'
    """
    if not math.isfinite(measurement.value):
        return ""
    low = format_quantity(name, measurement.low)
    if math.isinf(measurement.high):
        return f"from {low}"
    high = format_quantity(name, measurement.high)
    number, _, unit = low.partition(" ")
    return f"{number}-{high}" if high.endswith(f" {unit}") else f"{low}-{high}"


def _measured(screening: Screening, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if screening.measurements.get(name)]


def _shapes(screening: Screening) -> list[Shape]:
    """All shapes of which anything is known; also a bound's reference outside the space."""
    measured = {shape for values in screening.measurements.values() for shape in values}
    return sorted(measured | set(screening.verdicts))


def _cells(measurement: Measurement | None, inferred: float | None) -> list[str]:
    """Value, low and high."""
    if measurement is None:
        return ["", "" if inferred is None else _number(inferred), ""]
    if math.isinf(measurement.value):
        return ["inf", "", ""]
    return [_number(x) for x in (measurement.value, measurement.low, measurement.high)]


def _number(value: float) -> str:
    # repr gives back the very same float when it is read.
    return str(int(value)) if value.is_integer() else repr(value)


def _verdict_text(verdict: Verdict | None) -> Text:
    if verdict is None:
        return Text("not judged", style="dim")
    text = f"{verdict.status}: {verdict.reason}" if verdict.reason else verdict.status
    return Text(text, style=_STYLES[verdict.status])
