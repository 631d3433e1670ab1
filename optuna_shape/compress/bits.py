"""Streams of bits: codes of varying length, numbers of one width, and bytes read with care."""

from __future__ import annotations

from typing import Any
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Integers: TypeAlias = npt.NDArray[np.integer[Any]]
Words: TypeAlias = npt.NDArray[np.uint64]

# Codes at a time, so that packing takes little memory beside them.
_CHUNK = 2**17


def pack(codes: Integers, lengths: Integers) -> bytes:
    """Join codes to a stream of bits, the highest bit of each first.

    Args:
        codes: ``(q,)`` numbers.
        lengths: ``(q,)`` bits of each, at most 32.

    Returns:
        The stream, its last byte filled with zeros.
    """
    total = int(lengths.sum(dtype=np.int64))
    words = np.zeros(total // 32 + 2, dtype=np.uint64)
    begin = 0
    for first in range(0, len(codes), _CHUNK):
        length = lengths[first : first + _CHUNK].astype(np.int64)
        end = begin + np.cumsum(length)
        start = end - length
        shift = (64 - (start & 31) - length).clip(max=63)  # A code of no bits is 0.
        shifted = codes[first : first + _CHUNK].astype(np.uint64) << shift.astype(np.uint64)
        word = (start >> 5) - (begin >> 5)
        for later, part in enumerate((shifted >> np.uint64(32), shifted & np.uint64(2**32 - 1))):
            # The sums are below 2**32, and exact: no two codes have a bit in common.
            sums = np.bincount(word, weights=part).astype(np.uint64)
            words[(begin >> 5) + later :][: len(sums)] |= sums
        begin = int(end[-1])
    return words.astype(">u4").tobytes()[: -(-total // 8)]


def pack_numbers(numbers: Integers, width: int) -> bytes:
    """Join numbers of ``width`` bits each, at most 32."""
    return pack(numbers, np.full(len(numbers), width))


def windows(stream: bytes) -> Words:
    """Return the 64 bits that begin at each 32nd bit of a stream, which ends in zeros.

    So ``windows[p >> 5] << (p & 31)`` begins with at least 33 bits from bit ``p`` on.
    """
    padded = stream + bytes(-len(stream) % 4 + 8)
    words = np.frombuffer(padded, dtype=">u4").astype(np.uint64)
    result = words[:-1] << np.uint64(32)
    result |= words[1:]
    return result


def unpack_numbers(stream: bytes, width: int, count: int) -> Integers:
    """Undo :func:`pack_numbers`, into the narrowest type."""
    numbers: Integers = np.zeros(count, dtype=type_of(width))
    if width == 0:
        return numbers
    words = windows(stream)
    for first in range(0, count, _CHUNK):
        start = np.arange(first, min(first + _CHUNK, count), dtype=np.uint64) * np.uint64(width)
        begun = words[start >> np.uint64(5)] << (start & np.uint64(31))
        numbers[first : first + _CHUNK] = begun >> np.uint64(64 - width)
    return numbers


def type_of(width: int) -> type[np.unsignedinteger[Any]]:
    """Return the narrowest type of numbers of ``width`` bits, at most 32."""
    return np.uint8 if width <= 8 else np.uint16 if width <= 16 else np.uint32


def packed_bytes(count: int, width: int) -> int:
    """Length of what :func:`pack_numbers` returns."""
    return -(-count * width // 8)


def width_of(largest: int) -> int:
    """Bits of the numbers from 0 to ``largest``."""
    return int(largest).bit_length()


def whole(number: int) -> bytes:
    """Write a number of 0 or more: seven bits a byte, the lowest first."""
    result = bytearray()
    while number >= 0x80:
        result.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*result, number])


def raw(numbers: npt.NDArray[Any]) -> bytes:
    """Write numbers as they are, the lowest byte first."""
    return numbers.astype(numbers.dtype.newbyteorder("<"), copy=False).tobytes()


class Reader:
    """Takes bytes from the front, and never more than there are.

    Args:
        content: All bytes.

    All methods raise :exc:`ValueError` where the content ends too early or makes no sense.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._position = 0

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        if count > self.left:
            raise ValueError(f"{count} bytes are missing where {self.left} are left")
        self._position += count
        return self._content[self._position - count : self._position]

    def whole(self, most: int) -> int:
        """Return a number that :func:`whole` wrote, at most ``most``."""
        number = shift = 0
        while True:
            (byte,) = self.take(1)
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift > 63:
                raise ValueError("a number has no end")
        if number > most:
            raise ValueError(f"a number is {number}, above {most}")
        return number

    def numbers(self, count: int, width: int) -> Integers:
        """Return numbers that :func:`pack_numbers` wrote."""
        if width > 32:
            raise ValueError(f"numbers of {width} bits are too wide")
        return unpack_numbers(self.take(packed_bytes(count, width)), width, count)

    def raw(self, count: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return numbers that :func:`raw` wrote."""
        kind = np.dtype(dtype)
        content = self.take(count * kind.itemsize)
        return np.frombuffer(content, kind.newbyteorder("<")).astype(kind)

    @property
    def left(self) -> int:
        """Bytes that were not taken."""
        return len(self._content) - self._position
