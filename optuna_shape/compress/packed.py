"""Trained networks in one small file.

A file holds, one after the other and all numbers from the lowest byte on::

    4 bytes    "OShP"
    1 byte     version of the format
    32 bytes   SHA-256 of all that follows
    number     length of the description, seven bits a byte
    ...        description in JSON: what a checkpoint says, and a digest of names, types and shapes
    tensors    in the order of the network's ``state_dict``: one byte for the format, and its bytes

Names, types and shapes of the tensors are not in the file, as they follow from the network. So no
file can ask for more memory than the network that it describes; and that one is refused where
its size is out of proportion to the file. Nothing is pickled, and no code is imported by a name
that a file holds.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from optuna_shape.compress import coding
from optuna_shape.compress.bits import Reader
from optuna_shape.compress.bits import whole
from optuna_shape.errors import BuildFailed
from optuna_shape.errors import InvalidCheckpoint
from optuna_shape.errors import InvalidSpace
from optuna_shape.space import DesignSpace
from optuna_shape.train.checkpoint import CheckpointInfo
from optuna_shape.train.checkpoint import describe
from optuna_shape.train.checkpoint import described_space
from optuna_shape.train.checkpoint import read_info
from optuna_shape.train.checkpoint import unsaved
from optuna_shape.train.checkpoint import write_whole
from optuna_shape.train.recipe import Recipe

#: What files of packed networks end in.
SUFFIX = ".packed"
_MAGIC = b"OShP"
# Format 1 had gaps between the entries that are not zero, also where these are the more.
_FORMAT = 2
_LAYOUT = "layout"
# A network takes at most so many bytes per byte of its file, besides what any machine has. Even of
# one weight in 10,000 that is not zero, it takes less.
_RATIO = 2**14
_FREE = 2**24


@dataclass(frozen=True)
class PackedTensor:
    """How a tensor is written.

    Attributes:
        name: In the network's ``state_dict``.
        format: One of :data:`~optuna_shape.compress.coding.FORMATS`.
        content: Its bytes.
    """

    name: str
    format: str
    content: bytes


def pack(model: nn.Module, formats: Collection[str] | None = None) -> list[PackedTensor]:
    """Encode all parameters and buffers that a checkpoint would hold.

    Args:
        model:
            The network, on any device.
        formats:
            To choose from for each tensor; by default all that are at hand.

    Raises:
        InvalidCheckpoint: The network keeps something that is no tensor of real numbers.
    """
    tensors = []
    for name, tensor in model.state_dict().items():
        try:
            tensors.append(PackedTensor(name, *coding.encode(tensor, formats)))
        except (AttributeError, ValueError) as error:
            raise InvalidCheckpoint(
                f"{name!r} of the network cannot be packed: {error}"
            ) from error
    return tensors


def save_packed(
    path: str | os.PathLike[str],
    model: nn.Module,
    space: DesignSpace,
    shape: tuple[int, int],
    properties: Mapping[str, float],
    *,
    recipe: Recipe | None = None,
    formats: Collection[str] | None = None,
) -> list[PackedTensor]:
    """Write a network to a file, to the bit, in as few bytes as the formats allow.

    The file is there in full or not at all. An earlier one of that name is replaced.

    Args:
        path:
            The file; missing folders are made.
        model:
            The network, on any device.
        space:
            The space that built it. Of a ``build`` of the user's own no description is kept, and
            :func:`load_packed` needs this space again.
        shape:
            Shape of the network.
        properties:
            What is known of it, in SI units, such as ``{"accuracy": 0.91}``.
        recipe:
            How it was trained, if by our trainer.
        formats:
            To choose from for each tensor, see :mod:`optuna_shape.compress.coding`. By default all
            that are at hand: with the package constriction also ``ans``, which is needed to read
            the file then.

    Returns:
        How each tensor was written.

    Raises:
        InvalidCheckpoint: A property is no finite number, or the network cannot be packed.
    """
    tensors = pack(model, formats)
    try:
        info = {**describe(space, shape, properties, recipe), _LAYOUT: _layout(model)}
        text = json.dumps(info, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise unsaved(properties, error) from error
    parts = [whole(len(text)), text]
    for tensor in tensors:
        parts += [bytes([coding.FORMATS.index(tensor.format)]), tensor.content]
    body = b"".join(parts)
    if _size(model) > _most(len(body)):
        raise InvalidCheckpoint(
            f"The network of {_size(model)} bytes would be a file of {len(body)}, as if it held "
            "nothing, and none that large is read again. Train it, or prune it less."
        )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, _MAGIC + bytes([_FORMAT]) + hashlib.sha256(body).digest() + body)
    return tensors


def load_packed(
    path: str | os.PathLike[str], space: DesignSpace | None = None
) -> tuple[nn.Module, CheckpointInfo]:
    """Return the network of a file, on the CPU and in evaluation mode.

    Args:
        path:
            What :func:`save_packed` wrote.
        space:
            What builds the network. Needed where that is a function of the user's own, which a
            file does not hold; by default the built-in family that it describes.

    Raises:
        InvalidCheckpoint: The file is missing or damaged, or the network needs a space that was
            not given, or is not of the one that was.
        PackingUnavailable: It was written with constriction, which is not installed here.
    """
    path = Path(path)
    body = _checked(path)
    reader = Reader(body)
    try:
        info = json.loads(reader.take(reader.whole(len(body))))
        layout = info[_LAYOUT]
        result = read_info(info)
        if space is None:
            space = described_space(result, str(path), "load_packed")
            if result.shape.depth > len(body):  # Each layer has a tensor, and that a byte.
                raise ValueError(f"a depth of {result.shape.depth} in {len(body)} bytes")
            with torch.device("meta"):  # It takes no memory, whatever size the file claims.
                _check(space.build(result.shape), layout, len(body))
        model = space.build(result.shape)
        _check(model, layout, len(body))
        tensors = {}
        for name, tensor in model.state_dict().items():
            (number,) = reader.take(1)
            if number >= len(coding.FORMATS):
                raise ValueError(f"{name} has the format {number}, which is none")
            tensors[name] = coding.decode(
                coding.FORMATS[number], reader, tuple(tensor.shape), tensor.dtype
            )
        if reader.left:
            raise ValueError(f"{reader.left} bytes are left over")
        model.load_state_dict(tensors)
    except InvalidCheckpoint:
        raise
    except (KeyError, TypeError, ValueError, RecursionError, BuildFailed, InvalidSpace) as error:
        raise InvalidCheckpoint(
            f"{path} does not describe a network: {type(error).__name__}: {error}. "
            "Pack the network again."
        ) from error
    return model.eval(), result


def _checked(path: Path) -> bytes:
    """Return what the digest of a file is of."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidCheckpoint(f"{path} cannot be read: {error.strerror}.") from error
    begin = len(_MAGIC) + 1
    if content[: len(_MAGIC)] != _MAGIC:
        raise InvalidCheckpoint(
            f"{path} is no packed network: it begins with {content[:4]!r}, not {_MAGIC!r}. Give a "
            "file that save_packed wrote."
        )
    if content[len(_MAGIC) : begin] != bytes([_FORMAT]):
        raise InvalidCheckpoint(
            f"{path} has format {list(content[len(_MAGIC) : begin])}; this version of "
            f"optuna_shape reads format {_FORMAT}. Install the version that wrote it."
        )
    end = begin + hashlib.sha256().digest_size
    if hashlib.sha256(content[end:]).digest() != content[begin:end]:
        raise InvalidCheckpoint(
            f"{path} is damaged: its content does not fit its digest. Copy it again, or pack the "
            "network again."
        )
    return content[end:]


def _check(model: nn.Module, layout: object, length: int) -> None:
    """Refuse a network that a file of so many bytes cannot be of."""
    if _layout(model) != layout:
        raise ValueError("its tensors are not those of the network that was packed")
    if _size(model) > _most(length):
        raise ValueError(f"a network of {_size(model)} bytes in a file of {length}")


def _most(length: int) -> int:
    return _FREE + _RATIO * length


def _size(model: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in model.state_dict().values())


def _layout(model: nn.Module) -> str:
    """Return a digest of names, types and shapes."""
    tensors: list[Any] = [
        [name, str(tensor.dtype), list(tensor.shape)]
        for name, tensor in model.state_dict().items()
    ]
    return hashlib.sha256(json.dumps(tensors).encode()).hexdigest()[:16]
