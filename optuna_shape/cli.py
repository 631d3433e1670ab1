"""The command line: ``optuna-shape search`` and ``optuna-shape measure``."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shlex
import sys
import warnings
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from typing import Literal
from typing import TypeVar

import numpy as np
import optuna
import torch
import typer
from rich.console import Console
from rich.markup import escape

from optuna_shape.callbacks import ShapeTerminator
from optuna_shape.constraints import GOALS
from optuna_shape.decide.design import spread as spread_points
from optuna_shape.errors import EnergyUnavailable
from optuna_shape.errors import InvalidProblem
from optuna_shape.errors import InvalidSpace
from optuna_shape.errors import NoFeasibleShape
from optuna_shape.errors import NoisyMachine
from optuna_shape.errors import ShapeError
from optuna_shape.families import FAMILIES
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
from optuna_shape.problem import Answer
from optuna_shape.problem import ShapeProblem
from optuna_shape.pruner import ShapePruner
from optuna_shape.records import StudyRecords
from optuna_shape.report.grid_map import write_map
from optuna_shape.report.live import SearchDisplay
from optuna_shape.report.measured import check_writable
from optuna_shape.report.measured import session_table
from optuna_shape.report.measured import shape_table
from optuna_shape.report.measured import spread_lines
from optuna_shape.report.measured import write_csv
from optuna_shape.sampler import ShapeSampler
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape
from optuna_shape.train.checkpoint import load_checkpoint
from optuna_shape.train.checkpoint import save_checkpoint
from optuna_shape.train.data import DATASETS
from optuna_shape.train.data import Data
from optuna_shape.train.data import load
from optuna_shape.train.trainer import evaluate
from optuna_shape.train.trainer import train

#: What the default job asks: both bounds follow the device and the space they are measured on.
DEFAULT_CONSTRAINTS = (
    "latency <= 50 % of ({depth}, {width})",
    "size <= 50 % of ({depth}, {width})",
)

_T = TypeVar("_T")

_REPEATED = 12  # shapes
_TIMINGS: dict[str, Timing] = {"host": "host", "device": "device"}
_MODES: dict[str, Literal["boundary", "exhaustive"]] = {
    "boundary": "boundary",
    "exhaustive": "exhaustive",
}

EXIT_BAD_INPUT = 2
EXIT_NO_ANSWER = 3
EXIT_INTERRUPTED = 130

Family = Annotated[str, typer.Option(help=f"Networks to choose from: {', '.join(FAMILIES)}.")]
Depth = Annotated[
    str, typer.Option(help="Depths, such as 1-6 or 1,2,4. For resnet: blocks per stage.")
]
Width = Annotated[
    str, typer.Option(help="Widths, such as 8-12 or 8,16. For resnet: channels at first.")
]
Device = Annotated[str, typer.Option(help="Measure and train on: auto, cpu, cuda or cuda:1.")]
BatchSize = Annotated[
    int, typer.Option(min=1, help="Inputs per call whose latency and energy are measured.")
]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads, of measuring and of training.")]
MaxNoise = Annotated[
    float,
    typer.Option(help="How much this machine's pace may vary, as a share, to be measured on."),
]
Watts = Annotated[
    float | None,
    typer.Option(
        help="Power of the device under load. Energy is then no measurement, but an estimate of "
        "watts x latency.",
        show_default=False,
    ),
]
_LIMITS = (
    "A limit, may be repeated: 'latency <= 2 ms', 'size <= 500 kB', 'energy <= 40 mJ', "
    "'latency <= 60 % of (9, 16)'"
)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


@app.callback()
def _root() -> None:
    """Find the depth and width of a neural network that fits a device."""


@app.command()
def search(
    family: Family = "resnet",
    data: Annotated[
        str,
        typer.Option(
            help=f"Images to train on: {', '.join(DATASETS)}, a folder with a folder of images "
            "for each class, or a .npz file with images x and classes y."
        ),
    ] = "digits",
    data_root: Annotated[
        Path | None,
        typer.Option(
            envvar="OPTUNA_SHAPE_DATA",
            help="Folder where torchvision's data sets lie, or are downloaded to; by default "
            "~/.cache/optuna_shape.",
            show_default=False,
        ),
    ] = None,
    depth: Depth = "1-6",
    width: Width = "4,6,8,12,16,24",
    goal: Annotated[str, typer.Option(help=f"What to improve: {', '.join(GOALS)}.")] = "accuracy",
    constraint: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{_LIMITS}, 'accuracy >= 92 %'. By default half the latency and size of the "
            "largest shape.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of a full training.")] = 10,
    device: Device = "auto",
    batch_size: BatchSize = 32,
    threads: Threads = 1,
    max_noise: MaxNoise = 0.1,
    watts: Watts = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Most trials to run; no limit by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the decisions and of the trainings.")] = 0,
    output: Annotated[
        Path, typer.Option(help="Folder for the study and the trained networks.")
    ] = Path("optuna-shape-output"),
    storage: Annotated[
        str | None,
        typer.Option(help="Optuna storage, such as sqlite:///shapes.db; by default in --output."),
    ] = None,
    study_name: Annotated[
        str | None, typer.Option(help="Name of the study; by default made of the question.")
    ] = None,
) -> None:
    """Search the shape that fits the constraints best, training only a few.

    Without any option: residual networks on scikit-learn's handwritten digits, made harder.
    The same command resumes a search that was interrupted.
    """
    console = Console()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # What ended a training stands in the table; Optuna would print a traceback into it.
    logging.getLogger("optuna.study").setLevel(logging.ERROR)
    with _errors_in_a_line(console):
        with console.status("Loading the data ..."):
            images = load(data, root=data_root)
        depths, widths = _integers(depth, "--depth"), _integers(width, "--width")
        space = _choose(FAMILIES, family, "family")(
            depths,
            widths,
            input_shape=tuple(images.train_x.shape[1:]),
            classes=images.classes,
        )
        constraints = constraint or [
            text.format(depth=max(depths), width=max(widths)) for text in DEFAULT_CONSTRAINTS
        ]
        # More threads gain little on small networks, and much noise where other programs run.
        torch.set_num_threads(threads)
        meter = DeviceMeter(
            device=device,
            batch_size=batch_size,
            energy="counter" if watts is None else "estimate",
            watts=watts,
            max_noise=max_noise,
        )
        problem = ShapeProblem(
            space,
            goal=goal,
            constraints=constraints,
            meter=meter,
            epochs=epochs,
        )
        name = study_name or _study_name(problem, images)
        output.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            study_name=name,
            storage=storage or f"sqlite:///{output / 'study.db'}",
            load_if_exists=True,
            direction=problem.direction,
            sampler=ShapeSampler(problem, seed=seed),
            pruner=ShapePruner(problem),
        )
        torch_device = meter.setting.device
        _run(console, problem, study, images, output / name, torch_device, seed, trials)


@app.command()
def measure(
    family: Family = "resnet",
    depth: Depth = "1-6",
    width: Width = "4,6,8,12,16,24",
    input_shape: Annotated[
        str, typer.Option(help="Shape of one input, such as 3x32x32.")
    ] = "1x12x12",
    classes: Annotated[int, typer.Option(help="Outputs of the networks.")] = 10,
    constraint: Annotated[
        list[str] | None,
        typer.Option(help=f"{_LIMITS}. By default none.", show_default=False),
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
    console = Console()
    with _errors_in_a_line(console):
        space = _choose(FAMILIES, family, "family")(
            _integers(depth, "--depth"),
            _integers(width, "--width"),
            input_shape=_sizes(input_shape),
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
            timing=_choose(_TIMINGS, timing, "timing"),
            energy="counter" if watts is None else "estimate",
            watts=watts,
            guard=guard,
            max_noise=max_noise,
            seed=seed,
        )
        problem = ShapeProblem(
            space,
            "accuracy",
            constraint or (),
            meter=meter,
            filter_mode=_choose(_MODES, mode, "mode"),
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


def main() -> None:
    """Entry point of the ``optuna-shape`` command."""
    # GPyTorch's sparse-solver dependency compiles with an old API of torch; nobody here can act.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.jit")
    app()


def _run(
    console: Console,
    problem: ShapeProblem,
    study: optuna.Study,
    images: Data,
    folder: Path,
    device: torch.device,
    seed: int,
    trials: int | None,
) -> None:
    display = SearchDisplay(problem, study, console)
    display.question(images.name, len(images.train_x), len(images.validation_x))
    with console.status("Measuring the shapes before any training ..."):
        problem.screen(study)
    display.screening()

    objective = _objective(problem, display, images, folder, device, seed)
    if StudyRecords(study).stop() is None:
        try:
            with display.live():
                study.optimize(
                    objective,
                    n_trials=trials,
                    callbacks=[ShapeTerminator(problem), display.trial_ended],
                )
        except KeyboardInterrupt:
            display.interrupted(_command())
            raise typer.Exit(EXIT_INTERRUPTED) from None
    display.stop()
    answer = problem.best(study)
    if answer is None:
        display.no_answer()
        raise typer.Exit(EXIT_NO_ANSWER)
    checkpoint, test = _publish(problem, answer, images, folder, device)
    display.answer(answer, test, checkpoint)


def _objective(
    problem: ShapeProblem,
    display: SearchDisplay,
    images: Data,
    folder: Path,
    device: torch.device,
    seed: int,
) -> Callable[[optuna.Trial], float]:
    """Make the objective of a search whose trainings are kept in a folder."""

    def train_one(_: torch.nn.Module, trial: optuna.Trial) -> float:
        shape = Shape(trial.params["depth"], trial.params["width"])
        earlier = len(StudyRecords(trial.study).history().accuracies.get(shape, []))
        # A shape begins with the same weights in every search, a replicate with others. The seed
        # is known only now, so the network is built again.
        torch.manual_seed(seed + earlier)
        model = problem.space.build(shape)

        def report(epoch: int, accuracy: float) -> None:
            display.epoch(trial, epoch, accuracy)
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned(trial.user_attrs.get("reason", "cut short"))

        accuracy = train(
            model,
            images,
            epochs=problem.epochs or 1,
            seed=seed + earlier,
            device=device,
            report=report,
            progress=folder / f"progress-{shape.depth}x{shape.width}-{earlier}.safetensors",
        )
        save_checkpoint(folder / f"trial-{trial.number}", model, problem.space, shape, {})
        return accuracy

    return problem.objective(train_one)


def _publish(
    problem: ShapeProblem, answer: Answer, images: Data, folder: Path, device: torch.device
) -> tuple[Path | None, float | None]:
    """Save the answer under a name of its own, and look at the test set, this once."""
    source = folder / f"trial-{answer.trial.number}"
    try:
        model, _ = load_checkpoint(source)
    except ShapeError:
        return None, None  # Another worker trained it, in a folder that is not here.
    test = evaluate(model.to(device), images.test_x.to(device), images.test_y.to(device))
    properties = {name: value for name in GOALS if (value := getattr(answer, name)) is not None}
    target = folder / "answer"
    save_checkpoint(
        target, model, problem.space, answer.shape, {**properties, "test_accuracy": test}
    )
    return target, test


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
                console.print(kept, highlight=False, markup=False, soft_wrap=True)
                raise
            console.print(f"Interrupted. {kept}", highlight=False, markup=False, soft_wrap=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
    with _writing(output):
        write_csv(output, grid)
        write_map(picture, space, grid)
    lines = [f"Written: {output} for TableMeter, {picture} as a picture."]
    if problem.constraints:
        lines.insert(0, f"{len(grid.feasible)} of {len(space)} shapes are within every limit.")
    console.print(f"Measured on {escape(grid.fingerprint)}", highlight=False)
    console.print(shape_table(grid), highlight=False)
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


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
    for line in spread_lines(spread(latencies)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
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


@contextlib.contextmanager
def _errors_in_a_line(console: Console) -> Iterator[None]:
    """What a user can mend is said in one line; anything else keeps its traceback."""
    try:
        yield
    except NoisyMachine as error:
        hint = " Here: --max-noise 0.5, say." if "max_noise" in str(error) else ""
        console.print(f"[red]NoisyMachine:[/] {escape(str(error))}{hint}", highlight=False)
        raise typer.Exit(EXIT_NO_ANSWER) from None
    except NoFeasibleShape as error:
        console.print(f"[red]{type(error).__name__}:[/] {escape(str(error))}", highlight=False)
        raise typer.Exit(EXIT_NO_ANSWER) from None
    except EnergyUnavailable as error:
        console.print(
            f"[red]EnergyUnavailable:[/] {escape(str(error))} Here: --watts 45.", highlight=False
        )
        raise typer.Exit(EXIT_BAD_INPUT) from None
    except ShapeError as error:
        console.print(f"[red]{type(error).__name__}:[/] {escape(str(error))}", highlight=False)
        raise typer.Exit(EXIT_BAD_INPUT) from None


def _integers(text: str, option: str) -> list[int]:
    """Read ``1-6`` or ``1,2,4`` or both mixed."""
    result: list[int] = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        try:
            result += range(int(low), int(high) + 1) if dash else [int(low)]
        except ValueError:
            raise InvalidSpace(
                f"{option} {text!r} is no list of integers; write it like 1-6 or 4,8,16."
            ) from None
    return result


def _sizes(text: str) -> tuple[int, ...]:
    """Read ``3x32x32``."""
    try:
        return tuple(int(size) for size in text.split("x"))
    except ValueError:
        raise InvalidSpace(
            f"--input-shape {text!r} is no shape of one input; write it like 3x32x32."
        ) from None


def _choose(registry: Mapping[str, _T], name: str, kind: str) -> _T:
    if name not in registry:
        raise InvalidProblem(f"Unknown {kind} {name!r}. Known are {', '.join(sorted(registry))}.")
    return registry[name]


def _study_name(problem: ShapeProblem, images: Data) -> str:
    """The same question finds its study again; another one gets its own."""
    question = json.dumps(
        [problem.describe(), problem.fingerprint, images.name, images.digest], sort_keys=True
    )
    digest = hashlib.sha256(question.encode()).hexdigest()[:6]
    return f"{problem.space.name}-{images.name}-{problem.goal}-{digest}"


def _command() -> str:
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
