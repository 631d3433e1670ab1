"""``optuna-shape search``."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import optuna
import torch
import typer
from rich.console import Console

from optuna_shape.callbacks import ShapeTerminator
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
from optuna_shape.cli._common import errors_in_a_line
from optuna_shape.cli._common import integers
from optuna_shape.cli._common import make_console
from optuna_shape.cli._space import check_network
from optuna_shape.cli._space import make_space
from optuna_shape.constraints import GOALS
from optuna_shape.errors import InvalidCheckpoint
from optuna_shape.errors import StudyMismatch
from optuna_shape.families import describe
from optuna_shape.measure import DeviceMeter
from optuna_shape.problem import Answer
from optuna_shape.problem import ShapeProblem
from optuna_shape.pruner import ShapePruner
from optuna_shape.records import REASON
from optuna_shape.records import StudyRecords
from optuna_shape.report.live import SearchDisplay
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
    "latency <= 50 % of {largest}",
    "size <= 50 % of {largest}",
)

_logger = logging.getLogger(f"optuna.{__name__}")


def search(
    family: Family = "resnet",
    family_option: FamilyOption = None,
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
    depth: Depth = None,
    width: Width = None,
    goal: Annotated[str, typer.Option(help=f"What to improve: {', '.join(GOALS)}.")] = "accuracy",
    constraint: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{LIMITS}, 'accuracy >= 92 %'. By default half the latency and size of the "
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
    prune: Annotated[
        bool,
        typer.Option(help="Cut trainings short that will almost surely not give the answer."),
    ] = False,
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
    console = make_console()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # What ended a training stands in the table; Optuna would print a traceback into it.
    logging.getLogger("optuna.study").setLevel(logging.ERROR)
    with errors_in_a_line(console):
        with console.status("Loading the data ..."):
            images = load(data, root=data_root)
        space = make_space(
            family,
            family_option or (),
            depth=integers(depth, "--depth"),
            width=integers(width, "--width"),
            input_shape=tuple(images.train_x.shape[1:]),
            classes=images.classes,
        )
        constraints = constraint or [
            text.format(largest=space.shapes[-1]) for text in DEFAULT_CONSTRAINTS
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
        check_network(family, space, images.classes, meter.setting.device)
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
            pruner=ShapePruner(problem) if prune else optuna.pruners.NopPruner(),
        )
        _check_own_family(study, space)
        torch_device = meter.setting.device
        _run(console, problem, study, images, output / name, torch_device, seed, trials)


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
                raise optuna.TrialPruned(trial.user_attrs.get(REASON, "cut short"))

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
        model, _ = load_checkpoint(source, problem.space)
    except InvalidCheckpoint as error:
        # Without files, another worker trained it, in a folder that is not here.
        if source.with_suffix(".json").exists():
            _logger.warning(str(error))
        return None, None
    test = evaluate(model.to(device), images.test_x.to(device), images.test_y.to(device))
    properties = {name: value for name in GOALS if (value := getattr(answer, name)) is not None}
    target = folder / "answer"
    save_checkpoint(
        target, model, problem.space, answer.shape, {**properties, "test_accuracy": test}
    )
    return target, test


def _check_own_family(study: optuna.Study, space: DesignSpace) -> None:
    """Refuse a study of another family, where only its name tells.

    The problem compares what a study says of built-in families; of a user's own it says nothing.

    Raises:
        StudyMismatch: It is of another.
    """
    stored = StudyRecords(study).problem()
    if stored is None or describe(space) is not None:
        return
    theirs = stored["space"]["name"]
    if theirs != space.name:
        raise StudyMismatch(
            f"The study {study.study_name!r} is about the family {theirs}, not {space.name}. "
            "Use another --study-name."
        )


def _study_name(problem: ShapeProblem, images: Data) -> str:
    """The same question finds its study again; another one gets its own."""
    question = json.dumps(
        [problem.describe(), problem.fingerprint, images.name, images.digest], sort_keys=True
    )
    digest = hashlib.sha256(question.encode()).hexdigest()[:6]
    space = re.sub(r"[^\w.]+", "-", problem.space.name).strip("-")  # It names a folder too.
    return f"{space}-{images.name}-{problem.goal}-{digest}"


def _command() -> str:
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
