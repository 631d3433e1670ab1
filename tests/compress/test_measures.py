from __future__ import annotations

import math

import pytest
import torch
from networks import SPACES
from networks import network
from torch import nn

from optuna_shape.compress.measures import measure
from optuna_shape.compress.measures import total
from optuna_shape.compress.packed import pack
from optuna_shape.compress.pruning import prune
from optuna_shape.compress.sharing import share_weights


def linear(values: list[list[float]]) -> nn.Linear:
    layer = nn.Linear(len(values[0]), len(values), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(values))
    return layer


def test_counts_of_a_small_matrix_by_hand() -> None:
    bits = measure(linear([[0.0, 0.0, 0.0, 2.0], [0.0, 0.0, 3.0, 2.0]]))["weight"]
    assert (bits.numbers, bits.nonzero, bits.plain_bytes) == (8, 3, 32)
    connections = 8 * (3 / 8 * math.log2(8 / 3) + 5 / 8 * math.log2(8 / 5))
    values = 3 * (2 / 3 * math.log2(3 / 2) + 1 / 3 * math.log2(3))
    assert bits.connection_bits == pytest.approx(connections)
    assert bits.value_bits == pytest.approx(values)
    assert bits.parameter_bits == pytest.approx(values + 2 * 32)
    assert bits.entropy_bits == pytest.approx(connections + values)
    assert bits.representation_bits == pytest.approx(connections + values + 64)


def test_both_parts_sum_to_the_entropy_with_zero_as_a_value() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(60, 50, bias=False)
    prune(layer, 0.4)
    share_weights(layer, 7)
    _, counts = layer.weight.unique(return_counts=True)
    share = counts.double() / counts.sum()
    entropy = -float((counts * share.log2()).sum())
    assert measure(layer)["weight"].entropy_bits == pytest.approx(entropy)


def test_distinct_values_cost_what_plain_numbers_do() -> None:
    bits = measure(nn.Linear(30, 20, bias=False))["weight"]
    assert bits.connection_bits == 0
    assert bits.parameter_bits == 32 * 600
    assert bits.packed_bytes >= 4 * 600
    assert bits.ratio == pytest.approx(1, abs=0.001)


@pytest.mark.parametrize("family", SPACES)
def test_every_tensor_is_measured_and_none_is_below_its_entropy(family: str) -> None:
    model = network(family)
    prune(model, 0.8)
    share_weights(model, 8)
    parts = measure(model)
    assert list(parts) == list(model.state_dict())
    for packed in pack(model):
        bits = parts[packed.name]
        assert bits.packed_bytes == len(packed.content)
        assert 8 * bits.packed_bytes >= bits.entropy_bits
        assert bits.overhead >= 1
    whole = total(parts.values())
    assert whole.plain_bytes == sum(t.nbytes for t in model.state_dict().values())
    assert whole.packed_bytes == sum(bits.packed_bytes for bits in parts.values())
    assert whole.representation_bits == pytest.approx(
        sum(bits.representation_bits for bits in parts.values())
    )
    assert whole.ratio > 2


def test_nothing_takes_nothing() -> None:
    whole = total([])
    assert (whole.numbers, whole.packed_bytes, whole.entropy_bits) == (0, 0, 0)


def test_a_constant_has_no_entropy() -> None:
    bits = measure(linear([[0.0] * 40] * 40))["weight"]
    assert bits.entropy_bits == 0
    assert bits.overhead == math.inf
