"""``optuna-shape search``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from optuna_shape.cli._common import EXIT_INTERRUPTED
from optuna_shape.cli._common import EXIT_NO_ANSWER
from optuna_shape.cli._common import EXIT_TOO_NOISY
from optuna_shape.cli._common import WorkersFailed
from optuna_shape.cli._common import ends_as_interrupts
from optuna_shape.cli._common import integers
from optuna_shape.cli._common import make_console
from optuna_shape.cli._common import say
from optuna_shape.cli._common import say_json
from optuna_shape.cli._declared import IMAGES
from optuna_shape.cli._declared import KEPT
from optuna_shape.cli._declared import LIMITS
from optuna_shape.cli._declared import QUESTION
from optuna_shape.cli._declared import TRAINING
from optuna_shape.cli._declared import WORKERS
from optuna_shape.cli._declared import AsJson
from optuna_shape.cli._declared import BatchSize
from optuna_shape.cli._declared import DataRoot
from optuna_shape.cli._declared import Depth
from optuna_shape.cli._declared import Device
from optuna_shape.cli._declared import Family
from optuna_shape.cli._declared import FamilyOption
from optuna_shape.cli._declared import Guard
from optuna_shape.cli._declared import MaxNoise
from optuna_shape.cli._declared import Quiet
from optuna_shape.cli._declared import Seed
from optuna_shape.cli._declared import Threads
from optuna_shape.cli._declared import Watts
from optuna_shape.cli._declared import Width
from optuna_shape.cli._job import Job
from optuna_shape.cli._job import Search
from optuna_shape.cli._options import options_of
from optuna_shape.cli._options import read_options
from optuna_shape.cli._studies import STORAGES
from optuna_shape.cli._studies import as_json as study_as_json
from optuna_shape.cli._workers import run_workers
from optuna_shape.constraints import GOALS
from optuna_shape.errors import InvalidProblem
from optuna_shape.errors import NoisyMachine
from optuna_shape.records import StudyRecords
from optuna_shape.report.live import SearchDisplay
from optuna_shape.train.recipe import Recipe

_RECIPE = options_of(Recipe)


def search(
    family: Family = Job.family,
    family_option: FamilyOption = None,
    data: Annotated[
        str,
        typer.Option(help=f"Images to train on: {IMAGES}.", rich_help_panel=TRAINING),
    ] = Job.data,
    data_root: DataRoot = None,
    depth: Depth = None,
    width: Width = None,
    goal: Annotated[
        str, typer.Option(help=f"What to improve: {', '.join(GOALS)}.", rich_help_panel=QUESTION)
    ] = Job.goal,
    constraint: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{LIMITS}, 'accuracy >= 92 %'. By default half the latency and size of the "
            "largest shape.",
            show_default=False,
            rich_help_panel=QUESTION,
        ),
    ] = None,
    epochs: Annotated[
        int, typer.Option(min=1, help="Epochs of a full training.", rich_help_panel=TRAINING)
    ] = Job.epochs,
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help=f"How to train, may be repeated: {', '.join(map(str, _RECIPE.values()))}.",
            show_default=False,
            rich_help_panel=TRAINING,
        ),
    ] = None,
    transfer: Annotated[
        bool,
        typer.Option(
            help="Let a network begin with what the nearest trained one knows, if it is near "
            "enough, and train it for fewer epochs.",
            rich_help_panel=TRAINING,
        ),
    ] = Job.transfer,
    prune: Annotated[
        bool,
        typer.Option(
            help="Cut trainings short that will almost surely not give the answer.",
            rich_help_panel=TRAINING,
        ),
    ] = Job.prune,
    device: Device = Job.device,
    batch_size: BatchSize = Job.batch_size,
    threads: Threads = Job.threads,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            help="Processes that train on the device side by side, and share its CPU cores.",
            rich_help_panel=WORKERS,
        ),
    ] = 1,
    max_noise: MaxNoise = Job.max_noise,
    guard: Guard = Job.guard,
    watts: Watts = None,
    train_only: Annotated[
        bool,
        typer.Option(
            "--train-only",
            help="Join a search, of --storage and --study-name, whose shapes another worker "
            "measures, or has measured, on the device that they are for.",
            rich_help_panel=WORKERS,
        ),
    ] = Job.train_only,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, help="Most trials to run; no limit by default.", rich_help_panel=WORKERS
        ),
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES",
            min=0,
            help="With --train-only: how long to wait while nobody measures.",
            show_default=f"{Job.wait:g}",
            rich_help_panel=WORKERS,
        ),
    ] = None,
    seed: Seed = Job.seed,
    output: Annotated[
        Path,
        typer.Option(help="Folder for the study and the trained networks.", rich_help_panel=KEPT),
    ] = Job.output,
    storage: Annotated[
        str | None,
        typer.Option(
            help=f"Optuna storage: {STORAGES}. By default study.db in --output.",
            show_default=False,
            rich_help_panel=KEPT,
        ),
    ] = None,
    study_name: Annotated[
        str | None,
        typer.Option(
            help="Name of the study; by default made of the question.", rich_help_panel=KEPT
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Search the shape that fits the constraints best, training only a few.

    Without any option: residual networks on scikit-learn's handwritten digits, made harder.
    The same command resumes a search that was interrupted.
    """
    console = make_console(quiet=quiet or as_json)
    if wait is not None and not train_only:
        raise InvalidProblem(
            "--wait says how long a worker with --train-only waits, which this one is not. Add "
            "--train-only, or leave --wait out."
        )
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
        guard=guard,
        watts=watts,
        train_only=train_only,
        wait=Job.wait if wait is None else wait,
        seed=seed,
        output=output,
        storage=storage,
        study_name=study_name,
    )
    try:
        with ends_as_interrupts():
            with console.status("Beginning ...") as status:
                opened = job.open(status.update)
            codes = _search(console, opened, workers, trials)
    except KeyboardInterrupt:
        said = "Interrupted. What was measured and trained is kept. Go on with:"
        say(make_console(stderr=True), said, f"  {_command()}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    _check_workers(opened, codes)
    _conclude(opened, console, as_json)


def _search(console: Console, search: Search, workers: int, trials: int | None) -> dict[Path, int]:
    """Search until it is over; what :func:`run_workers` returns, if there are several."""
    problem, study, images = search.problem, search.study, search.images
    display = SearchDisplay(problem, study, console)
    display.question(images.name, len(images.train_x), len(images.validation_x))
    with console.status("Measuring the shapes before any training ..."):
        problem.screen(study)
    display.screening()
    if StudyRecords(study).stop() is None:
        with display.live():
            if workers > 1:
                return run_workers(search, workers, trials)
            search.optimize(trials)
    return {}


def _check_workers(search: Search, codes: Mapping[Path, int]) -> None:
    """Tell of workers that have not ended as they should.

    Raises:
        NoisyMachine: None has, as the machine is too busy.
        WorkersFailed: None has.
    """
    troubles = SearchDisplay(search.problem, search.study, make_console(stderr=True))
    for log, code in codes.items():
        if code:
            troubles.worker_failed(log, code)
    if codes and all(codes.values()):
        noisy = set(codes.values()) == {EXIT_TOO_NOISY}
        raise (NoisyMachine if noisy else WorkersFailed)(
            f"None of {len(codes)} workers has ended as it should. Their logs in {search.folder} "
            "say why; what they trained before is kept."
        )


def _conclude(search: Search, console: Console, as_json: bool) -> None:
    """Say how the search ended, and publish its answer."""
    problem, study = search.problem, search.study
    SearchDisplay(problem, study, console).stop()
    answer = problem.best(study)
    checkpoint, test = (None, None) if answer is None else search.publish(answer)
    display = SearchDisplay(problem, study, make_console(quiet=as_json))
    if as_json:
        files = (
            [] if checkpoint is None else [f"{checkpoint}{s}" for s in (".safetensors", ".json")]
        )
        weights = next(iter(files), None)
        found = study_as_json(problem, study, test_accuracy=test, checkpoint=weights)
        say_json({**found, "written": files})
    if answer is None:
        display.no_answer()
        raise typer.Exit(EXIT_NO_ANSWER)
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
