"""Checkpoints as the command line names them, and the networks in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from optuna_shape.cli._space import check_network
from optuna_shape.cli._space import make_space
from optuna_shape.errors import InvalidCheckpoint
from optuna_shape.errors import InvalidProblem
from optuna_shape.errors import ShapeError
from optuna_shape.families import FAMILIES
from optuna_shape.families import rebuild
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape
from optuna_shape.train.checkpoint import load_checkpoint

_ANSWER = "answer"
#: What the two files of a checkpoint end in.
SUFFIXES = (".safetensors", ".json")


@dataclass(frozen=True)
class OwnFamily:
    """What ``--family module:function`` and the options beside it name."""

    function: str
    options: tuple[str, ...]
    input_shape: tuple[int, ...]
    classes: int

    def __post_init__(self) -> None:
        if self.function in FAMILIES:
            raise InvalidProblem(
                f"--family {self.function} is built in, and the checkpoint tells that by itself. "
                "Leave it out."
            )

    def space(self, shape: Shape) -> DesignSpace:
        """Return the space of this one shape."""
        return make_space(
            self.function,
            self.options,
            depth=[shape.depth],
            width=[shape.width],
            input_shape=self.input_shape,
            classes=self.classes,
        )


@dataclass(frozen=True)
class LoadedNetwork:
    """A trained network on its device, with the space that builds it."""

    model: nn.Module
    space: DesignSpace
    shape: Shape
    properties: dict[str, float]
    recipe: dict[str, Any] | None

    @property
    def input_shape(self) -> tuple[int, ...]:
        assert self.space.input_shape is not None  # `rebuild` and `make_space` see to it.
        return self.space.input_shape

    @property
    def parameters(self) -> int:
        return sum(weight.numel() for weight in self.model.parameters())

    def as_json(self) -> dict[str, object]:
        return {
            "family": self.space.name,
            **self.shape._asdict(),
            "parameters": self.parameters,
        }

    def __str__(self) -> str:
        return f"{self.space.name}, depth {self.shape.depth}, width {self.shape.width}"


def own_family(
    function: str | None, options: Sequence[str], input_shape: tuple[int, ...], classes: int
) -> OwnFamily | None:
    """Return what ``--family`` names, if it was given.

    Raises:
        InvalidProblem: It is built in, or its options were given without it.
    """
    if function is not None:
        return OwnFamily(function, tuple(options), input_shape, classes)
    if options:
        raise InvalidProblem(
            "--family-option is for --family module:function; a built-in family is told by the "
            "checkpoint."
        )
    return None


def find_checkpoint(path: Path) -> Path:
    """Return a checkpoint without its suffix; of a folder, its only answer.

    Raises:
        InvalidCheckpoint: The folder holds none, or several.
    """
    if not path.is_dir():
        return path.with_suffix("") if path.suffix in SUFFIXES else path
    name = f"{_ANSWER}.json"
    answers = sorted(file.with_suffix("") for file in [*path.glob(name), *path.glob(f"*/{name}")])
    if len(answers) == 1:
        return answers[0]
    if answers:
        listed = ", ".join(map(str, answers))
        raise InvalidCheckpoint(f"{path} holds {len(answers)} answers. Name one: {listed}.")
    raise InvalidCheckpoint(
        f"{path} holds no answer, which a search saves at its end. Name a checkpoint, such as "
        f"{path / 'STUDY' / 'trial-3'}, or another folder."
    )


def load_network(source: Path, own: OwnFamily | None, device: torch.device) -> LoadedNetwork:
    """Load a checkpoint.

    Raises:
        ShapeError: It is missing or damaged, or its family is unknown or another one.
    """
    if own is None:
        try:
            model, info = load_checkpoint(source)
        except InvalidCheckpoint as error:
            hint = ""
            if "load_checkpoint(path, space)" in str(error):
                hint = (
                    " Here: --family module:function, with the --family-option of its search, "
                    "and for export its --input-shape and --classes."
                )
            raise InvalidCheckpoint(f"{_line(error)}{hint}") from None
        assert info.family is not None  # Else a space would have been asked for.
        space = rebuild(info.family, [info.shape.depth], [info.shape.width])
    else:
        # Depth and width are the checkpoint's, so the space can be made only while it is read.
        family = own
        lazy = DesignSpace(
            [1], [1], lambda shape: family.space(shape).build(shape), name=own.function
        )
        try:
            model, info = load_checkpoint(source, lazy)
        except InvalidCheckpoint as error:
            inner: BaseException = error
            while isinstance(inner.__cause__, ShapeError):
                inner = inner.__cause__
            if inner is not error:
                raise inner from None
            raise InvalidCheckpoint(_line(error)) from None
        space = own.space(info.shape)
        check_network(own.function, space, own.classes, device)
    return LoadedNetwork(model.to(device), space, info.shape, info.properties, info.recipe)


def _line(error: Exception) -> str:
    """An error of PyTorch's, which lists every weight that does not fit, in one line."""
    return " ".join(str(error).split())
