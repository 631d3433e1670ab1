"""``optuna-shape search``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from optuna_shape.cli._common import EXIT_FAILED
from optuna_shape.cli._common import EXIT_INTERRUPTED
from optuna_shape.cli._common import EXIT_NO_ANSWER
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
from optuna_shape.cli._common import ends_as_interrupts
from optuna_shape.cli._common import errors_in_a_line
from optuna_shape.cli._common import integers
from optuna_shape.cli._common import make_console
from optuna_shape.cli._job import Job
from optuna_shape.cli._job import Search
from optuna_shape.cli._options import options_of
from optuna_shape.cli._options import read_options
from optuna_shape.cli._workers import run_workers
from optuna_shape.constraints import GOALS
from optuna_shape.errors import InvalidProblem
from optuna_shape.records import StudyRecords
from optuna_shape.report.live import SearchDisplay
from optuna_shape.train.data import DATASETS
from optuna_shape.train.recipe import Recipe

_RECIPE = options_of(Recipe)


def search(
    family: Family = Job.family,
    family_option: FamilyOption = None,
    data: Annotated[
        str,
        typer.Option(
            help=f"Images to train on: {', '.join(DATASETS)}, a folder with a folder of images "
            "for each class, or a .npz file with images x and classes y."
        ),
    ] = Job.data,
    data_root: Annotated[
        Path | None,
        typer.Option(
            envvar="OPTUNA_SHAPE_DATA",
            help="Folder where torchvision's data sets lie, or are downloaded to; by default "
            "~/.cache/optuna_shape.",
            show_default=False,
        ),
    ] = None,
    depth: Depth = None,
    width: Width = None,
    goal: Annotated[str, typer.Option(help=f"What to improve: {', '.join(GOALS)}.")] = Job.goal,
    constraint: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{LIMITS}, 'accuracy >= 92 %'. By default half the latency and size of the "
            "largest shape.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of a full training.")] = Job.epochs,
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help=f"How to train, may be repeated: {', '.join(map(str, _RECIPE.values()))}.",
            show_default=False,
        ),
    ] = None,
    transfer: Annotated[
        bool,
        typer.Option(
            help="Let a network begin with what the nearest trained one knows, if it is near "
            "enough, and train it for fewer epochs."
        ),
    ] = Job.transfer,
    prune: Annotated[
        bool,
        typer.Option(help="Cut trainings short that will almost surely not give the answer."),
    ] = Job.prune,
    device: Device = Job.device,
    batch_size: BatchSize = Job.batch_size,
    threads: Threads = Job.threads,
    workers: Annotated[
        int,
        typer.Option(
            min=1, help="Processes that train on the device side by side, and share its CPU cores."
        ),
    ] = 1,
    max_noise: MaxNoise = Job.max_noise,
    watts: Watts = None,
    train_only: Annotated[
        bool,
        typer.Option(
            "--train-only",
            help="Join a search, of --storage and --study-name, whose shapes another worker "
            "measures, or has measured, on the device that they are for.",
        ),
    ] = Job.train_only,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Most trials to run; no limit by default.")
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the decisions and of the trainings.")
    ] = Job.seed,
    output: Annotated[
        Path, typer.Option(help="Folder for the study and the trained networks.")
    ] = Job.output,
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
    console = make_console()
    with errors_in_a_line(console):
        job = Job(
            family=family,
            family_options=tuple(family_option or ()),
            data=data,
            data_root=data_root,
            depth=integers(depth, "--depth"),
            width=integers(width, "--width"),
            goal=goal,
            constraints=tuple(constraint or ()),
            epochs=epochs,
            recipe=_read_recipe(recipe or []),
            transfer=transfer,
            prune=prune,
            device=device,
            batch_size=batch_size,
            threads=threads,
            max_noise=max_noise,
            watts=watts,
            train_only=train_only,
            seed=seed,
            output=output,
            storage=storage,
            study_name=study_name,
        )
        with console.status("Loading the data ..."):
            opened = job.open()
        _run(console, opened, workers, trials)


def _run(console: Console, search: Search, workers: int, trials: int | None) -> None:
    problem, study, images = search.problem, search.study, search.images
    display = SearchDisplay(problem, study, console)
    display.question(images.name, len(images.train_x), len(images.validation_x))
    with console.status("Measuring the shapes before any training ..."):
        problem.screen(study)
    display.screening()
    if StudyRecords(study).stop() is None:
        codes: dict[Path, int] = {}
        try:
            with ends_as_interrupts(), display.live():
                if workers == 1:
                    search.optimize(trials)
                else:
                    codes = run_workers(search, workers, trials)
        except KeyboardInterrupt:
            display.interrupted(_command())
            raise typer.Exit(EXIT_INTERRUPTED) from None
        for log, code in codes.items():
            if code:
                display.worker_failed(log, code)
        if codes and all(codes.values()):
            raise typer.Exit(EXIT_FAILED)
    display.stop()
    answer = problem.best(study)
    if answer is None:
        display.no_answer()
        raise typer.Exit(EXIT_NO_ANSWER)
    checkpoint, test = search.publish(answer)
    display.answer(answer, test, checkpoint)


def _read_recipe(texts: list[str]) -> Recipe:
    """Read the recipe, whose other settings are those usual for its optimizer.

    Raises:
        InvalidProblem: There is no such recipe.
    """
    try:
        values = read_options("--recipe", "A recipe", texts, _RECIPE)
    except ValueError as error:
        raise InvalidProblem(str(error)) from None
    optimizer = str(values.pop("optimizer", Recipe.optimizer))
    return Recipe.usual(optimizer, **values)


def _command() -> str:
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
