r"""Matrices as Huffman codes that can be multiplied without being unpacked.

Both formats are those of [Marino2020]_ for an ``(n, m)`` matrix of which a share :math:`s` of the
entries is not zero, in :math:`k` distinct values, where a number takes :math:`B` bits:

* HAM, the Huffman address map: one code per entry, zeros included, column by column. Of an
  uncompressed matrix it takes at most the share

  .. math:: \psi \le \frac{1 + \log_2 k}{B} + \frac{6 k}{n m}.

* sHAM, its sparse form: a code and a row index per entry that is not zero, and the number of them
  in each column. With :math:`b = \lceil \log_2 n \rceil` bits per row index,

  .. math:: \psi \le s\,\frac{1 + \log_2 k + b}{B} + \frac{6 k}{n m} + \frac{m + 1}{n m}.

  The paper counts :math:`n` row indices; there are :math:`s n m`.

A code is canonical, so the codebook and the lengths of the codes say it all: at most two of the
six words per value that the paper counts for two dictionaries.

.. [Marino2020] Marino, Ghidoli, Frasca, Malchiodi. Compression strategies and space-conscious
   representations for deep neural networks. ICPR 2020. arXiv 2007.07967.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from optuna_shape.compress import bits
from optuna_shape.compress.bits import Reader
from optuna_shape.compress.entries import Entries
from optuna_shape.compress.huffman import MOST_SYMBOLS
from optuna_shape.compress.huffman import Code
from optuna_shape.compress.huffman import Looks
from optuna_shape.compress.huffman import Stream

# Symbols per block.
_BLOCK = 256
# Blocks decoded side by side: numpy is busy with so many, and a cache holds what they need. Each
# is chosen from those that are so near.
_LANES = 2**13
_NEAR = 2**14
# Products summed at a time.
_PRODUCTS = 2**16

Numbers: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class HAM:
    """A matrix as one Huffman code per entry.

    Attributes:
        shape: Rows ``n`` and columns ``m``.
        codebook: ``(k,)`` distinct numbers; the first is zero if there are zeros.
        stream: Places in the codebook, column by column.
    """

    shape: tuple[int, int]
    codebook: Numbers
    stream: Stream

    @classmethod
    def encode(cls, matrix: Numbers) -> HAM:
        """Encode an ``(n, m)`` matrix.

        Raises:
            ValueError: It has too many distinct values for a code.
        """
        return cls.of(Entries.of(matrix), matrix.dtype)

    @classmethod
    def of(cls, entries: Entries, dtype: npt.DTypeLike) -> HAM:
        """Encode entries whose bits are numbers of this type."""
        codebook, symbols = entries.symbols()
        code = Code.of(np.bincount(symbols, minlength=len(codebook)))
        return cls(entries.shape, codebook.view(dtype), Stream.of(symbols, code, _BLOCK))

    def to_bytes(self) -> bytes:
        """Write all but shape and type."""
        return book_bytes(self.codebook) + self.stream.code.to_bytes() + self.stream.to_bytes()

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, int], dtype: npt.DTypeLike) -> HAM:
        """Undo :meth:`to_bytes`; :exc:`ValueError` where that fails."""
        codebook = read_book(reader, dtype)
        code = Code.read(reader, len(codebook))
        return cls(shape, codebook, Stream.read(reader, code, shape[0] * shape[1], _BLOCK))

    def decode(self) -> Numbers:
        """Return the matrix."""
        n, m = self.shape
        result: Numbers = self.codebook[self.stream.decode()].reshape(m, n).T
        return result

    def dot(self, x: Numbers) -> Numbers:
        """Multiply vectors from the left, ``x @ matrix``, without the matrix in memory.

        Args:
            x: ``(n,)`` vector or ``(batch, n)`` of them.

        Returns:
            ``(m,)`` or ``(batch, m)``.
        """
        n, m = self.shape
        vectors = np.atleast_2d(_checked(x, self.shape))
        dtype = np.result_type(x, self.codebook)
        result = np.zeros((len(vectors), m), dtype)
        if n == 0 or m == 0:
            return result.reshape(*x.shape[:-1], m)
        # A block may go on in the next column; and place 0 is for what does not count.
        rows = np.zeros((len(vectors), 1 + n + _BLOCK), dtype)
        np.take(vectors, np.arange(n + _BLOCK) % n, axis=1, out=rows[:, 1:])
        values = self.codebook.astype(dtype)[self._looks.found]
        for blocks in self._lanes():
            self._add(blocks, rows, values, result)
        return result.reshape(*x.shape[:-1], m)

    @cached_property
    def _looks(self) -> Looks:
        zero = not self.codebook[:1].tobytes().strip(b"\0")
        return Looks.of(self.stream.code, runs=zero)

    def _lanes(self) -> Iterator[npt.NDArray[np.int64]]:
        """Yield blocks to decode side by side: near ones, that end after about as many looks."""
        n, _ = self.shape
        starts = self.stream.starts
        lengths = np.diff(starts, append=8 * len(self.stream.content)).astype(np.uint16)
        for first in range(0, len(starts), _NEAR):
            blocks = np.arange(first, min(first + _NEAR, len(starts)))
            whole = blocks * _BLOCK % n + _BLOCK <= n
            for some in (blocks[whole], blocks[~whole]):
                alike = some[np.argsort(lengths[some], kind="stable")]
                for begin in range(0, len(alike), _LANES):
                    yield alike[begin : begin + _LANES]

    def _add(
        self, blocks: npt.NDArray[np.int64], rows: Numbers, values: Numbers, result: Numbers
    ) -> None:
        """Add the products of some blocks.

        Args:
            blocks: ``(lanes,)`` which.
            rows: ``(batch, 1 + n + block)`` zero, and the vectors, that begin again at their end.
            values: Of the symbols that looks find.
            result: ``(batch, m)``, added to.
        """
        n, m = self.shape
        first = blocks * _BLOCK
        before = first % n
        column = first // n
        end = before + np.minimum(_BLOCK, n * m - first)
        across = bool(end.max() > n)
        sums = np.zeros((len(rows), len(blocks)), dtype=rows.dtype)
        value = np.empty(len(blocks), dtype=rows.dtype)
        product = np.empty_like(value)
        safe = 0
        for seen, place in self.stream.walk(blocks, before, self._looks):
            values.take(seen, mode="clip", out=value)
            if safe:
                safe -= 1
            else:
                late = place > end
                if late.all():
                    break
                if late.any():
                    np.copyto(value, 0, where=late)
                    np.copyto(place, 0, where=late)
                else:  # In so many looks, no block ends.
                    safe = int((end - place).min()) // self._looks.bits
            if across:
                columns = column + (place - 1).clip(0) // n
            for vector, total, out in zip(rows, sums, result):
                vector.take(place, mode="clip", out=product)
                product *= value
                if across:
                    np.add.at(out, columns, product)
                else:
                    total += product
        if not across:
            for total, out in zip(sums, result):
                np.add.at(out, column, total)


@dataclass(frozen=True, eq=False)
class SHAM:
    """A matrix as a row index and a Huffman code per entry that is not zero.

    Attributes:
        shape: Rows ``n`` and columns ``m``.
        codebook: ``(k,)`` distinct numbers, none of them zero.
        stream: Places in the codebook, column by column.
        rows: ``(q,)`` row of each entry, in the narrowest type that holds it.
        ends: ``(m + 1,)`` number of entries before each column, and of all.
    """

    shape: tuple[int, int]
    codebook: Numbers
    stream: Stream
    rows: Numbers
    ends: npt.NDArray[np.int64]

    @classmethod
    def encode(cls, matrix: Numbers) -> SHAM:
        """Encode an ``(n, m)`` matrix.

        Raises:
            ValueError: It has too many distinct values for a code.
        """
        return cls.of(Entries.of(matrix), matrix.dtype)

    @classmethod
    def of(cls, entries: Entries, dtype: npt.DTypeLike) -> SHAM:
        """Encode entries whose bits are numbers of this type."""
        codebook, indices = entries.shared()
        n, m = entries.shape
        ends = np.searchsorted(entries.positions, np.arange(m + 1) * n)
        rows = entries.positions - np.repeat(np.arange(m) * n, np.diff(ends))
        code = Code.of(np.bincount(indices, minlength=len(codebook)))
        stream = Stream.of(indices, code, _BLOCK)
        return cls(
            entries.shape,
            codebook.view(dtype),
            stream,
            rows.astype(bits.type_of(bits.width_of(n - 1))),
            ends,
        )

    def to_bytes(self) -> bytes:
        """Write all but shape and type."""
        n, _ = self.shape
        counts = np.diff(self.ends)
        width = bits.width_of(int(counts.max(initial=0)))
        parts = [
            bits.whole(width),
            bits.pack_numbers(counts, width),
            bits.pack_numbers(self.rows, bits.width_of(n - 1)),
            book_bytes(self.codebook),
            self.stream.code.to_bytes(),
            self.stream.to_bytes(),
        ]
        return b"".join(parts)

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, int], dtype: npt.DTypeLike) -> SHAM:
        """Undo :meth:`to_bytes`; :exc:`ValueError` where that fails."""
        n, m = shape
        counts = reader.numbers(m, reader.whole(32)).astype(np.int64)
        if counts.max(initial=0) > n:
            raise ValueError(f"a column of {n} rows has {counts.max()} entries")
        ends = np.concatenate([[0], np.cumsum(counts)])
        rows = reader.numbers(int(ends[-1]), bits.width_of(n - 1))
        if len(rows) and rows.max() >= n:
            raise ValueError(f"an entry is in row {rows.max()} of {n}")
        codebook = read_book(reader, dtype)
        code = Code.read(reader, len(codebook))
        stream = Stream.read(reader, code, len(rows), _BLOCK)
        return cls(shape, codebook, stream, rows, ends)

    def decode(self) -> Numbers:
        """Return the matrix."""
        n, m = self.shape
        result = np.zeros(n * m, dtype=self.codebook.dtype)
        columns = np.repeat(np.arange(m) * n, np.diff(self.ends))
        result[columns + self.rows] = self.codebook[self.stream.decode()]
        return result.reshape(m, n).T

    def dot(self, x: Numbers) -> Numbers:
        """Multiply vectors from the left, ``x @ matrix``, without the matrix in memory.

        Args:
            x: ``(n,)`` vector or ``(batch, n)`` of them.

        Returns:
            ``(m,)`` or ``(batch, m)``.
        """
        product = _Product(x, self.shape, self.codebook)
        for before, symbols in self.stream.parts():
            for some in _slices(len(symbols)):
                begin, end = before + some.start, before + some.stop
                first = int(np.searchsorted(self.ends, begin, side="right")) - 1
                last = int(np.searchsorted(self.ends, end))
                bounds = self.ends[first : last + 1].clip(begin, end) - begin
                product.add(self.rows[begin:end], symbols[some], first, bounds)
        return product.result


class _Product:
    """Sums the products of a vector, or of several, with the columns of a matrix.

    Args:
        x: ``(n,)`` or ``(batch, n)``.
        shape: Of the matrix, ``(n, m)``.
        codebook: ``(k,)`` numbers of the matrix.
    """

    def __init__(self, x: Numbers, shape: tuple[int, int], codebook: Numbers) -> None:
        self._codebook = codebook
        self._x = np.ascontiguousarray(_checked(x, shape))
        self.result = np.zeros((*x.shape[:-1], shape[1]), dtype=np.result_type(x, codebook))

    def add(
        self,
        rows: Numbers,
        symbols: npt.NDArray[np.uint16],
        first: int,
        bounds: npt.NDArray[np.int64],
    ) -> None:
        """Add entries of consecutive columns.

        Args:
            rows: ``(q,)`` row of each entry.
            symbols: ``(q,)`` place of its number in the codebook.
            first: Column of the first entry.
            bounds: ``(c + 1,)`` where in ``rows`` each column begins, and the last one ends.
        """
        filled = np.flatnonzero(np.diff(bounds))
        values = self._codebook.take(symbols, mode="clip")
        columns = first + filled
        if self._x.ndim == 1:
            products = self._x.take(rows, mode="clip") * values
            self.result[columns] += np.add.reduceat(products, bounds[filled])
            return
        step = max(1, _PRODUCTS // len(rows))
        for begin in range(0, len(self._x), step):  # A batch takes no more memory than a vector.
            products = self._x[begin : begin + step].take(rows, axis=1, mode="clip") * values
            sums = np.add.reduceat(products, bounds[filled], axis=1)
            self.result[begin : begin + step, columns] += sums


def bound(
    kind: type[HAM] | type[SHAM], shape: tuple[int, int], q: int, k: int, word: int = 32
) -> float:
    r"""Return the most that a format takes, as a share :math:`\psi` of the uncompressed matrix.

    Args:
        kind: The format.
        shape: Rows and columns of the matrix.
        q: Entries that are not zero.
        k: Distinct values, zero included for HAM.
        word: Bits of a number.
    """
    n, m = shape
    dictionaries = 6 * k / (n * m)
    symbol = 1 + math.log2(k) if k else 0.0
    if kind is HAM:
        return symbol / word + dictionaries
    entry = symbol + bits.width_of(n - 1)
    return q / (n * m) * entry / word + dictionaries + (m + 1) / (n * m)


def _checked(x: Numbers, shape: tuple[int, int]) -> Numbers:
    n, _ = shape
    if x.ndim not in (1, 2) or x.shape[-1] != n:
        raise ValueError(
            f"x of shape {x.shape} cannot be multiplied with a matrix of shape {shape}. "
            f"Give ({n},) or (batch, {n})."
        )
    return x


def _slices(count: int) -> Iterator[slice]:
    for begin in range(0, count, _PRODUCTS):
        yield slice(begin, min(begin + _PRODUCTS, count))


def book_bytes(codebook: Numbers) -> bytes:
    """Write a codebook."""
    return bits.whole(len(codebook)) + bits.raw(codebook)


def read_book(reader: Reader, dtype: npt.DTypeLike) -> Numbers:
    """Undo :func:`book_bytes`; :exc:`ValueError` where that fails."""
    return reader.raw(reader.whole(MOST_SYMBOLS), dtype)
