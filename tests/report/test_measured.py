from __future__ import annotations

import contextlib
import csv
import math
import re
from pathlib import Path

import optuna
import pytest
from problems import table
from rich.console import Console

from optuna_shape import Constraint
from optuna_shape import DesignSpace
from optuna_shape import DeviceMeter
from optuna_shape import Measurement
from optuna_shape import MeasurementUnavailable
from optuna_shape import Screening
from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape import TableMeter
from optuna_shape import Verdict
from optuna_shape.filters import Measurer
from optuna_shape.filters import judge
from optuna_shape.measure.counting import COUNTED
from optuna_shape.measure.repeat import spread
from optuna_shape.report.grid_map import grid_map
from optuna_shape.report.grid_map import write_map
from optuna_shape.report.measured import csv_text
from optuna_shape.report.measured import shape_table
from optuna_shape.report.measured import spread_lines
from optuna_shape.report.measured import write_csv

SPACE = DesignSpace(range(1, 7), [4, 8, 16], name="formula")
LIMITS = ("latency <= 0.5 ms", "size <= 300 kB")
A, B, C = Shape(1, 8), Shape(2, 8), Shape(3, 8)


def measured(mode: str, *limits: str, energy: bool = False) -> Screening:
    meter = table(SPACE)
    measurer = Measurer(SPACE, meter, {}, lambda quantity, new: None)
    for quantity in COUNTED:
        with contextlib.suppress(MeasurementUnavailable):
            measurer.measure(quantity, SPACE.shapes, None)
    return judge(
        SPACE,
        [Constraint.parse(text) for text in limits],
        measurer,
        fingerprint=meter.fingerprint,
        needed=("latency", "energy") if energy else ("latency",),
        mode=mode,  # type: ignore[arg-type]
    )


def read(screening: Screening, tmp_path: Path) -> dict[Shape, dict[str, str]]:
    path = tmp_path / "shapes.csv"
    write_csv(path, screening)
    with path.open(newline="") as file:
        return {Shape(int(r["depth"]), int(r["width"])): r for r in csv.DictReader(file)}


def test_without_limits_every_shape_is_measured_and_within() -> None:
    grid = measured("boundary")
    assert set(grid.measurements["latency"]) == set(SPACE.shapes) == set(grid.feasible)
    assert "energy" not in grid.measurements
    assert set(measured("boundary", energy=True).measurements["energy"]) == set(SPACE.shapes)


def test_the_boundary_takes_fewer_measurements_to_the_same_verdicts() -> None:
    few, all_ = measured("boundary", *LIMITS), measured("exhaustive", *LIMITS)
    assert few.feasible == all_.feasible
    assert set(all_.measurements["latency"]) == set(SPACE.shapes)
    assert len(few.measurements["latency"]) < len(SPACE)
    inferred = few.inferred_over("latency")
    assert inferred
    assert set(inferred.values()) == {0.5e-3}
    assert not set(inferred) & set(few.measurements["latency"])


def test_nothing_within_is_no_error() -> None:
    assert measured("boundary", "latency <= 1 us").feasible == ()


@pytest.mark.parametrize("mode", ["boundary", "exhaustive"])
@pytest.mark.parametrize(
    "limits", [(), LIMITS, ("latency <= 60 % of (4, 8)",), ("energy <= 9 mJ", "latency <= 0.6 ms")]
)
def test_a_search_elsewhere_comes_to_the_same_verdicts(
    tmp_path: Path, mode: str, limits: tuple[str, ...]
) -> None:
    grid = measured(mode, *limits)
    path = tmp_path / "shapes.csv"
    write_csv(path, grid)
    # No `build`: the file alone has to tell.
    problem = ShapeProblem(
        DesignSpace(SPACE.depths, SPACE.widths),
        "accuracy",
        limits,
        meter=TableMeter(path),
        filter_mode=mode,  # type: ignore[arg-type]
    )
    screening = problem.screen(optuna.create_study(direction="maximize"))
    assert screening.verdicts == grid.verdicts
    assert screening.bounds == grid.bounds


def test_a_search_that_asks_of_every_shape_believes_what_was_inferred(tmp_path: Path) -> None:
    path = tmp_path / "shapes.csv"
    write_csv(path, measured("boundary", "latency <= 0.5 ms"))

    def screen(limit: str) -> Screening:
        problem = ShapeProblem(
            SPACE, "accuracy", [limit], meter=TableMeter(path), filter_mode="exhaustive"
        )
        return problem.screen(optuna.create_study(direction="maximize"))

    assert screen("latency <= 0.5 ms").feasible == measured("exhaustive", LIMITS[0]).feasible
    deepest = screen("latency <= 0.4 ms").verdicts[Shape(6, 16)]
    assert deepest.status == "over"
    assert "not measured, inferred to be over 500 us" in deepest.reason
    with pytest.raises(MeasurementUnavailable, match="--mode exhaustive"):
        screen("latency <= 0.6 ms")


def uncertain() -> Screening:
    """One shape each that is within, undecided, over by inference, and impossible."""
    measurements = {
        "latency": {
            A: Measurement(1 / 3000, 0.0003, 0.0004, 12, "device"),
            B: Measurement(0.001, 0.0009, math.inf, 12, "device"),
            Shape(1, 16): Measurement.impossible("device", "out of memory"),
        },
        "size": {s: Measurement.exact(1000.0, "counted") for s in (A, B, C, Shape(1, 16))},
    }
    text = "latency <= 950 us"
    verdicts = {
        A: Verdict("within"),
        B: Verdict("undecided", "too close", text, 1.0),
        C: Verdict("over", "not measured, deeper than (2, 8)", text, 1.0),
        Shape(1, 16): Verdict("over", "out of memory", text, 1.0),
    }
    return Screening("device, 1 thread", {text: 0.00095}, verdicts, measurements)


def test_the_file_holds_intervals_bounds_and_reasons(tmp_path: Path) -> None:
    rows = read(uncertain(), tmp_path)
    assert list(rows) == [A, Shape(1, 16), B, C]
    assert [*rows[A]] == [
        *("depth", "width", "latency", "latency_low", "latency_high", "latency_note", "size"),
        *("verdict", "reason", "fingerprint"),
    ]
    assert float(rows[A]["latency"]) == 1 / 3000
    assert rows[B]["latency_high"] == "inf"
    assert (rows[C]["latency"], rows[C]["latency_low"], rows[C]["latency_high"]) == (
        *("", "0.00095", ""),
    )
    assert rows[Shape(1, 16)]["latency"] == "inf"
    assert rows[A]["size"] == "1000"
    assert (rows[B]["verdict"], rows[B]["reason"]) == ("undecided", "too close")
    assert {row["fingerprint"] for row in rows.values()} == {"device, 1 thread"}


def test_intervals_come_back_as_they_were(tmp_path: Path) -> None:
    write_csv(tmp_path / "shapes.csv", uncertain())
    meter = TableMeter(tmp_path / "shapes.csv")
    before = uncertain().measurements["latency"]
    for shape, now in meter.measure(SPACE, list(before), "latency").items():
        then = before[shape]
        assert (now.value, now.low, now.high) == (then.value, then.low, then.high)


def test_what_was_measured_before_an_interruption_is_written_without_verdicts() -> None:
    whole = uncertain()
    text = csv_text(Screening(whole.fingerprint, {}, {}, whole.measurements))
    assert "undecided" not in text
    assert len(text.splitlines()) == 5
    console = Console(width=120, record=True, quiet=True)
    console.print(shape_table(Screening(whole.fingerprint, {}, {}, whole.measurements)))


def test_a_file_is_replaced_in_full_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "shapes.csv"
    write_csv(path, uncertain())
    write_csv(path, measured("boundary"))
    assert "undecided" not in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["shapes.csv"]


def test_the_table_shows_each_shape_with_its_verdict() -> None:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(shape_table(uncertain()))
    text = capture.get()
    for said in ("333 us", "300-400 us", "from 900 us", "cannot run", "1 kB", "undecided: too"):
        assert said in text, said


def test_the_picture_tells_within_over_and_not_measured_apart(tmp_path: Path) -> None:
    grid = measured("boundary", *LIMITS)
    figure = grid_map(SPACE, grid)
    veil = figure.data[1]
    for row, depth in enumerate(SPACE.depths):
        for column, width in enumerate(SPACE.widths):
            within = grid.verdicts[Shape(depth, width)].status == "within"
            assert veil.z[row][column] == float(not within)
            assert veil.text[row][column].startswith(f"depth {depth}, width {width}<br>")
    named = {trace.name: trace for trace in figure.data if trace.name}
    assert set(named) == {"latency not measured", "boundary of what is within"}
    (written,) = figure.select_traces({"mode": "text"})
    assert len(written.text) == len(grid.measurements["latency"])
    write_map(tmp_path / "shapes.html", SPACE, grid)
    html = (tmp_path / "shapes.html").read_text()
    assert "cdn.plot.ly" not in html.split("</script>")[0][:2000]
    assert len(html) > 1_000_000  # The library itself is inside.


def test_the_boundary_runs_between_within_and_not_within() -> None:
    space = DesignSpace([1, 2], [4, 8])
    verdicts = {s: Verdict("within" if s != Shape(2, 8) else "over") for s in space.shapes}
    figure = grid_map(space, Screening("", {}, verdicts, {}))
    (line,) = figure.select_traces({"name": "boundary of what is within"})
    segments = {tuple(zip(line.x[i : i + 2], line.y[i : i + 2])) for i in range(0, len(line.x), 3)}
    assert segments == {((0.5, 0.5), (0.5, 1.5)), ((0.5, 0.5), (1.5, 0.5))}


def test_a_picture_without_limits_has_no_boundary() -> None:
    figure = grid_map(SPACE, measured("boundary"))
    assert not [trace.name for trace in figure.data if trace.name]


def test_an_estimate_stays_one_in_a_file(tmp_path: Path) -> None:
    shape = Shape(1, 4)
    estimate = Measurement(0.5, 0.4, 0.6, 9, "f", "estimate: 45 W x latency")
    memory = Measurement.exact(123456, "f")
    known = {"energy": {shape: estimate}, "memory": {shape: memory}}
    path = tmp_path / "shapes.csv"
    write_csv(path, Screening("f", {}, {}, known))
    table = TableMeter(path)
    read_back = table.measure(SPACE, [shape], "energy")[shape]
    assert (read_back.low, read_back.high) == (0.4, 0.6)
    assert read_back.is_estimate
    assert table.measure(SPACE, [shape], "memory")[shape].value == 123456


@pytest.mark.parametrize("second", [1.0, 1.1, 1.5])
def test_a_suggested_guard_is_one_that_a_meter_takes(second: float) -> None:
    text = " ".join(spread_lines(spread({A: [1.0, second]})))
    (guard,) = re.findall(r"--guard ([0-9.]+)\.$", text)
    DeviceMeter("cpu", guard=float(guard))


def test_sessions_that_are_far_apart_suggest_no_guard() -> None:
    text = " ".join(spread_lines(spread({A: [1.0, 3.0]})))
    assert "sessions (robust): 115.2%. No guard allows for that: leave the machine" in text
    assert "--guard" not in text
