"""A matrix as its entries in the order of columns: where they are not zero, and which values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from optuna_shape.compress.huffman import MOST_SYMBOLS

Bits: TypeAlias = npt.NDArray[np.unsignedinteger[Any]]

# Distinct values are looked for in so many entries first: of unshared weights, all differ.
_SAMPLE = 2**17


@dataclass(frozen=True, eq=False)
class Entries:
    """The entries of a matrix, without zeros. Numbers are taken as their bits.

    So minus zero is no zero, and every NaN comes back as it was.

    Attributes:
        shape: Rows ``n`` and columns ``m``.
        positions: ``(q,)`` places of what is not zero, in ``0 ... n m - 1``, column by column.
        values: ``(q,)`` unsigned integers, the bits of the numbers there.
        codebook: ``(k,)`` distinct values in ascending order; None if there are more than a code
            can hold.
        indices: ``(q,)`` places of the values in the codebook; None without one.
    """

    shape: tuple[int, int]
    positions: npt.NDArray[np.int64]
    values: Bits
    codebook: Bits | None
    indices: npt.NDArray[np.uint16] | None

    @classmethod
    def of(cls, matrix: npt.NDArray[Any]) -> Entries:
        """Take the entries of an ``(n, m)`` matrix of numbers of 1, 2, 4 or 8 bytes."""
        n, m = matrix.shape
        flat = np.ascontiguousarray(matrix.T).reshape(-1).view(f"u{matrix.itemsize}")
        positions = np.flatnonzero(flat)
        values = flat[positions]
        if len(np.unique(values[:_SAMPLE])) < MOST_SYMBOLS:
            codebook = np.unique(values)
            if len(codebook) < MOST_SYMBOLS:  # Zero may be a symbol besides.
                indices = np.searchsorted(codebook, values).astype(np.uint16)
                return cls((n, m), positions, values, codebook, indices)
        return cls((n, m), positions, values, None, None)

    def symbols(self) -> tuple[Bits, npt.NDArray[np.uint16]]:
        """Return the codebook with zero, if there are zeros, and the place of every entry in it.

        Raises:
            ValueError: There are too many distinct values for a codebook.
        """
        codebook, indices = self.shared()
        zero = int(self.zeros > 0)
        symbols = np.zeros(self.size, dtype=np.uint16)
        symbols[self.positions] = indices + zero
        return np.concatenate([np.zeros(zero, codebook.dtype), codebook]), symbols

    def shared(self) -> tuple[Bits, npt.NDArray[np.uint16]]:
        """Return codebook and indices.

        Raises:
            ValueError: There are too many distinct values for a codebook.
        """
        if self.codebook is None or self.indices is None:
            raise ValueError(
                f"The matrix has {MOST_SYMBOLS} distinct values or more, too many for a code. "
                "Share its weights first."
            )
        return self.codebook, self.indices

    @property
    def size(self) -> int:
        """Number of entries, zeros included."""
        return self.shape[0] * self.shape[1]

    @property
    def zeros(self) -> int:
        """Number of zeros."""
        return self.size - len(self.positions)
