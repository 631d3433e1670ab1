"""A matrix as Huffman codes of the gaps between its entries that are not zero, and of those.

A gap is the number of zeros before an entry, column by column through the whole matrix. Gaps of
``r`` zeros and more, which are rare, are symbols for ``r`` zeros and the rest; ``r`` is the power
of two that takes the least space. Where zeros are the rarer ones, gaps are between them: a code
takes a bit at least, too much for gaps that are nearly always 0. Values that differ too much for a
code are written as they are.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from optuna_shape.compress import bits
from optuna_shape.compress.bits import Reader
from optuna_shape.compress.entries import Bits
from optuna_shape.compress.entries import Entries
from optuna_shape.compress.huffman import Code
from optuna_shape.compress.huffman import Stream
from optuna_shape.compress.matrices import book_bytes
from optuna_shape.compress.matrices import read_book

_BLOCK = 256
# The longest gap that has a symbol of its own is below this power of two.
_MOST = 12


def encode(entries: Entries) -> bytes:
    """Write all but shape and type."""
    count = len(entries.positions)
    places = entries.positions
    if 2 * count > entries.size:
        zero = np.ones(entries.size, dtype=np.bool_)
        zero[places] = False
        places = np.flatnonzero(zero)
    return b"".join([bits.whole(count), _places(places), _values(entries) if count else b""])


def decode(reader: Reader, size: int, dtype: npt.DTypeLike) -> Bits:
    """Return ``size`` entries, column by column; :exc:`ValueError` where the bytes are damaged."""
    entries: Bits = np.zeros(size, dtype=dtype)
    count = reader.whole(size)
    if count == 0:
        return entries
    zeros = 2 * count > size
    kept = np.full(size, zeros)
    kept[_read_places(reader, size - count if zeros else count, size)] = not zeros
    codebook = read_book(reader, dtype)
    if len(codebook) == 0:
        entries[kept] = reader.raw(count, dtype)
    else:
        values = Code.read(reader, len(codebook))
        entries[kept] = codebook[Stream.read(reader, values, count, _BLOCK).decode()]
    return entries


def _places(places: npt.NDArray[np.int64]) -> bytes:
    """Write the gaps between places, whose number is the reader's to know."""
    if len(places) == 0:
        return b""
    gaps = np.diff(places, prepend=-1) - 1
    power, code = _best_code(gaps)
    symbols = _cut(gaps, 1 << power)
    parts = [
        bits.whole(power),
        bits.whole(len(symbols)),
        code.to_bytes(),
        Stream.of(symbols, code, _BLOCK).to_bytes(),
    ]
    return b"".join(parts)


def _read_places(reader: Reader, count: int, size: int) -> npt.NDArray[np.int64]:
    """Undo :func:`_places`; all are below ``size``."""
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    longest = 1 << reader.whole(_MOST)
    total = reader.whole(size)
    code = Code.read(reader, longest + 1)
    symbols = Stream.read(reader, code, total, _BLOCK).decode().astype(np.int64)
    ends = symbols < longest
    places = np.cumsum(symbols + ends)[ends] - 1
    if len(places) != count or places[-1] >= size:
        raise ValueError(f"gaps lead to {len(places)} places, not to {count} in {size}")
    return places


def _values(entries: Entries) -> bytes:
    """Write the values: by a code, or after an empty codebook as they are."""
    plain = bits.whole(0) + bits.raw(entries.values)
    if entries.codebook is None or entries.indices is None:
        return plain
    code = Code.of(np.bincount(entries.indices))
    stream = Stream.of(entries.indices, code, _BLOCK)
    coded = book_bytes(entries.codebook) + code.to_bytes() + stream.to_bytes()
    return min(coded, plain, key=len)


def _best_code(gaps: npt.NDArray[np.int64]) -> tuple[int, Code]:
    """Return the power of two that long gaps are cut by, and the code, of the least size."""
    common = bits.width_of(int(gaps.mean()))
    least = None
    for power in range(min(common, _MOST), min(common + 5, _MOST) + 1):
        counts = np.bincount(_cut(gaps, 1 << power), minlength=(1 << power) + 1)
        code = Code.of(counts)
        size = code.size(counts) + 8 * len(code.to_bytes())
        if least is None or size < least[0]:
            least = size, power, code
    assert least is not None  # The range is never empty.
    return least[1:]


def _cut(gaps: npt.NDArray[np.int64], longest: int) -> npt.NDArray[np.int64]:
    """Return the symbols of gaps: ``longest`` for as many zeros without an entry after them."""
    cuts, rests = np.divmod(gaps, longest)
    places = np.cumsum(cuts + 1) - 1
    symbols = np.full(places[-1] + 1, longest)
    symbols[places] = rests
    return symbols
