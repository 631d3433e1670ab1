"""The wrapper that lets a training loop begin with what earlier trials have learned."""

from __future__ import annotations

import copy
import inspect
import math
import threading
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from typing import Protocol
from typing import cast
from weakref import WeakKeyDictionary

from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import Trial
from torch import nn

from optuna_shape.errors import InvalidCheckpoint
from optuna_shape.errors import InvalidProblem
from optuna_shape.problem import ShapeProblem
from optuna_shape.problem import TrainingLoop
from optuna_shape.records import INHERITED
from optuna_shape.records import PARENT
from optuna_shape.records import TEACHER
from optuna_shape.records import History
from optuna_shape.records import StudyRecords
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape
from optuna_shape.train.checkpoint import keep_checkpoint
from optuna_shape.train.checkpoint import load_checkpoint
from optuna_shape.train.trainer import Teacher
from optuna_shape.train.transfer.networks import inherit


class TaughtLoop(Protocol):
    """A training loop that can learn from a teacher, such as by our own trainer."""

    def __call__(self, model: nn.Module, trial: Trial, *, teacher: Teacher | None) -> float: ...


class _Networks(Protocol):
    """Trained networks of studies."""

    def prepare(self, study: Study, model: nn.Module) -> Callable[[Trial, float], None]:
        """Return what keeps the network once it is trained to an accuracy."""

    def get(self, study: Study, number: int, history: History) -> nn.Module | None:
        """Return a copy of the network of a finished trial, or None if it is not here."""


def transfer(
    train: TrainingLoop | TaughtLoop,
    *,
    reach: float = 3.0,
    distil: float = 0.0,
    folder: Path | str | None = None,
    space: DesignSpace | None = None,
) -> TrainingLoop:
    """Let each training of a search begin with what a trained network of another shape knows.

    The parent is the nearest shape, by ratios of depth and width, among those at most as deep and
    as wide, whose function the child can take over; without any, the nearest of all. Only trials
    that were trained in full count. A trial's attributes say which parent it had. There is none
    where no shape is within ``reach``, and a shape that is trained again has none of its own
    shape, lest it repeat itself. A training that ended amid its epochs goes on as it began: with
    the same parent, or again with none.

    What was inherited gets lost where the learning rate is as high as random weights want it: have
    the loop train for fewer epochs, and by
    :attr:`Recipe.gentle <optuna_shape.train.recipe.Recipe.gentle>`, where ``trial.user_attrs`` has
    a ``"parent"``.

    Args:
        train:
            ``train(model, trial) -> accuracy``, which trains the model that it is given, in place.
        reach:
            The greatest ratio between the numbers of parameters of child and parent, either way.
            Where they differ much, heirs tend to end below what training from random weights
            reaches; benchmarks/transfer.py measures it.
        distil:
            Share of the loss by which a network learns from the most accurate one so far. If it is
            above 0, ``train`` is also given ``teacher``, a
            :class:`~optuna_shape.train.trainer.Teacher` for our trainer or None.
        folder:
            Where to keep the trained networks as checkpoints ``trial-0``, ``trial-1``, ...: one
            folder for each study, which may be shared by its workers, and then a search that is
            resumed finds them. By default they stay in the memory of this process, on the CPU.
        space:
            What builds the networks in ``folder``, needed where that is a function of your own. By
            default the family that the study describes.

    Returns:
        The training loop for :meth:`~optuna_shape.ShapeProblem.objective`.

    Raises:
        InvalidProblem: ``train`` takes no teacher, ``distil`` is no share, or ``reach`` no ratio.
    """
    if not reach >= 1:
        raise InvalidProblem(f"reach={reach} is no ratio of sizes. Give 1 or more, such as 3.")
    if not 0 <= distil <= 1:
        raise InvalidProblem(f"distil={distil} is no share of the loss. Give 0 to 1, such as 0.5.")
    if distil and not _takes_teacher(train):
        raise InvalidProblem(
            "distil needs a training loop train(model, trial, *, teacher) that hands the teacher "
            "to optuna_shape.train.trainer.train, or learns from it in its own way. Leave distil "
            "out to transfer weights only."
        )
    networks: _Networks = _Memory() if folder is None else _Folder(Path(folder), space)

    def train_heir(model: nn.Module, trial: Trial) -> float:
        study = trial.study
        shape = _shape(trial)
        history = StudyRecords(study).history()
        others = [number for number in history.trained if history.shapes[number] != shape]

        def networks_of(numbers: Iterable[int]) -> Iterator[tuple[int, nn.Module]]:
            for number in numbers:
                network = networks.get(study, number, history)
                if network is not None:
                    yield number, network

        nearest = sorted(others, key=lambda number: _distance(shape, history, number))
        if shape in history.begun:
            before = study.get_trials(deepcopy=False)[history.begun[shape]].user_attrs.get(PARENT)
            nearest = [number for number in nearest if number == before]
        parent = next((p for p in networks_of(nearest) if _ratio(model, p[1]) <= reach), None)
        if parent is not None:
            trial.set_user_attr(INHERITED, inherit(model, parent[1], seed=trial.number))
            trial.set_user_attr(PARENT, parent[0])
        keep = networks.prepare(study, model)
        if distil:
            best_first = sorted(others, key=lambda number: (-history.trained[number], number))
            best = next(networks_of(best_first), None)
            teacher = None if best is None else Teacher(best[1], distil)
            if best is not None:
                trial.set_user_attr(TEACHER, best[0])
            accuracy = cast(TaughtLoop, train)(model, trial, teacher=teacher)
        else:
            accuracy = cast(TrainingLoop, train)(model, trial)
        if _is_share(accuracy):  # If not, problem.record says what is wrong.
            keep(trial, float(accuracy))
        return accuracy

    return train_heir


def _shape(trial: Trial) -> Shape:
    return Shape(trial.params["depth"], trial.params["width"])


def _is_share(accuracy: object) -> bool:
    try:
        return 0 <= float(accuracy) <= 1  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _takes_teacher(train: Callable[..., Any]) -> bool:
    parameters = inspect.signature(train).parameters
    return TEACHER in parameters or any(
        parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()
    )


def _ratio(child: nn.Module, parent: nn.Module) -> float:
    """How many times as many parameters the larger one has."""
    sizes = [sum(p.numel() for p in network.parameters()) for network in (child, parent)]
    return max(sizes) / max(1, min(sizes))


def _distance(child: Shape, history: History, number: int) -> tuple[bool, float, float, int]:
    """Sorts trials by how well the child can inherit from them, best first."""
    parent = history.shapes[number]
    larger = parent.depth > child.depth or parent.width > child.width
    ratios = (parent.depth / child.depth, parent.width / child.width)
    far = sum(abs(math.log(ratio)) for ratio in ratios)
    return larger, far, -history.trained[number], number


class _Memory:
    """Networks in the memory of this process, on the CPU."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: WeakKeyDictionary[BaseStorage, dict[tuple[int, int], nn.Module]]
        self._kept = WeakKeyDictionary()

    def prepare(self, study: Study, model: nn.Module) -> Callable[[Trial, float], None]:
        # Before the training, which may leave something on the network that cannot be copied.
        copied = copy.deepcopy(model)

        def keep(trial: Trial, accuracy: float) -> None:
            copied.load_state_dict(model.state_dict())
            with self._lock:
                kept = self._kept.setdefault(study._storage, {})
                kept[study._study_id, trial.number] = copied.eval()

        return keep

    def get(self, study: Study, number: int, history: History) -> nn.Module | None:
        with self._lock:
            network = self._kept.get(study._storage, {}).get((study._study_id, number))
        return copy.deepcopy(network)


class _Folder:
    """Networks as checkpoints in the folder of one study."""

    def __init__(self, folder: Path, space: DesignSpace | None) -> None:
        self._folder = folder
        self._space = space

    def prepare(self, study: Study, model: nn.Module) -> Callable[[Trial, float], None]:
        space = ShapeProblem.from_study(study).space if self._space is None else self._space
        if space.builder is None:
            raise InvalidProblem(
                "A folder keeps weights, and what builds these networks is a function of your "
                "own. Say transfer(..., space=problem.space), or leave folder out."
            )

        def keep(trial: Trial, accuracy: float) -> None:
            path, shape = self._path(trial.number), _shape(trial)
            keep_checkpoint(path, model, space, shape, {"accuracy": accuracy})

        return keep

    def get(self, study: Study, number: int, history: History) -> nn.Module | None:
        try:
            network, info = load_checkpoint(self._path(number), self._space)
        except InvalidCheckpoint:
            return None  # Trained by a worker with a folder of its own, or damaged.
        accuracy = history.trained[number]
        # A folder that was used before for another study has other networks of these numbers.
        fits = info.shape == history.shapes[number]
        return network if fits and info.properties.get("accuracy", accuracy) == accuracy else None

    def _path(self, number: int) -> Path:
        return self._folder / f"trial-{number}"
