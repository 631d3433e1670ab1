"""Multilayer perceptrons: depth is the number of hidden layers, width the units in each.

input, flattened -> depth layers of width units -> classes
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from optuna_shape.families._checks import check_classes
from optuna_shape.families._checks import check_input_shape
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape


@dataclass(frozen=True)
class MLP:
    """Builds the perceptron of a shape.

    Attributes:
        input_shape: Shape of one input, of any number of dimensions; it is flattened.
        classes: Number of outputs.
    """

    input_shape: tuple[int, ...]
    classes: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shape", check_input_shape(self.input_shape))
        check_classes(self.classes)

    def __call__(self, shape: Shape) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        units = math.prod(self.input_shape)
        for _ in range(shape.depth):
            layers += [nn.Linear(units, shape.width), nn.ReLU()]
            units = shape.width
        return nn.Sequential(*layers, nn.Linear(units, self.classes))


def mlp(
    depth: Iterable[int] = (1, 2, 3, 4, 5, 6),
    width: Iterable[int] = (8, 16, 32, 64, 128, 256),
    *,
    input_shape: Sequence[int],
    classes: int = 10,
    name: str = "mlp",
) -> DesignSpace:
    """Multilayer perceptrons: depth is the number of hidden layers, width the units in each.

    Each hidden layer is linear, then a ReLU.

    Args:
        depth:
            Numbers of hidden layers to choose from.
        width:
            Units per hidden layer to choose from.
        input_shape:
            Shape of one input without the batch dimension; it is flattened.
        classes:
            Number of outputs.
        name:
            What reports call this space.

    Raises:
        InvalidSpace: An argument makes no network.

    Example:
        >>> space = mlp(depth=[2], width=[32], input_shape=(1, 8, 8))
        >>> [layer.out_features for layer in space.build(Shape(2, 32)) if hasattr(layer, "weight")]
        [32, 32, 10]
    """
    build = MLP(tuple(input_shape), classes)
    return DesignSpace(depth, width, build, input_shape=build.input_shape, name=name)
