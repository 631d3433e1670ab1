"""``optuna-shape measure``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from typing import Literal

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape

from optuna_shape.cli._common import EXIT_INTERRUPTED
from optuna_shape.cli._common import LIMITS
from optuna_shape.cli._common import BatchSize
from optuna_shape.cli._common import Depth
from optuna_shape.cli._common import Device
from optuna_shape.cli._common import Family
from optuna_shape.cli._common import FamilyOption
from optuna_shape.cli._common import MaxNoise
from optuna_shape.cli._common import Threads
from optuna_shape.cli._common import Watts
from optuna_shape.cli._common import Width
from optuna_shape.cli._common import choose
from optuna_shape.cli._common import errors_in_a_line
from optuna_shape.cli._common import integers
from optuna_shape.cli._common import make_console
from optuna_shape.cli._common import say
from optuna_shape.cli._common import sizes
from optuna_shape.cli._space import check_network
from optuna_shape.cli._space import make_space
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
from optuna_shape.report.measured import check_writable
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
    input_shape: Annotated[
        str, typer.Option(help="Shape of one input, such as 3x32x32.")
    ] = "1x12x12",
    classes: Annotated[int, typer.Option(help="Outputs of the networks.")] = 10,
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
    guard: Annotated[
        float | None,
        typer.Option(
            help="Difference between sessions to allow for, as a share; --repeat suggests one. "
            "By default 0.05 on a CPU and 0.02 on CUDA.",
            show_default=False,
        ),
    ] = None,
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
    seed: Annotated[int, typer.Option(help="Of weights, inputs and order of measuring.")] = 0,
    output: Annotated[
        Path, typer.Option(help="CSV file to write; a picture in HTML is written beside it.")
    ] = Path("optuna-shape-output/shapes.csv"),
) -> None:
    """Measure the shapes of a family on this device, without training any.

    Prints a table and writes it as CSV, which `TableMeter` reads: a search on another machine can
    decide by it. Without limits, every shape is measured.
    """
    console = make_console()
    with errors_in_a_line(console):
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
            _measure(console, problem, meter, energy, output)
        elif problem.constraints or energy:
            raise InvalidProblem(
                "--repeat compares latencies, without limits; leave --constraint and --energy out."
            )
        else:
            _repeat(console, space, meter, repeat)


def _measure(
    console: Console, problem: ShapeProblem, meter: DeviceMeter, energy: bool, output: Path
) -> None:
    """Measure a grid; what was measured is written also if this is interrupted."""
    space = problem.space
    with _writing(output):  # Before minutes of measuring, not after.
        output.parent.mkdir(parents=True, exist_ok=True)
        check_writable(output)
    picture = output.with_suffix(".html")
    if picture == output:
        raise InvalidProblem(f"--output {output} names the CSV file; let it end in .csv.")
    if energy and meter.watts is None:
        find_counter(meter.setting.device)  # Likewise.
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
            with _writing(partial):
                write_csv(partial, Screening(meter.fingerprint, {}, {}, measurer.known))
            kept = f"What was measured is kept in {partial}, without verdicts."
            if not isinstance(error, KeyboardInterrupt):
                say(console, kept)
                raise
            say(console, f"Interrupted. {kept}")
            raise typer.Exit(EXIT_INTERRUPTED) from None
    with _writing(output):
        write_csv(output, grid)
        write_map(picture, space, grid)
    lines = [f"Written: {output} for TableMeter, {picture} as a picture."]
    if problem.constraints:
        lines.insert(0, f"{len(grid.feasible)} of {len(space)} shapes are within every limit.")
    console.print(f"Measured on {escape(grid.fingerprint)}", highlight=False)
    console.print(shape_table(grid), highlight=False)
    say(console, *lines)


def _repeat(console: Console, space: DesignSpace, meter: DeviceMeter, repeat: int) -> None:
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
        console.print(f"Interrupted; {len(sessions)} of {repeat} sessions are complete.")
        if len(sessions) < 2:
            raise typer.Exit(EXIT_INTERRUPTED) from None
    latencies = {shape: [session[shape].value for session in sessions] for shape in shapes}
    console.print(f"Measured on {escape(meter.fingerprint)}", highlight=False)
    console.print(session_table(latencies), highlight=False)
    say(console, *spread_lines(spread(latencies)))
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


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise typer.BadParameter(
            f"Cannot write {path}: {error.strerror}. Name a file in a folder of your own.",
            param_hint="--output",
        ) from None
