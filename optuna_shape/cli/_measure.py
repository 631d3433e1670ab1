"""``optuna-shape measure``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated
from typing import Literal

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape

from optuna_shape.cli._common import EXIT_INTERRUPTED
from optuna_shape.cli._common import choose
from optuna_shape.cli._common import integers
from optuna_shape.cli._common import make_console
from optuna_shape.cli._common import make_room
from optuna_shape.cli._common import say
from optuna_shape.cli._common import say_json
from optuna_shape.cli._common import sizes
from optuna_shape.cli._common import writing
from optuna_shape.cli._declared import LIMITS
from optuna_shape.cli._declared import AsJson
from optuna_shape.cli._declared import BatchSize
from optuna_shape.cli._declared import Classes
from optuna_shape.cli._declared import Depth
from optuna_shape.cli._declared import Device
from optuna_shape.cli._declared import Family
from optuna_shape.cli._declared import FamilyOption
from optuna_shape.cli._declared import Guard
from optuna_shape.cli._declared import InputShape
from optuna_shape.cli._declared import MaxNoise
from optuna_shape.cli._declared import Quiet
from optuna_shape.cli._declared import Seed
from optuna_shape.cli._declared import Threads
from optuna_shape.cli._declared import Watts
from optuna_shape.cli._declared import Width
from optuna_shape.cli._space import check_network
from optuna_shape.cli._space import make_space
from optuna_shape.cli._studies import OUTPUT
from optuna_shape.cli._studies import notes_of_estimates
from optuna_shape.decide.design import spread as spread_points
from optuna_shape.errors import InvalidProblem
from optuna_shape.filters import Measurer
from optuna_shape.filters import Screening
from optuna_shape.filters import judge
from optuna_shape.measure import DeviceMeter
from optuna_shape.measure import Measurement
from optuna_shape.measure.counters import find_counter
from optuna_shape.measure.counting import COUNTED
from optuna_shape.measure.elsewhere import measure_elsewhere
from optuna_shape.measure.repeat import spread
from optuna_shape.measure.running import Timing
from optuna_shape.problem import ShapeProblem
from optuna_shape.report.grid_map import write_map
from optuna_shape.report.measured import session_table
from optuna_shape.report.measured import shape_table
from optuna_shape.report.measured import spread_lines
from optuna_shape.report.measured import write_csv
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape

_REPEATED = 12  # shapes
_TIMINGS: dict[str, Timing] = {"host": "host", "device": "device"}
_MODES: dict[str, Literal["boundary", "exhaustive"]] = {
    "boundary": "boundary",
    "exhaustive": "exhaustive",
}


def measure(
    family: Family = "resnet",
    family_option: FamilyOption = None,
    depth: Depth = None,
    width: Width = None,
    input_shape: InputShape = "1x12x12",
    classes: Classes = 10,
    constraint: Annotated[
        list[str] | None,
        typer.Option(help=f"{LIMITS}. By default none.", show_default=False),
    ] = None,
    device: Device = "auto",
    batch_size: BatchSize = 32,
    threads: Threads = 1,
    max_noise: MaxNoise = 0.1,
    quantile: Annotated[
        float, typer.Option(help="Of the latency: 0.5, or a tail such as 0.9.")
    ] = 0.5,
    guard: Guard = None,
    dtype: Annotated[
        str, typer.Option(help="Of weights and inputs, such as float32 or bfloat16.")
    ] = "float32",
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Images in memory with the channels last.")
    ] = False,
    compile: Annotated[
        bool, typer.Option("--compile", help="Run the networks under torch.compile.")
    ] = False,
    timing: Annotated[
        str,
        typer.Option(
            help="host: what a program waits for; device: what a CUDA device takes for a CUDA "
            "graph of the call."
        ),
    ] = "host",
    watts: Watts = None,
    mode: Annotated[
        str,
        typer.Option(
            help="boundary: measure no more than the verdicts take; exhaustive: every shape."
        ),
    ] = "boundary",
    energy: Annotated[
        bool, typer.Option("--energy", help="Measure energy too, also where no limit asks for it.")
    ] = False,
    repeat: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Instead of the table: the latency of up to 12 shapes in as many processes of "
            "their own, and how far these lie apart (A/A).",
        ),
    ] = None,
    seed: Seed = 0,
    output: Annotated[
        Path, typer.Option(help="CSV file to write; a picture in HTML is written beside it.")
    ] = Path(OUTPUT, "shapes.csv"),
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Measure the shapes of a family on this device, without training any.

    Prints a table and writes it as CSV, which `TableMeter` reads: a search on another machine can
    decide by it. Without limits, every shape is measured.
    """
    console = make_console(quiet=quiet or as_json)
    space = make_space(
        family,
        family_option or (),
        depth=integers(depth, "--depth"),
        width=integers(width, "--width"),
        input_shape=sizes(input_shape),
        classes=classes,
    )
    meter = DeviceMeter(
        device=device,
        batch_size=batch_size,
        quantile=quantile,
        dtype=dtype,
        channels_last=channels_last,
        compile=compile,
        threads=threads,
        timing=choose(_TIMINGS, timing, "timing"),
        energy="counter" if watts is None else "estimate",
        watts=watts,
        guard=guard,
        max_noise=max_noise,
        seed=seed,
    )
    check_network(family, space, classes, meter.setting.device)
    problem = ShapeProblem(
        space,
        "accuracy",
        constraint or (),
        meter=meter,
        filter_mode=choose(_MODES, mode, "mode"),
    )
    if problem.accuracy_bound is not None:
        raise InvalidProblem(
            "Accuracy is learned by training, and nothing is trained here; leave "
            f"'{next(c for c in problem.constraints if c.property == 'accuracy')}' out of "
            "measure."
        )
    energy = energy or any(c.property == "energy" for c in problem.constraints)
    if repeat is None:
        grid, files = _measure(console, problem, meter, energy, output)
        if as_json:
            say_json(_as_json(problem, grid, files))
        else:
            _show(console, make_console(), problem, grid, files)
    elif problem.constraints or energy:
        raise InvalidProblem(
            "--repeat compares latencies, without limits; leave --constraint and --energy out."
        )
    else:
        _repeat(console, space, meter, repeat, as_json)


def _measure(
    console: Console, problem: ShapeProblem, meter: DeviceMeter, energy: bool, output: Path
) -> tuple[Screening, tuple[Path, Path]]:
    """Measure a grid, and write it; what was measured is written also if this is interrupted."""
    space = problem.space
    if output.suffix.lower() != ".csv":
        raise InvalidProblem(f"--output {output} names the CSV file; let it end in .csv.")
    if energy and meter.watts is None:
        find_counter(meter.setting.device)  # Before minutes of measuring, not after.
    make_room(output)  # Likewise.
    with console.status("Measuring the shapes ...") as status:

        def say_progress(quantity: str, new: Mapping[Shape, Measurement]) -> None:
            done = len(measurer.known[quantity]) + len(new)
            status.update(f"Measuring {quantity}: {done} of {len(space)} shapes so far ...")

        measurer = Measurer(space, meter, {}, say_progress)
        try:
            for quantity in COUNTED:
                measurer.measure(quantity, space.shapes, None)
            grid = judge(
                space,
                problem.hard_constraints,
                measurer,
                fingerprint=meter.fingerprint,
                needed=("latency", "energy") if energy else ("latency",),
                mode=problem.filter_mode,
            )
        except BaseException as error:
            # Beside the output: that may hold more, from before.
            partial = output.with_suffix(f".partial{output.suffix}")
            with writing(partial):
                write_csv(partial, Screening(meter.fingerprint, {}, {}, measurer.known))
            said = "Interrupted. " if isinstance(error, KeyboardInterrupt) else ""
            kept = f"{said}What was measured is kept in {partial}, without verdicts."
            say(make_console(stderr=True), kept)
            raise
    picture = output.with_suffix(".html")
    with writing(output):
        write_csv(output, grid)
        write_map(picture, space, grid)
    return grid, (output, picture)


def _show(
    console: Console, last: Console, problem: ShapeProblem, grid: Screening, files: Sequence[Path]
) -> None:
    console.print(f"Measured on {escape(grid.fingerprint)}", highlight=False)
    console.print(shape_table(grid), highlight=False)
    if problem.constraints:
        feasible, shapes = len(grid.feasible), len(problem.space)
        say(last, f"{feasible} of {shapes} shapes are within every limit.")
    say(last, f"Written: {files[0]} for TableMeter, {files[1]} as a picture.")


def _as_json(problem: ShapeProblem, grid: Screening, files: Sequence[Path]) -> dict[str, object]:
    """What was measured of each shape; null where it cannot run, or was not measured."""
    rows = []
    for shape in problem.space.shapes:
        row: dict[str, object] = {**shape._asdict()}
        for name, known in grid.measurements.items():
            ends = ("value",) if name in COUNTED else ("value", "low", "high")
            for end in ends:
                key = name if end == "value" else f"{name}_{end}"
                row[key] = _finite(getattr(known.get(shape), end, None))
        verdict = grid.verdicts.get(shape)
        row |= notes_of_estimates(grid, shape)
        rows.append({**row, "verdict": None if verdict is None else verdict.status})
    return {
        "fingerprint": grid.fingerprint,
        "constraints": [str(constraint) for constraint in problem.constraints],
        "feasible": len(grid.feasible),
        "rows": rows,
        "written": [str(path) for path in files],
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _repeat(
    console: Console, space: DesignSpace, meter: DeviceMeter, repeat: int, as_json: bool
) -> None:
    """Measure some shapes in several processes, and show how far these lie apart."""
    shapes = _spread_out(space, _REPEATED)
    sessions: list[Mapping[Shape, Measurement]] = []
    try:
        with console.status("") as status:
            for number in range(1, repeat + 1):
                status.update(
                    f"Session {number} of {repeat}: measuring {len(shapes)} shapes "
                    "in a process of its own ..."
                )
                sessions.append(measure_elsewhere(meter, space, shapes, "latency"))
    except KeyboardInterrupt:
        said = f"Interrupted; {len(sessions)} of {repeat} sessions are complete."
        say(make_console(stderr=True), said)
        if len(sessions) < 2:
            raise
    latencies = {shape: [session[shape].value for session in sessions] for shape in shapes}
    found = spread(latencies)
    if as_json:
        rows = [
            {**shape._asdict(), "latencies": [_finite(value) for value in values]}
            for shape, values in latencies.items()
        ]
        say_json(
            {"fingerprint": meter.fingerprint, "sessions": len(sessions), "rows": rows}
            | {**asdict(found), "guard": found.guard}
        )
    else:
        console.print(f"Measured on {escape(meter.fingerprint)}", highlight=False)
        console.print(session_table(latencies), highlight=False)
        say(make_console(), *spread_lines(found))
    if len(sessions) < repeat:
        raise typer.Exit(EXIT_INTERRUPTED)


def _spread_out(space: DesignSpace, count: int) -> list[Shape]:
    """Up to ``count`` shapes of a space that lie far from each other.

    Example:
        >>> [tuple(shape) for shape in _spread_out(DesignSpace([1, 2, 3], [8, 16, 24]), 4)]
        [(1, 8), (1, 24), (3, 8), (3, 24)]
    """
    rows, columns = len(space.depths), len(space.widths)
    # By place in the grid, as widths often double from one to the next.
    places = np.array([(i / rows, j / columns) for i in range(rows) for j in range(columns)])
    return sorted(space.shapes[i] for i in spread_points(places, count))
