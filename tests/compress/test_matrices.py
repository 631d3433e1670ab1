from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from matrices_examples import ODD
from matrices_examples import pruned

from optuna_shape.compress.bits import Reader
from optuna_shape.compress.matrices import HAM
from optuna_shape.compress.matrices import SHAM
from optuna_shape.compress.matrices import bound

FORMATS = pytest.mark.parametrize("kind", [HAM, SHAM])
Kind = type[HAM] | type[SHAM]


@FORMATS
@pytest.mark.parametrize("name", ODD)
def test_a_matrix_comes_back_to_the_bit(kind: Kind, name: str) -> None:
    matrix = ODD[name]
    reader = Reader(kind.encode(matrix).to_bytes())
    packed = kind.read(reader, matrix.shape, matrix.dtype)
    assert reader.left == 0
    assert packed.decode().dtype == matrix.dtype
    assert packed.decode().tobytes() == matrix.tobytes()


@FORMATS
@pytest.mark.parametrize("zeros", [0.0, 0.3, 0.9, 0.99])
@pytest.mark.parametrize("k", [1, 2, 32])
def test_a_product_is_that_of_the_matrix(kind: Kind, zeros: float, k: int) -> None:
    matrix = pruned(300, 170, zeros=zeros, k=k, dtype="f8")
    packed = kind.encode(matrix)
    rng = np.random.default_rng(1)
    for x in (rng.standard_normal(300), rng.standard_normal((5, 300))):
        product = packed.dot(x)
        assert product.shape == (x @ matrix).shape
        assert product == pytest.approx(x @ matrix, rel=1e-10, abs=1e-10)


@FORMATS
@pytest.mark.parametrize("name", [name for name in ODD if name != "minus zero and other bits"])
def test_products_of_odd_matrices(kind: Kind, name: str) -> None:
    matrix = ODD[name]
    x = np.random.default_rng(0).standard_normal((3, len(matrix)))
    assert kind.encode(matrix).dot(x) == pytest.approx(x @ matrix, rel=1e-3, abs=1e-3)


@FORMATS
@pytest.mark.parametrize("n", [3, 100, 256, 300, 1000])
def test_what_is_not_finite_stays_in_its_column(kind: Kind, n: int) -> None:
    matrix = pruned(n, 40, zeros=0.6, k=5)
    matrix[:, 7] = np.inf
    product = kind.encode(matrix).dot(np.ones(n, "f4"))
    assert product[7] == np.inf
    assert np.isfinite(np.delete(product, 7)).all()


@FORMATS
def test_a_batch_larger_than_its_parts(kind: Kind) -> None:
    matrix = pruned(2000, 90, zeros=0.5, k=9)  # Each part has 65,536 products, of 90,000.
    x = np.random.default_rng(0).standard_normal((40, 2000))
    assert kind.encode(matrix).dot(x) == pytest.approx(x @ matrix, rel=1e-6, abs=1e-6)


@FORMATS
def test_a_product_has_the_type_that_numpys_has(kind: Kind) -> None:
    matrix = pruned(20, 10, zeros=0.5, k=4)
    assert kind.encode(matrix).dot(np.ones(20, "f4")).dtype == np.float32
    assert kind.encode(matrix).dot(np.ones(20)).dtype == np.float64


@FORMATS
def test_a_product_never_has_the_matrix_in_memory(kind: Kind) -> None:
    matrix = pruned(4096, 1024, zeros=0.9, k=16)
    content = kind.encode(matrix).to_bytes()
    x = np.ones((4, 4096), "f4")
    tracemalloc.start()
    kind.read(Reader(content), matrix.shape, matrix.dtype).dot(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Half of it if each entry took a byte, or each that is not zero took the four of a number
    # and six of its place.
    assert peak < matrix.nbytes / 2


@FORMATS
def test_a_further_product_takes_a_fifth_of_the_matrix_at_most(kind: Kind) -> None:
    matrix = pruned(2048, 2048, zeros=0.9, k=16)
    packed = kind.encode(matrix)
    x = np.ones(2048, "f4")
    packed.dot(x)  # Keeps its tables for the next one.
    tracemalloc.start()
    packed.dot(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < matrix.nbytes / 5


@FORMATS
def test_another_length_is_refused(kind: Kind) -> None:
    packed = kind.encode(pruned(20, 10, zeros=0.5, k=4))
    with pytest.raises(ValueError, match=r"shape \(19,\).*Give \(20,\) or \(batch, 20\)"):
        packed.dot(np.ones(19))


@FORMATS
@pytest.mark.parametrize("n", [40, 512, 3000])
@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("k", [2, 5, 32, 48])
def test_sizes_are_within_the_bounds_of_the_paper(
    kind: Kind, n: int, zeros: float, k: int
) -> None:
    matrix = pruned(n, 100, zeros=zeros, k=k)
    distinct = len(np.unique(matrix)) - (kind is SHAM and zeros > 0)
    share = len(kind.encode(matrix).to_bytes()) / matrix.nbytes
    assert share <= bound(kind, matrix.shape, np.count_nonzero(matrix), distinct)


def test_nothing_but_zeros_is_within_the_bound() -> None:
    matrix = np.zeros((600, 50), "f4")
    share = len(SHAM.encode(matrix).to_bytes()) / matrix.nbytes
    assert share <= bound(SHAM, matrix.shape, 0, 0) == 51 / 30_000


def test_ham_takes_a_bit_per_entry_at_least_and_sham_does_not() -> None:
    matrix = pruned(1000, 200, zeros=0.99, k=8)
    assert len(HAM.encode(matrix).to_bytes()) > matrix.size / 8
    assert len(SHAM.encode(matrix).to_bytes()) < matrix.size / 32


@FORMATS
def test_too_many_values_are_refused(kind: Kind) -> None:
    matrix = np.arange(1, 40_001, dtype="f4").reshape(200, 200)
    with pytest.raises(ValueError, match="32768 distinct values or more.*Share its weights"):
        kind.encode(matrix)


@FORMATS
def test_damaged_bytes_are_refused_or_decode_to_a_matrix(kind: Kind) -> None:
    matrix = pruned(60, 40, zeros=0.7, k=6)
    content = kind.encode(matrix).to_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] = rng.integers(256)
        try:
            decoded = kind.read(Reader(bytes(damaged)), matrix.shape, matrix.dtype).decode()
        except ValueError:
            refused += 1
        else:
            assert decoded.shape == matrix.shape
    assert refused > 0
    for end in range(0, len(content), 11):
        with pytest.raises(ValueError, match="missing|above|code|no "):
            kind.read(Reader(content[:end]), matrix.shape, matrix.dtype)
