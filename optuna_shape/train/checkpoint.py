"""Trained networks on disk: weights in safetensors, and a JSON file that rebuilds the network.

``trial-3.safetensors`` and ``trial-3.json`` make the checkpoint ``trial-3``. Nothing is pickled
and nothing is imported by a name that a file holds, so loading one runs no code that came with it:
a network of the user's own ``build`` comes back by that ``build`` alone, which the caller gives.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from optuna_shape import families
from optuna_shape.errors import InvalidCheckpoint
from optuna_shape.errors import ShapeError
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape
from optuna_shape.train.recipe import Recipe

_logger = logging.getLogger(f"optuna.{__name__}")

_FORMAT = 1
_WEIGHTS = ".safetensors"
_INFO = ".json"


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says of its network.

    Attributes:
        family: What :func:`optuna_shape.families.describe` returned; None where the network is of
            a ``build`` of the user's own.
        shape: Shape of the network.
        properties: What was measured of it, in SI units; accuracies are fractions. An
            ``energy_note`` says how an energy was estimated.
        versions: Python and packages that saved it.
        recipe: The settings of the :class:`~optuna_shape.train.recipe.Recipe` it was trained by,
            whose ``head`` says what the outputs mean; None if that was not said.
    """

    family: dict[str, Any] | None
    shape: Shape
    properties: dict[str, Any]
    versions: dict[str, str]
    recipe: dict[str, Any] | None


def save_checkpoint(
    path: str | os.PathLike[str],
    model: nn.Module,
    space: DesignSpace,
    shape: tuple[int, int],
    properties: Mapping[str, float | str],
    *,
    recipe: Recipe | None = None,
) -> None:
    """Write a network to ``path`` with ``.safetensors`` and ``.json`` appended.

    A file is there in full or not at all, also when the process dies while writing. An earlier
    checkpoint of that name is replaced.

    Args:
        path:
            Folder and name of the checkpoint; missing folders are made.
        model:
            The network, on any device.
        space:
            The space that built it. Of a ``build`` of the user's own no description is kept, and
            :func:`load_checkpoint` needs this space again.
        shape:
            Shape of the network.
        properties:
            What is known of it, in SI units, such as ``{"accuracy": 0.91, "latency": 0.0012}``.
        recipe:
            How it was trained, if by our trainer.

    Raises:
        InvalidCheckpoint: A property is no finite number.
    """
    try:
        weights = safetensors.torch.save(copied(model.state_dict()))
        info = {
            "format": _FORMAT,
            **describe(space, shape, properties, recipe),
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
        }
        text = json.dumps(info, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise unsaved(properties, error) from error
    stem = _stem(path)
    stem.parent.mkdir(parents=True, exist_ok=True)
    write_whole(_append(stem, _WEIGHTS), weights)
    write_whole(_append(stem, _INFO), text.encode() + b"\n")


def keep_checkpoint(
    path: str | os.PathLike[str],
    model: nn.Module,
    space: DesignSpace,
    shape: tuple[int, int],
    properties: Mapping[str, float | str],
    *,
    recipe: Recipe | None = None,
) -> bool:
    """Do as :func:`save_checkpoint` where it can be done: no full disk costs a training.

    Args:
        path:
            Folder and name of the checkpoint.
        model:
            The network.
        space:
            The space that built it.
        shape:
            Shape of the network.
        properties:
            What is known of it.
        recipe:
            How it was trained.

    Returns:
        Whether it is saved. If not, a warning is logged.

    Raises:
        InvalidCheckpoint: A property is no finite number.
    """
    try:
        save_checkpoint(path, model, space, shape, properties, recipe=recipe)
    except OSError as error:
        _logger.warning(
            f"The network {path} cannot be kept: {error.strerror}. Its accuracy counts all the "
            "same. Make room, or name a folder that can be written to."
        )
        return False
    return True


def load_checkpoint(
    path: str | os.PathLike[str], space: DesignSpace | None = None
) -> tuple[nn.Module, CheckpointInfo]:
    """Return the network of a checkpoint, on the CPU and in evaluation mode.

    Args:
        path:
            What was given to :func:`save_checkpoint`, or either of the two files.
        space:
            What builds the network. Needed where that is a function of the user's own, which a
            checkpoint does not hold; by default the built-in family that it describes.

    Raises:
        InvalidCheckpoint: A file is missing or malformed, the two do not belong together, or the
            network needs a space that was not given, or is not of the one that was.
    """
    stem = _stem(path)
    text = _read(_append(stem, _INFO))
    weights = _read(_append(stem, _WEIGHTS))
    try:
        info = json.loads(text)
        if info["format"] != _FORMAT:
            raise InvalidCheckpoint(
                f"{stem}{_INFO} has format {info['format']!r}; this version of optuna_shape reads "
                f"format {_FORMAT}. Install the version that wrote it: {info.get('versions')}."
            )
        digest = info["weights_sha256"]
        result = read_info(info)
        if max(result.shape) > len(weights):
            raise InvalidCheckpoint(
                f"{stem}{_INFO} describes a network of shape {result.shape}, and {stem}{_WEIGHTS} "
                f"has only {len(weights)} bytes. Save the checkpoint again."
            )
        if space is None:
            space = described_space(result, f"{stem}{_INFO}", "load_checkpoint")
        model = space.build(result.shape)
    except InvalidCheckpoint:
        raise
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError, ShapeError) as error:
        raise InvalidCheckpoint(
            f"{stem}{_INFO} does not describe a network: {type(error).__name__}: {error}. "
            "Save the checkpoint again."
        ) from error
    if hashlib.sha256(weights).hexdigest() != digest:
        raise InvalidCheckpoint(
            f"{stem}{_WEIGHTS} does not hold the weights that {stem.name}{_INFO} was written for. "
            "The two were mixed up, or one is damaged; save the checkpoint again."
        )
    try:
        model.load_state_dict(safetensors.torch.load(weights))
    except (RuntimeError, SafetensorError) as error:
        raise InvalidCheckpoint(
            f"The weights in {stem}{_WEIGHTS} do not fit {space.name or 'the network of'} "
            f"{result.shape}: {error}"
        ) from error
    return model.eval(), result


def describe(
    space: DesignSpace,
    shape: tuple[int, int],
    properties: Mapping[str, float | str],
    recipe: Recipe | None,
) -> dict[str, Any]:
    """Return what :func:`read_info` reads, as JSON."""
    return {
        "family": families.describe(space),
        "shape": list(Shape(*shape)),
        "properties": dict(properties),
        "recipe": None if recipe is None else asdict(recipe),
        "versions": {
            "python": platform.python_version(),
            "optuna_shape": version("optuna_shape"),
            "torch": torch.__version__,
        },
    }


def unsaved(properties: Mapping[str, float | str], error: Exception) -> InvalidCheckpoint:
    """Return the error for a description that is no JSON, or has no finite numbers."""
    return InvalidCheckpoint(
        f"properties={dict(properties)!r} cannot be saved: {error}. Give finite numbers."
    )


def read_info(info: Mapping[str, Any]) -> CheckpointInfo:
    """Undo :func:`describe`.

    Raises:
        KeyError, TypeError or ValueError: It is no description.
    """
    recipe = info.get("recipe")  # Files of before it was kept have none.
    return CheckpointInfo(
        family=None if info["family"] is None else dict(info["family"]),
        shape=Shape(*info["shape"]),
        properties=dict(info["properties"]),
        versions=dict(info["versions"]),
        recipe=None if recipe is None else dict(recipe),
    )


def described_space(info: CheckpointInfo, where: str, loader: str) -> DesignSpace:
    """Return a space of one shape, that of the network.

    Args:
        info:
            Describes the network.
        where:
            The file that does.
        loader:
            The function that is told the space where this one cannot be.

    Raises:
        InvalidCheckpoint: The network is of a ``build`` of the user's own.
        ShapeError: The description is malformed.
    """
    if info.family is None:
        raise InvalidCheckpoint(
            f"{where} is of a network that a function of the user's own built, and no checkpoint "
            f"holds such. Give its space: {loader}(path, space)."
        )
    return families.rebuild(info.family, [info.shape.depth], [info.shape.width])


def _stem(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    return path.with_suffix("") if path.suffix in (_WEIGHTS, _INFO) else path


def _append(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)  # with_suffix would cut names that hold a dot.


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidCheckpoint(
            f"{path} cannot be read: {error.strerror}. A checkpoint is two files, "
            f"NAME{_WEIGHTS} and NAME{_INFO}, in one folder."
        ) from error


def copied(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copy tensors to the CPU: safetensors takes none that share memory, such as tied weights."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in full or not at all, also when the process dies while writing.

    Raises:
        OSError: The folder is missing or cannot be written to, or the disk is full.
    """
    # Beside the target first: a name never stands for half a file. Not a tempfile, which only its
    # owner may read.
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
