from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from matrices_examples import ODD
from matrices_examples import pruned

from optuna_shape import PackingUnavailable
from optuna_shape import ShapeError
from optuna_shape.compress import ans
from optuna_shape.compress.bits import Reader
from optuna_shape.compress.coding import FORMATS
from optuna_shape.compress.coding import decode
from optuna_shape.compress.coding import encode

NAMES = pytest.mark.parametrize("name", FORMATS)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    plain = [t.contiguous().reshape(-1) for t in (a, b) if t.numel()]
    return all(torch.equal(t.view(torch.uint8), plain[0].view(torch.uint8)) for t in plain)


def round_trip(tensor: torch.Tensor, name: str) -> torch.Tensor:
    used, content = encode(tensor, [name])
    reader = Reader(content)
    result = decode(used, reader, tuple(tensor.shape), tensor.dtype)
    assert reader.left == 0
    return result


@NAMES
@pytest.mark.parametrize("example", ODD)
def test_a_tensor_comes_back_to_the_bit(name: str, example: str) -> None:
    tensor = torch.from_numpy(ODD[example].copy())
    assert same_bits(round_trip(tensor, name), tensor)


@NAMES
@pytest.mark.parametrize(
    "dtype",
    [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64],
    ids=str,
)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (40, 3, 3, 3), (2, 0, 3)], ids=str)
def test_any_type_and_shape_comes_back(
    name: str, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    tensor = (3 * torch.randn(shape)).round().to(dtype)
    assert same_bits(round_trip(tensor, name), tensor)


def test_the_layout_in_memory_does_not_matter() -> None:
    tensor = torch.randn(16, 4, 3, 3).round().to(memory_format=torch.channels_last)
    assert same_bits(round_trip(tensor, "gaps"), tensor)


@NAMES
def test_many_distinct_values_with_zeros_come_back(name: str) -> None:
    torch.manual_seed(0)
    tensor = torch.randn(300, 300) * (torch.rand(300, 300) > 0.5)
    assert same_bits(round_trip(tensor, name), tensor)


def test_the_smallest_format_is_taken() -> None:
    examples = [
        torch.randn(200, 200),
        torch.from_numpy(pruned(300, 300, zeros=0.0, k=17)),
        torch.from_numpy(pruned(300, 300, zeros=0.95, k=17)),
        torch.zeros(100, 100),
    ]
    for tensor in examples:
        sizes = {name: len(encode(tensor, [name])[1]) for name in FORMATS}
        used, content = encode(tensor)
        assert len(content) == min(sizes.values()) == sizes[used]


def test_unshared_weights_stay_as_they_are_and_lose_bytes_of_zeros() -> None:
    torch.manual_seed(0)
    tensor = torch.randn(250, 250)
    assert len(encode(tensor)[1]) == 4 * 250**2 + 1
    assert len(encode(tensor.bfloat16().float(), ["planes"])[1]) == 2 * 250**2 + 1
    kept = torch.where(torch.rand(250, 250) > 0.9, tensor, 0.0)
    assert encode(kept)[0] == "gaps"
    assert len(encode(kept)[1]) < 0.12 * 4 * 250**2


@pytest.mark.parametrize("k", [2, 32])
@pytest.mark.parametrize("zeros", [0.0, 0.2, 0.5, 0.7, 0.9, 0.99])
def test_sizes_are_near_the_entropy(zeros: float, k: int) -> None:
    matrix = pruned(4096, 300, zeros=zeros, k=k)
    tensor = torch.from_numpy(matrix.T.copy())
    _, counts = np.unique(matrix, return_counts=True)
    entropy = -(counts * np.log2(counts / counts.sum())).sum() / 8
    sizes = {name: len(encode(tensor, [name])[1]) for name in FORMATS}
    assert all(size > entropy for size in sizes.values())
    assert sizes["ans"] < 1.02 * entropy
    # Two values of about half each, and zeros: no whole numbers of bits fit well.
    assert sizes["gaps"] < (1.08 if k == 2 else 1.05) * entropy
    if zeros >= 0.9:
        assert sizes["sham"] > 1.3 * sizes["gaps"]


@NAMES
def test_damaged_bytes_are_refused_or_decode_to_a_tensor(name: str) -> None:
    tensor = torch.from_numpy(pruned(60, 40, zeros=0.7, k=6))
    used, content = encode(tensor, [name])
    assert used == name
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] = rng.integers(256)
        try:
            result = decode(name, Reader(bytes(damaged)), (60, 40), torch.float32)
        except ValueError:
            refused += 1
        else:
            assert result.shape == (60, 40)
    assert refused > 0 or name == "planes"
    for end in range(0, len(content), 7):
        with pytest.raises(ValueError, match=r"\w"):
            decode(name, Reader(content[:end]), (60, 40), torch.float32)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="no format 'zip'"):
        decode("zip", Reader(b"1234"), (1,), torch.float32)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_complex_numbers_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="complex.*Take its parts apart"):
        encode(torch.zeros(3, dtype=dtype))


def test_without_the_library_ans_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.from_numpy(pruned(60, 40, zeros=0.7, k=6))
    content = encode(tensor, ["ans"])[1]
    monkeypatch.setitem(sys.modules, "constriction", None)
    monkeypatch.setattr(ans, "available", lambda: False)
    assert encode(tensor)[0] in ("ham", "gaps")
    assert issubclass(PackingUnavailable, ShapeError)
    with pytest.raises(PackingUnavailable, match=r"pip install 'optuna_shape\[ans\]'"):
        encode(tensor, ["ans"])
    with pytest.raises(PackingUnavailable, match="pack the network again without ans"):
        decode("ans", Reader(content), (60, 40), torch.float32)


def test_many_symbols_of_one_value_take_hardly_any_bytes_but_by_ham() -> None:
    tensor = torch.full((100, 100), 0.5)
    assert len(encode(tensor, ["ans"])[1]) < 10
    assert len(encode(tensor, ["ham"])[1]) >= math.prod(tensor.shape) / 8
