from __future__ import annotations

import numpy as np
import pytest

from optuna_shape.compress import bits
from optuna_shape.compress.bits import Reader


def test_codes_are_joined_the_highest_bit_first() -> None:
    stream = bits.pack(np.array([0b1, 0b011, 0b0, 0b11111]), np.array([1, 3, 1, 5]))
    assert stream == bytes([0b1011_0111, 0b1100_0000])


@pytest.mark.parametrize("count", [0, 1, 7, 1000, 600_000])
def test_codes_are_what_a_string_of_digits_says(count: int) -> None:
    rng = np.random.default_rng(count)
    lengths = rng.integers(0, 33, count)
    codes = rng.integers(0, 2**32, count) & ((1 << lengths) - 1)
    digits = "".join(f"{c:0{n}b}" for c, n in zip(codes.tolist(), lengths.tolist()) if n)
    stream = bits.pack(codes, lengths)
    assert len(stream) == -(-len(digits) // 8)
    if digits:
        padded = digits.ljust(8 * len(stream), "0")
        assert int.from_bytes(stream) == int(padded, 2)


@pytest.mark.parametrize("width", [0, 1, 5, 12, 31, 32])
def test_numbers_of_one_width_come_back(width: int) -> None:
    numbers = np.random.default_rng(width).integers(0, 2**width, 1001)
    stream = bits.pack_numbers(numbers, width)
    assert len(stream) == bits.packed_bytes(1001, width)
    assert np.array_equal(bits.unpack_numbers(stream, width, 1001), numbers)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**40])
def test_a_whole_number_comes_back(number: int) -> None:
    reader = Reader(bits.whole(number) + b"rest")
    assert reader.whole(2**41) == number
    assert reader.take(4) == b"rest"
    assert reader.left == 0


def test_a_reader_takes_no_more_than_there_is_or_may_be() -> None:
    with pytest.raises(ValueError, match="5 bytes are missing where 4 are left"):
        Reader(b"four").take(5)
    with pytest.raises(ValueError, match="300, above 299"):
        Reader(bits.whole(300)).whole(299)
    with pytest.raises(ValueError, match="has no end"):
        Reader(b"\xff" * 20).whole(2**62)
    with pytest.raises(ValueError, match="33 bits are too wide"):
        Reader(b"\xff" * 20).numbers(2, 33)
    with pytest.raises(ValueError, match="missing"):
        Reader(b"\xff" * 20).raw(2**60, "f4")
