"""Tensors as bytes, to the bit, each in the format that makes it smallest.

==========  ====================================================================================
``planes``  as it is, without bytes that are zero in all numbers (such as the lower two of
            bfloat16 numbers held in 32 bits)
``ham``     a Huffman code per entry, :class:`~optuna_shape.compress.matrices.HAM`
``sham``    a row index and a Huffman code per entry that is not zero,
            :class:`~optuna_shape.compress.matrices.SHAM`
``gaps``    Huffman codes of the gaps between those entries, and of their values,
            :mod:`optuna_shape.compress.gaps`
``ans``     asymmetric numeral systems, :mod:`optuna_shape.compress.ans`
==========  ====================================================================================

The weight of a layer is the transpose of the matrix that its inputs are multiplied with from the
left: outputs are columns, and all inputs of one output, the pixels of a kernel included, its rows.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from optuna_shape.compress import ans
from optuna_shape.compress import bits
from optuna_shape.compress import gaps
from optuna_shape.compress.bits import Reader
from optuna_shape.compress.entries import Bits
from optuna_shape.compress.entries import Entries
from optuna_shape.compress.matrices import HAM
from optuna_shape.compress.matrices import SHAM

#: The names of the formats; a format's place is its number in files.
FORMATS = ("planes", "ham", "sham", "gaps", "ans")
# Fewer entries than this are not worth a code.
_FEW = 16
# Types of the same width, whose numbers are the bits of others.
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def usual_formats() -> tuple[str, ...]:
    """Return the formats that can be written and read here."""
    return FORMATS if ans.available() else FORMATS[:-1]


def encode(tensor: torch.Tensor, formats: Collection[str] | None = None) -> tuple[str, bytes]:
    """Encode a tensor in the format that makes it smallest.

    Args:
        tensor:
            Dense, of real numbers of 1, 2, 4 or 8 bytes, on any device.
        formats:
            The formats to choose from; by default all that are at hand. ``planes`` always is.

    Returns:
        The name of the format, and the bytes, without the tensor's shape and type.

    Raises:
        ValueError: The tensor is none of those.
        PackingUnavailable: ``ans`` was asked for and is not installed.
    """
    columns = as_columns(tensor)
    best = "planes", _to_planes(columns.reshape(-1))
    if columns.size < _FEW:
        return best
    entries = Entries.of(columns.T)
    for name in usual_formats() if formats is None else formats:
        content = _encode(name, entries)
        if content is not None and len(content) < len(best[1]):
            best = name, content
    return best


def decode(name: str, reader: Reader, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Decode a tensor.

    Args:
        name:
            The format.
        reader:
            Stands at its bytes, and is moved behind them.
        shape:
            Shape of the tensor.
        dtype:
            Type of its numbers.

    Raises:
        ValueError: The bytes are damaged, or there is no such format.
        PackingUnavailable: The format is ``ans``, which is not installed.
    """
    size = math.prod(shape)
    kind = np.dtype(f"u{dtype.itemsize}")
    columns = shape[0] if len(shape) > 1 else 1
    flat = _decode(name, reader, (size // max(1, columns), columns), kind)
    numbers = torch.from_numpy(flat.view(f"i{dtype.itemsize}" if dtype.itemsize > 1 else "u1"))
    return numbers.view(dtype).reshape(shape)


def as_columns(tensor: torch.Tensor) -> Bits:
    """Return the bits of a tensor as ``(m, n)`` unsigned integers, a row per column of a matrix.

    Raises:
        ValueError: Its numbers are complex, or it is sparse or on meta.
    """
    if tensor.layout is not torch.strided or tensor.is_meta:
        what = "on meta" if tensor.is_meta else f"of layout {tensor.layout}"
        raise ValueError(f"A tensor {what} cannot be packed. Make it dense, on a device.")
    integers = _INTEGERS.get(tensor.element_size())
    if tensor.is_complex() or integers is None:
        raise ValueError(f"A tensor of {tensor.dtype} cannot be packed. Take its parts apart.")
    plain = tensor.detach().to("cpu", memory_format=torch.contiguous_format).reshape(-1)
    flat: npt.NDArray[Any] = plain.view(integers).numpy()
    columns = tensor.shape[0] if tensor.ndim > 1 else 1
    rows = len(flat) // max(1, columns)
    return flat.view(f"u{tensor.element_size()}").reshape(columns, rows)


def _encode(name: str, entries: Entries) -> bytes | None:
    """Write entries in one format, if it takes them; by their bits, whatever their type."""
    if name == "gaps":
        return gaps.encode(entries)
    if entries.codebook is None:
        return None
    if name == "ham":
        return HAM.of(entries, entries.values.dtype).to_bytes()
    if name == "sham" and len(entries.positions):
        return SHAM.of(entries, entries.values.dtype).to_bytes()
    if name == "ans":
        return ans.encode(entries)
    return None


def _decode(name: str, reader: Reader, shape: tuple[int, int], dtype: np.dtype[Any]) -> Bits:
    size = shape[0] * shape[1]
    if name == "planes":
        return _from_planes(reader, size, dtype)
    if name == "ham":
        return HAM.read(reader, shape, dtype).decode().T.reshape(-1)
    if name == "sham":
        return SHAM.read(reader, shape, dtype).decode().T.reshape(-1)
    if name == "gaps":
        return gaps.decode(reader, size, dtype)
    if name == "ans":
        return ans.decode(reader, size, dtype)
    raise ValueError(f"there is no format {name!r}")


def _to_planes(flat: Bits) -> bytes:
    planes = np.frombuffer(bits.raw(flat), np.uint8).reshape(len(flat), flat.itemsize)
    used = planes.any(axis=0)
    return np.packbits(used).tobytes() + planes[:, used].T.tobytes()


def _from_planes(reader: Reader, size: int, dtype: np.dtype[Any]) -> Bits:
    used = np.unpackbits(reader.raw(1, np.uint8))[: dtype.itemsize].astype(np.bool_)
    planes = np.zeros((size, dtype.itemsize), dtype=np.uint8)
    number = int(used.sum())
    planes[:, used] = reader.raw(number * size, np.uint8).reshape(number, size).T
    flat: Bits = planes.reshape(-1).view(dtype.newbyteorder("<")).astype(dtype)
    return flat
