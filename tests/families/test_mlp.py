from __future__ import annotations

import pytest
import torch
from torch import nn

from optuna_shape import InvalidSpace
from optuna_shape import Shape
from optuna_shape.families import mlp


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("width", [1, 8])
@pytest.mark.parametrize("input_shape", [(7,), (1, 4, 4), (3, 5, 2)])
def test_depth_layers_of_width_units(depth: int, width: int, input_shape: tuple[int, ...]) -> None:
    model = mlp([depth], [width], input_shape=input_shape, classes=3).build(Shape(depth, width))
    hidden = [m.out_features for m in model.modules() if isinstance(m, nn.Linear)][:-1]
    assert hidden == [width] * depth
    assert model(torch.randn(2, *input_shape)).shape == (2, 3)


def test_parameters_of_a_known_network() -> None:
    with torch.device("meta"):
        model = mlp([2], [100], input_shape=(1, 28, 28)).build(Shape(2, 100))
    assert sum(p.numel() for p in model.parameters()) == 785 * 100 + 101 * 100 + 101 * 10


@pytest.mark.parametrize(
    "options", [{"input_shape": ()}, {"input_shape": (-1,)}, {"input_shape": (4,), "classes": 0}]
)
def test_what_makes_no_network_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidSpace):
        mlp([1], [4], **options)  # type: ignore[arg-type]
