"""A network of each family, and data that it learns at once."""

from __future__ import annotations

import torch
from torch import nn

from optuna_shape import DesignSpace
from optuna_shape.families import densenet
from optuna_shape.families import mlp
from optuna_shape.families import nasnet
from optuna_shape.families import resnet
from optuna_shape.families import vit
from optuna_shape.train.data import Data

IMAGE = (1, 8, 8)
SPACES: dict[str, DesignSpace] = {
    "resnet": resnet([1], [4], input_shape=IMAGE, classes=2),
    "densenet": densenet([2], [4], input_shape=IMAGE, classes=2),
    "nasnet": nasnet([1], [24], input_shape=IMAGE, classes=2),
    "vit": vit([1], [8], input_shape=IMAGE, classes=2, head_size=4),
    "mlp": mlp([2], [12], input_shape=IMAGE, classes=2),
}


def network(family: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    space = SPACES[family]
    return space.build(space.shapes[0])


def stripes(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of upright (0) and level (1) stripes under noise."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 2, (count,), generator=generator)
    wave = (torch.arange(8) % 2).float().expand(count, 1, 8, 8)
    x = torch.where((y == 0).view(-1, 1, 1, 1), wave, wave.transpose(2, 3))
    return x + 0.5 * torch.randn(x.shape, generator=generator), y


DATA = Data("stripes", *stripes(96, 0), *stripes(80, 1), *stripes(80, 2), classes=2)
