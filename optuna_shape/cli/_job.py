"""A search as the command line asks for it: plain values, of which every process makes its own."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import multiprocessing
import re
import time
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_shape.callbacks import ShapeTerminator
from optuna_shape.cli._common import writing
from optuna_shape.cli._space import check_network
from optuna_shape.cli._space import make_space
from optuna_shape.cli._studies import OUTPUT
from optuna_shape.cli._studies import StudyUnavailable
from optuna_shape.cli._studies import file_of
from optuna_shape.cli._studies import find_study
from optuna_shape.cli._studies import notes_of_estimates
from optuna_shape.cli._studies import open_storage
from optuna_shape.errors import InvalidCheckpoint
from optuna_shape.errors import InvalidProblem
from optuna_shape.errors import NoFeasibleShape
from optuna_shape.errors import StudyMismatch
from optuna_shape.families import describe
from optuna_shape.filters import RecordedMeter
from optuna_shape.measure import DeviceMeter
from optuna_shape.problem import Answer
from optuna_shape.problem import ShapeProblem
from optuna_shape.problem import TrainingLoop
from optuna_shape.pruner import ShapePruner
from optuna_shape.records import PARENT
from optuna_shape.records import REASON
from optuna_shape.records import StudyRecords
from optuna_shape.records import reading
from optuna_shape.sampler import ShapeSampler
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape
from optuna_shape.train.checkpoint import keep_checkpoint
from optuna_shape.train.checkpoint import load_checkpoint
from optuna_shape.train.data import Data
from optuna_shape.train.data import load
from optuna_shape.train.recipe import Recipe
from optuna_shape.train.trainer import evaluate
from optuna_shape.train.trainer import train
from optuna_shape.train.transfer import transfer

#: What the default job asks: both bounds follow the device and the space they are measured on.
DEFAULT_CONSTRAINTS = (
    "latency <= 50 % of {largest}",
    "size <= 50 % of {largest}",
)
# Of the epochs, what a network that has inherited is trained for; see benchmarks/transfer.py.
_HEIRS_SHARE = 0.7
_RECIPE = Recipe()
# Seconds between two looks for measurements of another worker, and between words about that.
_POLL, _WORD = 1.0, 60.0

_logger = logging.getLogger(f"optuna.{__name__}")


@dataclass(frozen=True)
class Job:
    """What was asked for, by the options of ``optuna-shape search``."""

    family: str = "resnet"
    family_options: tuple[str, ...] = ()
    data: str = "digits"
    data_root: Path | None = None
    depth: tuple[int, ...] | None = None
    width: tuple[int, ...] | None = None
    goal: str = "accuracy"
    constraints: tuple[str, ...] = ()
    epochs: int = 10
    recipe: Recipe = _RECIPE
    transfer: bool = False
    prune: bool = False
    device: str = "auto"
    batch_size: int = 32
    threads: int = 1
    max_noise: float = 0.1
    guard: float | None = None
    watts: float | None = None
    train_only: bool = False
    wait: float = 30.0
    seed: int = 0
    output: Path = Path(OUTPUT)
    storage: str | None = None
    study_name: str | None = None

    def open(self, tell: Callable[[str], object] = lambda _: None) -> Search:
        """Load the data, and open or create the study.

        Args:
            tell: Is called with what is done now, in words.

        Raises:
            ShapeError: Something that was asked for cannot be.
        """
        if self.transfer and self.prune:
            raise InvalidProblem(
                "--prune judges a training by curves from random weights, which those of "
                "--transfer are not. Leave one of them out."
            )
        measured_on = None
        if self.train_only:
            tell("Waiting for the shapes to be measured ...")
            measured_on = self._wait_for_measurements()
        tell("Loading the data ...")
        images = load(self.data, root=self.data_root)
        space = make_space(
            self.family,
            self.family_options,
            depth=self.depth,
            width=self.width,
            input_shape=tuple(images.train_x.shape[1:]),
            classes=images.classes,
        )
        constraints = self.constraints or [
            text.format(largest=space.shapes[-1]) for text in DEFAULT_CONSTRAINTS
        ]
        meter = DeviceMeter(
            device=self.device,
            batch_size=self.batch_size,
            threads=self.threads,
            energy="counter" if self.watts is None else "estimate",
            watts=self.watts,
            max_noise=self.max_noise,
            guard=self.guard,
        )
        # More threads gain little on small networks, and much noise where other programs run.
        torch.set_num_threads(self.threads)
        device = meter.setting.device
        check_network(self.family, space, images.classes, device)
        problem = ShapeProblem(
            space,
            goal=self.goal,
            constraints=constraints,
            meter=meter if measured_on is None else RecordedMeter(measured_on),
            epochs=self.epochs,
        )
        name = self.study_name or self._study_name(problem, images)
        # What was named comes first, as it may be wrong: then nothing has been made.
        storage = None if self.storage is None else open_storage(self.storage, create=True)
        with writing(self.output):
            self.output.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            study_name=name,
            storage=storage or open_storage(str(self.output), create=True),
            load_if_exists=True,
            direction=problem.direction,
            sampler=ShapeSampler(problem, seed=self.seed),
            pruner=ShapePruner(problem) if self.prune else optuna.pruners.NopPruner(),
        )
        _check_own_family(study, space)
        _check_training(study, self._training(images))
        return Search(self, problem, study, images, self.output / name, device)

    def _wait_for_measurements(self) -> str:
        """Return the fingerprint of the device that the study's shapes were measured on."""
        if self.storage is None or self.study_name is None:
            raise InvalidProblem(
                "--train-only joins a search that is under way elsewhere. Give the --storage and "
                "--study-name of the worker that measures, and the same question."
            )
        storage: BaseStorage | None = None
        signs: dict[str, int] = {}
        changed, said = time.monotonic(), -math.inf
        while True:
            try:
                storage = storage or open_storage(self.storage, create=False)
                records = StudyRecords(find_study(storage, self.storage, self.study_name))
                screening, why = records.screening(), "Its shapes are not all measured yet."
                if screening is not None:
                    return str(screening["fingerprint"])
                if (unfit := records.unfit()) is not None:
                    raise NoFeasibleShape(unfit)
                if (beats := records.other_leases()) != signs:  # Measuring may take its time.
                    changed, signs = time.monotonic(), beats
            except StudyUnavailable as error:
                file = file_of(self.storage)
                missing = file is not None and not file.exists()
                why = f"There is no file {file} yet." if missing else str(error)
            now = time.monotonic()
            if now - changed > 60 * self.wait:
                raise StudyUnavailable(
                    f"For {self.wait:g} minutes nobody has measured the shapes of "
                    f"{self.study_name!r}. {why} Check that --storage and --study-name are those "
                    "of a worker without --train-only, and that it runs; --wait gives it longer."
                )
            if now - said > _WORD:
                said = now
                _logger.warning(
                    f"Waiting for a worker that measures the shapes of {self.study_name!r}: one "
                    f"on the device that they are for, without --train-only. {why}"
                )
            time.sleep(_POLL)

    def _study_name(self, problem: ShapeProblem, images: Data) -> str:
        """The same question finds its study again; another one gets its own."""
        question = [problem.describe(), problem.fingerprint, self._training(images)]
        text = json.dumps(question, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:6]
        space = re.sub(r"[^\w.]+", "-", problem.space.name).strip("-")  # It names a folder too.
        return f"{space}-{images.name}-{problem.goal}-{digest}"

    def _training(self, images: Data) -> dict[str, Any]:
        """What all trainings of a study have in common, as JSON."""
        return {
            "data": images.name,
            # Of another split, a network may have seen what it is validated on.
            "images": images.digest,
            "recipe": asdict(self.recipe),
            "transfer": self.transfer,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Search:
    """A job that is open in this process.

    Attributes:
        job: What was asked for.
        problem: The same, as the study has it.
        study: Where the search is kept.
        images: What networks are trained on.
        folder: Where trained networks are kept.
        device: Where networks are measured and trained.
    """

    job: Job
    problem: ShapeProblem
    study: optuna.Study
    images: Data
    folder: Path
    device: torch.device

    def optimize(
        self,
        trials: int | None,
        callbacks: Sequence[Callable[[optuna.Study, FrozenTrial], None]] = (),
    ) -> None:
        """Train until the search is over, or for a number of trials."""
        self.study.optimize(
            self.objective(),
            n_trials=trials,
            callbacks=[self._discard_progress, ShapeTerminator(self.problem), *callbacks],
            # One shape that does not fit ends no search.
            catch=(MemoryError, torch.OutOfMemoryError),
        )

    def objective(self) -> Callable[[optuna.Trial], float]:
        """Make the objective, whose trainings are kept in the folder."""
        inner: TrainingLoop
        if self.job.transfer:
            inner = transfer(self._train, folder=self.folder, space=self.problem.space)
        else:
            inner = self._train_and_keep

        def train_afresh(_: torch.nn.Module, trial: optuna.Trial) -> float:
            # The seed is known only now, so the network is built again.
            torch.manual_seed(self._seed(trial))
            return inner(self.problem.space.build(_shape(trial)), trial)

        return self.problem.objective(train_afresh)

    def publish(self, answer: Answer) -> tuple[Path | None, float | None]:
        """Save the answer under a name of its own, and look at the test set, this once.

        Returns:
            Where it is saved, without suffix, and the test accuracy; None if the network is not
            here.
        """
        source = self._checkpoint(answer.trial.number)
        try:
            model, _ = load_checkpoint(source, self.problem.space)
        except InvalidCheckpoint as error:
            # Without files, another worker trained it, in a folder that is not here.
            if source.with_suffix(".json").exists():
                _logger.warning(str(error))
            return None, None
        images = self.images
        test = evaluate(model.to(self.device), images.test_x, images.test_y.to(self.device))
        notes = notes_of_estimates(self.problem.screen(self.study), answer.shape)
        target = self.folder / "answer"
        properties: dict[str, float | str] = {**answer.properties, **notes, "test_accuracy": test}
        recipe = self.job.recipe
        kept = keep_checkpoint(
            target, model, self.problem.space, answer.shape, properties, recipe=recipe
        )
        return target if kept else source, test

    def _train(self, model: torch.nn.Module, trial: optuna.Trial) -> float:
        shape = _shape(trial)
        number = self._attempt(shape)
        parent = trial.user_attrs.get(PARENT)
        recipe, epochs = self.job.recipe, self.job.epochs
        name = _progress(shape, number)
        if parent is not None:
            recipe, epochs = recipe.gentle, max(1, round(_HEIRS_SHARE * epochs))
            name += f"-from-{parent}"

        def report(epoch: int, accuracy: float) -> None:
            _end_if_alone()
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned(trial.user_attrs.get(REASON, "cut short"))

        return train(
            model,
            self.images,
            epochs=epochs,
            seed=self._seed(trial),
            device=self.device,
            report=report,
            recipe=recipe,
            progress=self.folder / f"{name}.safetensors",
        )

    def _discard_progress(self, _: optuna.Study, trial: FrozenTrial) -> None:
        """Delete what a training kept, now that its accuracy is stored.

        Where its parent was lost meanwhile it began anew, so there may be two files.
        """
        if trial.state == TrialState.COMPLETE:
            shape = _shape(trial)
            for path in self.folder.glob(f"{_progress(shape, self._attempt(shape) - 1)}[.-]*"):
                path.unlink(missing_ok=True)

    def _train_and_keep(self, model: torch.nn.Module, trial: optuna.Trial) -> float:
        accuracy = self._train(model, trial)
        if not math.isnan(accuracy):
            keep_checkpoint(
                self._checkpoint(trial.number),
                model,
                self.problem.space,
                _shape(trial),
                {},
                recipe=self.job.recipe,
            )
        return accuracy

    def _seed(self, trial: optuna.Trial) -> int:
        """A shape begins with the same weights in every search; what repeats it, with others."""
        return self.job.seed + self._attempt(_shape(trial))

    def _attempt(self, shape: Shape) -> int:
        """How many trainings of a shape are over."""
        history = StudyRecords(self.study).history()
        # What diverged once would again; what ended otherwise goes on.
        return history.trainings(shape) + history.divergences.get(shape, 0)

    def _checkpoint(self, number: int) -> Path:
        return self.folder / f"trial-{number}"


def _shape(trial: optuna.Trial | FrozenTrial) -> Shape:
    return Shape(trial.params["depth"], trial.params["width"])


def _progress(shape: Shape, attempt: int) -> str:
    """How the names of files begin that hold a training between two epochs."""
    return f"progress-{shape.depth}x{shape.width}-{attempt}"


def _end_if_alone() -> None:
    """Nobody waits for a worker whose command was killed.

    Raises:
        KeyboardInterrupt: This process is a worker of a command that has ended.
    """
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise KeyboardInterrupt


def _check_training(study: optuna.Study, training: dict[str, Any]) -> None:
    """Refuse a study whose networks are trained otherwise; a new one writes down how.

    Raises:
        StudyMismatch: Accuracies would not compare.
    """
    records = StudyRecords(study)
    stored = records.training()
    if stored is None:
        records.write_training(training)
        return
    with reading("training"):
        theirs, ours = _flat(stored), _flat(training)
        differences = [
            f"{name} is {theirs.get(name)!r} there and {ours.get(name)!r} here"
            for name in sorted({*theirs, *ours})
            if theirs.get(name) != ours.get(name)
        ]
    if differences:
        raise StudyMismatch(
            f"The study {study.study_name!r} trains otherwise: {'; '.join(differences)}. Use the "
            "options that it was begun with, or another --study-name."
        )


def _flat(training: dict[str, Any]) -> dict[str, Any]:
    recipe = {f"recipe {name}": value for name, value in training["recipe"].items()}
    return {**{name: value for name, value in training.items() if name != "recipe"}, **recipe}


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
