from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from optuna_shape.errors import BuildFailed
from optuna_shape.errors import MeasurementUnavailable
from optuna_shape.measure.counting import Counts
from optuna_shape.measure.counting import count
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape

ANY = Shape(1, 1)


def _space(
    build: type[nn.Module] | object, input_shape: tuple[int, ...] | None = None
) -> DesignSpace:
    return DesignSpace([1], [1], build=lambda shape: build(), input_shape=input_shape)  # type: ignore[operator]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(10, 10, bias=False)
        self.second = nn.Linear(10, 10, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> object:
        return self.second(self.first(x))


class AsksForValues(nn.Linear):
    """A layer that cannot run on the meta device."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if x.sum().item() < 1e9 else x


class AsksForValuesInInit(nn.Linear):
    """A layer that cannot be built on the meta device."""

    def __init__(self) -> None:
        super().__init__(4, 2)
        self.scale = float(self.weight.abs().max().item())


def test_convolution_batch_norm_and_linear_are_counted_as_by_hand() -> None:
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * 5 * 5, 10),
        )

    convolution, norm, linear = 4 * 3 * 9 + 4, 4 + 4, 100 * 10 + 10
    running_statistics, batches_seen = 2 * 4 * 4, 8  # bytes
    assert count(_space(build, (3, 5, 5)), ANY) == Counts(
        parameters=convolution + norm + linear,
        size_bytes=4 * (convolution + norm + linear) + running_statistics + batches_seen,
        flops=2 * (4 * 5 * 5) * (3 * 9) + 2 * 100 * 10,
    )


def test_tied_weights_count_once() -> None:
    assert count(_space(Tied, (10,)), ANY) == Counts(100, 400, 2 * 2 * 100)


@pytest.mark.parametrize(
    ("dtype", "size"), [(torch.float32, 4), (torch.bfloat16, 2), (torch.float64, 8)]
)
def test_bytes_follow_the_type_that_build_gives(dtype: torch.dtype, size: int) -> None:
    space = _space(lambda: nn.Linear(5, 3, dtype=dtype))
    assert count(space, ANY) == Counts(18, 18 * size, None)


def test_only_buffers_that_are_stored_count() -> None:
    class Buffered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.zeros(7, dtype=torch.int8))
            self.register_buffer("cache", torch.zeros(1000), persistent=False)

    assert count(_space(Buffered), ANY) == Counts(0, 7, None)


@pytest.mark.parametrize(
    ("build", "parameters"), [(lambda: AsksForValues(4, 2), 10), (AsksForValuesInInit, 10)]
)
def test_networks_that_ask_for_values_are_counted_on_the_cpu(
    build: object, parameters: int
) -> None:
    assert count(_space(build, (4,)), ANY) == Counts(parameters, 40, 2 * 4 * 2)


def test_attention_and_tensors_made_in_forward_are_counted() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, bias=False, batch_first=True)

        def forward(self, x: torch.Tensor) -> object:
            x = x + torch.arange(x.shape[1]).unsqueeze(-1)
            return self.attention(x, x, x, need_weights=False)[0]

    projections, products = 4 * 2 * 6 * 8 * 8, 2 * 2 * 6 * 6 * 8
    assert count(_space(Attention, (6, 8)), ANY).flops == projections + products


def test_lazy_weights_take_their_size_from_the_input() -> None:
    assert count(_space(lambda: nn.LazyLinear(3), (5,)), ANY) == Counts(18, 72, 2 * 15)
    with pytest.raises(MeasurementUnavailable, match="input_shape"):
        count(_space(lambda: nn.LazyLinear(3)), ANY)


def test_a_network_that_does_not_run_has_a_size_and_no_operations() -> None:
    assert count(_space(lambda: nn.Linear(4, 2), (5,)), ANY) == Counts(10, 40, None)


def test_a_broken_build_is_reported() -> None:
    def build() -> nn.Module:
        raise KeyError("channels")

    with pytest.raises(BuildFailed, match="channels"):
        count(_space(build, (3,)), ANY)


@pytest.mark.parametrize("layer", [nn.Linear, AsksForValues])
def test_global_random_states_stay_as_they_were(layer: type[nn.Linear]) -> None:
    def build() -> nn.Module:
        random.random()
        np.random.rand()  # noqa: NPY002
        return nn.Sequential(layer(4, 4), nn.Dropout())

    def states() -> tuple[object, ...]:
        return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002

    before = states()
    count(_space(build, (4,)), ANY)
    assert states() == before
