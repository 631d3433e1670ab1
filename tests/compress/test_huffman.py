from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from optuna_shape.compress.bits import Reader
from optuna_shape.compress.huffman import LONGEST
from optuna_shape.compress.huffman import Code
from optuna_shape.compress.huffman import Looks
from optuna_shape.compress.huffman import Stream
from optuna_shape.compress.huffman import code_lengths


def huffman_size(counts: Sequence[int]) -> int:
    """Bits of the shortest prefix code of any length, by merging the two rarest symbols."""
    heap, total = list(counts), 0
    heapq.heapify(heap)
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        total += merged
        heapq.heappush(heap, merged)
    return total


@pytest.mark.parametrize("seed", range(20))
def test_lengths_are_huffmans_where_none_is_too_long(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 100, rng.integers(2, 60))
    lengths = code_lengths(counts)
    assert int(lengths @ counts) == huffman_size(counts.tolist())


@pytest.mark.parametrize("longest", [2, 3, 4])
def test_limited_lengths_are_the_best_of_all(longest: int) -> None:
    counts = np.array([1, 1, 2, 20])
    lengths = code_lengths(counts, longest)
    best = min(
        int(np.array(trial) @ counts)
        for trial in itertools.product(range(1, longest + 1), repeat=4)
        if sum(2.0**-length for length in trial) <= 1
    )
    assert lengths.max() <= longest
    assert int(lengths @ counts) == best


def test_no_code_is_longer_than_the_table_even_for_fibonacci_counts() -> None:
    counts = [1, 1]
    while len(counts) < 40:
        counts.append(counts[-1] + counts[-2])
    code = Code.of(np.array(counts))
    assert code.longest == LONGEST
    assert (0.5 ** code.lengths.astype(float)).sum() == 1


def test_a_size_is_between_the_entropy_and_a_bit_more() -> None:
    counts = np.random.default_rng(0).zipf(1.5, 300).clip(max=10**6)
    entropy = -(counts * np.log2(counts / counts.sum())).sum()
    assert entropy <= Code.of(counts).size(counts) <= entropy + counts.sum()


def test_codes_are_canonical_and_no_code_begins_another() -> None:
    code = Code.of(np.array([5, 1, 0, 1, 2]))
    words = {s: f"{code.codes[s]:0{code.lengths[s]}b}" for s in (0, 1, 3, 4)}
    assert words == {0: "0", 4: "10", 1: "110", 3: "111"}


@pytest.mark.parametrize(
    "lengths",
    [[0, 0], [1, 1, 1], [1, 2], [2], [17, 1], [0, 3, 3]],
    ids=str,
)
def test_lengths_of_no_complete_code_are_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="code"):
        Code(np.array(lengths, dtype=np.uint8))


@pytest.mark.parametrize("k", [1, 2, 33, 3000])
def test_a_code_comes_back(k: int) -> None:
    counts = np.bincount(np.random.default_rng(k).geometric(3 / k if k > 4 else 0.5, 5000) % k)
    code = Code.of(counts)
    reader = Reader(code.to_bytes())
    assert np.array_equal(Code.read(reader, len(counts)).lengths, code.lengths)
    assert reader.left == 0


def test_regular_lengths_take_less_than_five_bits_each() -> None:
    code = Code.of((1e6 * 0.99 ** np.arange(1000)).astype(np.int64) + 1)
    assert len(code.to_bytes()) < 300


@pytest.mark.parametrize("block", [1, 16, 256])
@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 5000])
def test_symbols_come_back(count: int, block: int) -> None:
    rng = np.random.default_rng(count)
    symbols = np.minimum(rng.geometric(0.3, count) - 1, 11)
    code = Code.of(np.bincount(np.append(symbols, [0, 3])))
    reader = Reader(Stream.of(symbols, code, block).to_bytes())
    stream = Stream.read(reader, code, count, block)
    assert reader.left == 0
    assert np.array_equal(stream.decode(), symbols)


@pytest.mark.parametrize("zeros", [0.05, 0.7, 0.99])
@pytest.mark.parametrize("runs", [False, True])
def test_looks_find_the_symbols_and_pass_over_runs(runs: bool, zeros: float) -> None:
    rng = np.random.default_rng(0)
    symbols = rng.geometric(0.3, 900).clip(max=200) * (rng.random(900) > zeros)
    code = Code.of(np.bincount(symbols, minlength=201) + (np.arange(201) < 201))
    stream = Stream.of(symbols, code, 100)
    looks = Looks.of(code, runs=runs)
    blocks, before = np.array([6, 2, 3]), np.array([0, 1000, 7])
    seen: list[dict[int, int]] = [{}, {}, {}]
    steps = 0
    for place, count in stream.walk(blocks, before, looks):
        for block, last, symbol in zip(seen, count - before, looks.found[place]):
            block[int(last)] = int(symbol)
        steps += 1
        if (count - before >= 100).all():
            break
    for block, found in zip(blocks, seen):
        here = symbols[100 * block : 100 * block + 100]
        nonzero = {place + 1: value for place, value in enumerate(here) if value}
        assert {
            place: value for place, value in found.items() if value and place <= 100
        } == nonzero
    assert steps == 100 if not runs else steps <= 100
    assert runs is (steps < 60) or zeros < 0.5


def test_a_symbol_alone_comes_back() -> None:
    code = Code.of(np.array([0, 9]))
    stream = Stream.of(np.ones(9, dtype=np.int64), code, 4)
    assert len(stream.content) == 2
    assert stream.decode().tolist() == [1] * 9


def test_a_stream_that_ends_early_decodes_to_something_or_is_refused() -> None:
    symbols = np.random.default_rng(0).integers(0, 8, 3000)
    code = Code.of(np.bincount(symbols))
    content = Stream.of(symbols, code, 256).to_bytes()
    for end in range(0, len(content), 37):
        with pytest.raises(ValueError, match="missing|above"):
            Stream.read(Reader(content[:end]), code, 3000, 256)
    short = Stream(code, 3000, 256, np.arange(12) * 1000, b"\x17")
    assert len(short.decode()) == 3000
