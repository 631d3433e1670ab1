"""A matrix by asymmetric numeral systems [Duda2013]_, which come within a hair of the entropy.

The coder is that of the library constriction, an optional dependency. Each entry is a symbol, zero
included, and takes the logarithm of its frequency in bits, not a whole number as Huffman codes do.

.. [Duda2013] Duda. Asymmetric numeral systems: entropy coding combining speed of Huffman coding
   with compression rate of arithmetic coding. 2013. arXiv 1311.2540.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import numpy.typing as npt

from optuna_shape.compress import bits
from optuna_shape.compress.bits import Reader
from optuna_shape.compress.entries import Bits
from optuna_shape.compress.entries import Entries
from optuna_shape.compress.matrices import book_bytes
from optuna_shape.compress.matrices import read_book
from optuna_shape.errors import PackingUnavailable


def available() -> bool:
    """Whether the coder is installed."""
    return importlib.util.find_spec("constriction") is not None


def encode(entries: Entries) -> bytes:
    """Write all but shape and type.

    Raises:
        PackingUnavailable: The coder is not installed.
        ValueError: There are too many distinct values for a codebook.
    """
    stream = _coder()
    codebook, symbols = entries.symbols()
    counts = np.bincount(symbols, minlength=len(codebook))
    parts = [book_bytes(codebook), *(bits.whole(int(count)) for count in counts)]
    if len(codebook) > 1:
        coder = stream.stack.AnsCoder()
        coder.encode_reverse(symbols.astype(np.int32), _model(stream, counts))
        words = coder.get_compressed()
        parts += [bits.whole(len(words)), bits.raw(words)]
    return b"".join(parts)


def decode(reader: Reader, size: int, dtype: npt.DTypeLike) -> Bits:
    """Return ``size`` entries, column by column.

    Raises:
        PackingUnavailable: The coder is not installed.
        ValueError: The bytes are damaged.
    """
    stream = _coder()
    codebook = read_book(reader, dtype)
    counts = np.array([reader.whole(size) for _ in codebook], dtype=np.int64)
    if counts.sum() != size or (counts == 0).any():
        raise ValueError(f"the counts of {len(codebook)} values do not sum to {size} entries")
    if len(codebook) < 2:
        return np.repeat(codebook, counts)
    words = reader.raw(reader.whole(reader.left // 4), np.uint32)
    coder = stream.stack.AnsCoder(words)  # ValueError if the last word is 0.
    symbols = coder.decode(_model(stream, counts), size)
    if not coder.is_empty():
        raise ValueError("there are more symbols than entries")
    decoded: Bits = codebook[symbols]
    return decoded


def _model(stream: Any, counts: npt.NDArray[np.int64]) -> Any:
    return stream.model.Categorical(counts.astype(np.float64), perfect=False)


def _coder() -> Any:
    try:
        from constriction import stream
    except ImportError as error:
        raise PackingUnavailable(
            "Asymmetric numeral systems need the package constriction. Install it by "
            "pip install 'optuna_shape[ans]', or pack the network again without ans."
        ) from error
    return stream
