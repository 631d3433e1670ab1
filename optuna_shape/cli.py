"""The command line: ``optuna-shape search``."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shlex
import sys
import warnings
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from typing import TypeVar

import optuna
import torch
import typer
from rich.console import Console
from rich.markup import escape

from optuna_shape.callbacks import ShapeTerminator
from optuna_shape.constraints import GOALS
from optuna_shape.errors import InvalidProblem
from optuna_shape.errors import InvalidSpace
from optuna_shape.errors import NoFeasibleShape
from optuna_shape.errors import NoisyMachine
from optuna_shape.errors import ShapeError
from optuna_shape.families import FAMILIES
from optuna_shape.measure import DeviceMeter
from optuna_shape.problem import Answer
from optuna_shape.problem import ShapeProblem
from optuna_shape.pruner import ShapePruner
from optuna_shape.records import StudyRecords
from optuna_shape.report.live import SearchDisplay
from optuna_shape.sampler import ShapeSampler
from optuna_shape.train.checkpoint import load_checkpoint
from optuna_shape.train.checkpoint import save_checkpoint
from optuna_shape.train.data import DATASETS
from optuna_shape.train.data import Data
from optuna_shape.train.trainer import evaluate
from optuna_shape.train.trainer import train

#: What the default job asks: both bounds follow the device and the space they are measured on.
DEFAULT_CONSTRAINTS = (
    "latency <= 50 % of ({depth}, {width})",
    "size <= 50 % of ({depth}, {width})",
)

_T = TypeVar("_T")

EXIT_BAD_INPUT = 2
EXIT_NO_ANSWER = 3
EXIT_INTERRUPTED = 130

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
    family: Annotated[
        str, typer.Option(help=f"Networks to choose from: {', '.join(FAMILIES)}.")
    ] = "resnet",
    data: Annotated[
        str, typer.Option(help=f"Images to train on: {', '.join(DATASETS)}.")
    ] = "digits",
    depth: Annotated[
        str, typer.Option(help="Depths, such as 1-6 or 1,2,4. For resnet: blocks per stage.")
    ] = "1-6",
    width: Annotated[
        str, typer.Option(help="Widths, such as 8-12 or 8,16. For resnet: channels at first.")
    ] = "4,6,8,12,16,24",
    goal: Annotated[str, typer.Option(help=f"What to improve: {', '.join(GOALS)}.")] = "accuracy",
    constraint: Annotated[
        list[str] | None,
        typer.Option(
            help="A limit, may be repeated: 'latency <= 2 ms', 'size <= 500 kB', "
            "'energy <= 40 mJ', 'accuracy >= 92 %', 'latency <= 60 % of (9, 16)'. By default "
            "half the latency and size of the largest shape.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of a full training.")] = 10,
    device: Annotated[
        str, typer.Option(help="Measure and train on: auto, cpu, cuda or cuda:1.")
    ] = "auto",
    batch_size: Annotated[
        int, typer.Option(min=1, help="Inputs per call whose latency and energy are measured.")
    ] = 32,
    threads: Annotated[
        int, typer.Option(min=1, help="CPU threads, of measuring and of training.")
    ] = 1,
    max_noise: Annotated[
        float,
        typer.Option(help="How much this machine's pace may vary, as a share, to be measured on."),
    ] = 0.1,
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
            images = _choose(DATASETS, data, "data set")(seed=0)
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
        meter = DeviceMeter(device=device, batch_size=batch_size, max_noise=max_noise)
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

    def train_one(model: torch.nn.Module, trial: optuna.Trial) -> float:
        shape = (trial.params["depth"], trial.params["width"])

        def report(epoch: int, accuracy: float) -> None:
            display.epoch(trial, epoch, accuracy)
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned(trial.user_attrs.get("reason", "cut short"))

        accuracy = train(
            model,
            images,
            epochs=problem.epochs or 1,
            seed=seed,
            device=device,
            report=report,
        )
        save_checkpoint(folder / f"trial-{trial.number}", model, problem.space, shape, {})
        return accuracy

    objective = problem.objective(train_one)

    def seeded(trial: optuna.Trial) -> float:
        torch.manual_seed(seed)  # The same shape begins with the same weights in every search.
        return objective(trial)

    if StudyRecords(study).stop() is None:
        try:
            with display.live():
                study.optimize(
                    seeded,
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


@contextlib.contextmanager
def _errors_in_a_line(console: Console) -> Iterator[None]:
    """What a user can mend is said in one line; anything else keeps its traceback."""
    try:
        yield
    except NoisyMachine as error:
        console.print(
            f"[red]NoisyMachine:[/] {escape(str(error))} Here: --max-noise 0.5, say.",
            highlight=False,
        )
        raise typer.Exit(EXIT_NO_ANSWER) from None
    except NoFeasibleShape as error:
        console.print(f"[red]{type(error).__name__}:[/] {escape(str(error))}", highlight=False)
        raise typer.Exit(EXIT_NO_ANSWER) from None
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


def _choose(registry: Mapping[str, _T], name: str, kind: str) -> _T:
    if name not in registry:
        raise InvalidProblem(f"Unknown {kind} {name!r}. Known are {', '.join(sorted(registry))}.")
    return registry[name]


def _study_name(problem: ShapeProblem, images: Data) -> str:
    """The same question finds its study again; another one gets its own."""
    question = json.dumps([problem.describe(), problem.fingerprint, images.name], sort_keys=True)
    digest = hashlib.sha256(question.encode()).hexdigest()[:6]
    return f"{problem.space.name}-{images.name}-{problem.goal}-{digest}"


def _command() -> str:
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
