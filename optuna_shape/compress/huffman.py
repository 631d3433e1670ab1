"""Canonical Huffman codes, limited in length so that one look into a table decodes a symbol.

A stream of them is cut into blocks that can be decoded side by side: numpy takes one step in all
blocks at once. Where each block begins costs about a byte.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from optuna_shape.compress import bits
from optuna_shape.compress.bits import Integers
from optuna_shape.compress.bits import Reader
from optuna_shape.compress.bits import Words

#: Bits of the longest code.
LONGEST = 16
#: Most symbols of an alphabet. Half of what codes of 16 bits could tell apart.
MOST_SYMBOLS = 2 ** (LONGEST - 1)
# Blocks decoded side by side: enough for numpy to be busy with, few enough for a cache.
_LANES = 4096
# An entry of a decoding table holds a symbol above the bits of its code.
_LENGTH_BITS = np.uint64(5)
_LENGTH = np.uint64(31)
# Bits that a look for runs sees at least: its tables are to stay in a fast cache.
_SEEN = 11
_HALF = 32


def code_lengths(counts: Integers, longest: int = LONGEST) -> npt.NDArray[np.uint8]:
    """Return the lengths of the best prefix code whose codes are not too long.

    By package-merge [Larmore1990]_: coins of ``2**-l`` for each symbol and length are bought for
    the least sum of counts.

    Args:
        counts: ``(k,)`` how often each symbol occurs; at most ``2**longest`` do.
        longest: Bits of the longest code.

    Returns:
        ``(k,)`` bits of each code; 0 for symbols that do not occur, 1 for one that occurs alone.

    .. [Larmore1990] Larmore, Hirschberg. A fast algorithm for optimal length-limited Huffman
       codes. J. ACM 37, 1990.
    """
    lengths = np.zeros(len(counts), dtype=np.uint8)
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    if len(order) < 2:
        lengths[order] = 1
        return lengths
    singles = counts[order].astype(np.int64)
    packages = singles[:0]
    levels = []
    for _ in range(longest):
        coins = np.concatenate([singles, packages])
        ranking = np.argsort(coins, kind="stable")
        levels.append(ranking < len(singles))
        pairs = coins[ranking][: len(coins) // 2 * 2]
        packages = pairs[::2] + pairs[1::2]
    bought = 2 * (len(order) - 1)
    for single in reversed(levels):
        number = int(single[:bought].sum())
        lengths[order[:number]] += 1
        bought = 2 * (bought - number)
    return lengths


@dataclass(frozen=True, eq=False)
class Code:
    """A canonical code, which follows from the lengths alone.

    Attributes:
        lengths: ``(k,)`` bits of each code, 0 for symbols that have none; empty where there is
            nothing to encode.

    Raises:
        ValueError: No complete prefix code has these lengths.
    """

    lengths: npt.NDArray[np.uint8]

    def __post_init__(self) -> None:
        if len(self.lengths) == 0:
            return
        used = self.lengths[self.lengths > 0].astype(np.int64)
        alone = len(used) == 1 and used[0] == 1
        if len(used) == 0 or used.max() > LONGEST:
            raise ValueError("a code has no symbols, or too long ones")
        if not alone and (1 << (LONGEST - used)).sum() != 1 << LONGEST:
            raise ValueError("code lengths make no complete prefix code")

    @classmethod
    def of(cls, counts: Integers) -> Code:
        """Return the shortest code for these counts, of which one is above 0, or there is none."""
        return cls(code_lengths(counts))

    @property
    def longest(self) -> int:
        """Bits of the longest code."""
        return int(self.lengths.max(initial=0))

    @cached_property
    def codes(self) -> npt.NDArray[np.int64]:
        """The code of each symbol, ``(k,)``."""
        order = np.argsort(self.lengths, kind="stable")
        order = order[self.lengths[order] > 0]
        unused = self.longest - self.lengths[order].astype(np.int64)
        room = 1 << unused
        codes = np.zeros(len(self.lengths), dtype=np.int64)
        codes[order] = (np.cumsum(room) - room) >> unused
        return codes

    @cached_property
    def table(self) -> Words:
        """For each beginning of ``longest`` bits, the symbol above the 5 bits of its length."""
        order = np.argsort(self.lengths, kind="stable")
        order = order[self.lengths[order] > 0]
        lengths = self.lengths[order].astype(np.uint64)
        room = 1 << (self.longest - self.lengths[order].astype(np.int64))
        if len(order) == 1:
            room *= 2
        return np.repeat((order.astype(np.uint64) << _LENGTH_BITS) | lengths, room)

    def size(self, counts: Integers) -> int:
        """Bits of all symbols, without the code itself."""
        return int(self.lengths.astype(np.int64) @ counts.astype(np.int64))

    def to_bytes(self) -> bytes:
        """Write the lengths; the number of symbols is the reader's to know."""
        plain = bits.pack_numbers(self.lengths, int(_LENGTH_BITS))
        squeezed = zlib.compress(self.lengths.tobytes(), 9)
        if len(squeezed) + 2 < len(plain):
            return bits.whole(len(squeezed)) + squeezed
        return bits.whole(0) + plain

    @classmethod
    def read(cls, reader: Reader, symbols: int) -> Code:
        """Undo :meth:`to_bytes`; :exc:`ValueError` where that fails."""
        squeezed = reader.whole(reader.left)
        if squeezed == 0:
            return cls(reader.numbers(symbols, int(_LENGTH_BITS)).astype(np.uint8))
        try:
            plain = zlib.decompressobj().decompress(reader.take(squeezed), symbols + 1)
        except zlib.error as error:
            raise ValueError(f"code lengths are damaged: {error}") from error
        if len(plain) != symbols:
            raise ValueError(f"{len(plain)} code lengths are no code of {symbols} symbols")
        return cls(np.frombuffer(plain, dtype=np.uint8))


@dataclass(frozen=True, eq=False)
class Stream:
    """Symbols as codes, in blocks.

    Attributes:
        code: Of the symbols.
        count: Number of symbols.
        block: Symbols of each block but the last.
        starts: ``(blocks,)`` first bit of each block.
        content: The codes.
    """

    code: Code
    count: int
    block: int
    starts: npt.NDArray[np.int64]
    content: bytes

    @classmethod
    def of(cls, symbols: Integers, code: Code, block: int) -> Stream:
        """Encode ``(q,)`` symbols."""
        lengths = code.lengths[symbols]
        content = bits.pack(code.codes[symbols], lengths)
        firsts = np.arange(0, len(symbols), block)
        sizes = np.add.reduceat(lengths, firsts, dtype=np.int64) if len(symbols) else firsts
        return cls(code, len(symbols), block, np.cumsum(sizes) - sizes, content)

    def to_bytes(self) -> bytes:
        """Write the codes and where blocks begin; code, count and block are the reader's."""
        sizes = np.diff(self.starts)
        least = int(sizes.min(initial=2**62)) if len(sizes) else 0
        width = bits.width_of(int((sizes - least).max(initial=0)))
        parts = [
            bits.whole(len(self.content)),
            bits.whole(least),
            bits.whole(width),
            bits.pack_numbers(sizes - least, width),
            self.content,
        ]
        return b"".join(parts)

    @classmethod
    def read(cls, reader: Reader, code: Code, count: int, block: int) -> Stream:
        """Undo :meth:`to_bytes`; :exc:`ValueError` where that fails."""
        if count and len(code.lengths) == 0:
            raise ValueError(f"a code of no symbols is for {count}")
        length = reader.whole(reader.left)
        least = reader.whole(8 * length)
        width = reader.whole(32)
        blocks = -(-count // block)
        sizes = reader.numbers(max(0, blocks - 1), width).astype(np.int64) + least
        starts = np.concatenate([np.zeros(min(1, blocks), np.int64), np.cumsum(sizes)])
        content = reader.take(length)
        if blocks and starts[-1] > 8 * length:
            raise ValueError("a block begins after the end of its stream")
        return cls(code, count, block, starts, content)

    @cached_property
    def _windows(self) -> Words:
        return bits.windows(self.content)

    def decode(self) -> npt.NDArray[np.uint16]:
        """Return all symbols."""
        parts = [symbols for _, symbols in self.parts()]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint16)

    def parts(self) -> Iterator[tuple[int, npt.NDArray[np.uint16]]]:
        """Yield the symbols part by part, each with the number of symbols before it."""
        for first in range(0, len(self.starts), _LANES):
            before = first * self.block
            symbols = self._decode_lanes(self.starts[first : first + _LANES])
            yield before, symbols.reshape(-1)[: self.count - before]

    def _decode_lanes(self, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint16]:
        """Decode blocks side by side, ``(lanes, block)``."""
        windows, table = self._windows, self.code.table
        longest = self.code.longest
        top = np.uint64(64 - longest)
        position = starts.astype(np.uint64)
        steps = min(self.block, self.count)
        result = np.empty((steps, len(starts)), dtype=np.uint16)
        for begin in range(0, steps, 33 // longest):
            window = look(windows, position)
            for step in range(begin, min(begin + 33 // longest, steps)):
                entry = table[(window >> top).view(np.int64)]
                result[step] = entry >> _LENGTH_BITS
                entry &= _LENGTH
                window <<= entry
                position += entry
        return np.ascontiguousarray(result.T)

    def walk(
        self, blocks: Integers, before: Integers, looks: Looks
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Take looks into blocks side by side, on and on, also beyond their ends.

        Args:
            blocks:
                ``(lanes,)`` which blocks; they lie within 2**31 bits.
            before:
                ``(lanes,)`` the number from which each counts its symbols.
            looks:
                What a look decodes.

        Yields:
            ``(lanes,)`` places in the tables of the looks, and the number of symbols of each block
            up to there. The next look overwrites both.
        """
        starts = self.starts[blocks]
        first = int(starts.min()) >> 5
        windows = self._windows[first:]
        # A position in the upper half, a number of symbols in the lower: one sum moves both.
        total = (starts - (first << 5)) << _HALF | before
        step, count = np.empty_like(total), np.empty_like(total)
        window = np.empty(len(starts), dtype=np.uint64)
        seen = np.empty_like(window)
        top = np.uint64(64 - looks.bits)
        while True:
            np.right_shift(total, _HALF + 5, out=count)
            windows.take(count, mode="clip", out=window)
            np.right_shift(total, _HALF, out=count)
            count &= 31
            window <<= count.view(np.uint64)
            for _ in range(33 // looks.bits):
                np.right_shift(window, top, out=seen)
                place = seen.view(np.int64)
                looks.steps.take(place, mode="clip", out=step)
                total += step
                np.bitwise_and(total, 2**_HALF - 1, out=count)
                yield place, count
                step >>= _HALF
                window <<= step.view(np.uint64)


def look(windows: Words, position: Words) -> Words:
    """Return 64 bits that begin with at least 33 from each position of a stream on.

    Positions behind the end, which only a damaged stream has, read its last bits.
    """
    begun: Words = windows.take((position >> np.uint64(5)).view(np.int64), mode="clip")
    return begun << (position & np.uint64(31))


@dataclass(frozen=True, eq=False)
class Looks:
    """What one look at the next bits of a stream decodes.

    Attributes:
        bits: How many it sees.
        steps: ``(2**bits,)`` bits that it decodes in the upper half, symbols in the lower.
        found: ``(2**bits,)`` the last of these symbols.
    """

    bits: int
    steps: npt.NDArray[np.int64]
    found: npt.NDArray[np.int64]

    @classmethod
    def of(cls, code: Code, *, runs: bool) -> Looks:
        """Decode a symbol by each look, or of ``runs`` any number of symbol 0 and one other.

        Where a look does not see all of the other symbol, the last one is 0.
        """
        seen = max(code.longest, _SEEN) if runs else code.longest
        window = np.arange(1 << seen, dtype=np.int64)
        found, used = _first(code, window, seen)
        passed = np.ones_like(window)
        running = found == 0 if runs else np.zeros(len(window), np.bool_)
        while running.any():
            symbol, length = _first(code, window << used, seen)
            running &= used + length <= seen
            found = np.where(running, symbol, found)
            used += np.where(running, length, 0)
            passed += running
            running &= symbol == 0
        return cls(seen, used << _HALF | passed, found)


def _first(
    code: Code, window: npt.NDArray[np.int64], width: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the first symbol of the last ``width`` bits of each window, and its length."""
    within = window & ((1 << width) - 1)
    entry = code.table[within >> (width - code.longest)].view(np.int64)
    return entry >> int(_LENGTH_BITS), entry & int(_LENGTH)
