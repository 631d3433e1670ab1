"""Densely connected networks: depth is layers per dense block, width the growth rate.

    stem -> dense block of depth layers, each adding width channels -> 1/2 -> block -> 1/2 -> block

Each layer sees the channels of all layers before it in its block, and adds ``width`` to them
[Huang2017]_. Between the three blocks a transition halves the image. Two variants:

* DenseNet-BC: each layer first brings its inputs down to ``4 width`` channels by a 1 x 1
  convolution, and a transition halves the channels. Publications count ``L = 6 depth + 4`` layers:
  L = 100, 190 and 250 are depths 16, 31 and 41.
* DenseNet, without either: ``L = 3 depth + 4``, so L = 40 and 100 are depths 12 and 32.

:class:`torchvision.models.DenseNet` has the stem for ImageNet, and layers of DenseNet-BC alone.

.. [Huang2017] Huang, Liu, van der Maaten, Weinberger. Densely connected convolutional networks.
   CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from optuna_shape.families._checks import check_classes
from optuna_shape.families._checks import check_flag
from optuna_shape.families._checks import check_image
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape

_BLOCKS = 3
_SMALLEST_IMAGE = 4  # Halved twice, it still has a pixel.
_STEM = 16
_BOTTLENECK = 4


@dataclass(frozen=True)
class DenseNet:
    """Builds the densely connected network of a shape.

    Attributes:
        input_shape: ``(channels, height, width)`` of one image; at least 4 x 4 pixels.
        classes: Number of outputs.
        bc: Whether there are bottlenecks and compression, see
            :mod:`optuna_shape.families.densenet`.
    """

    input_shape: tuple[int, ...]
    classes: int
    bc: bool

    def __post_init__(self) -> None:
        image = check_image(self.input_shape, _SMALLEST_IMAGE, "a densely connected network")
        object.__setattr__(self, "input_shape", image)
        check_classes(self.classes)
        check_flag("bc", self.bc)

    def __call__(self, shape: Shape) -> nn.Module:
        growth = shape.width
        channels = 2 * growth if self.bc else _STEM
        layers: list[nn.Module] = [_conv3x3(self.input_shape[0], channels)]
        for block in range(_BLOCKS):
            if block > 0:
                kept = channels // 2 if self.bc else channels
                layers += [_activated(channels, _conv1x1(channels, kept)), nn.AvgPool2d(2)]
                channels = kept
            for _ in range(shape.depth):
                layers.append(_DenseLayer(self._added(channels, growth)))
                channels += growth
        layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, self.classes)]
        return nn.Sequential(*layers)

    def _added(self, channels: int, growth: int) -> nn.Module:
        if not self.bc:
            return _activated(channels, _conv3x3(channels, growth))
        inner = _BOTTLENECK * growth
        return nn.Sequential(
            _activated(channels, _conv1x1(channels, inner)),
            _activated(inner, _conv3x3(inner, growth)),
        )


def densenet(
    depth: Iterable[int] = (1, 2, 3, 4, 6, 8),
    width: Iterable[int] = (4, 6, 8, 12, 16, 24),
    *,
    input_shape: Sequence[int] = (3, 32, 32),
    classes: int = 10,
    bc: bool = True,
    name: str = "densenet",
) -> DesignSpace:
    """Densely connected networks: depth is layers per dense block, width the growth rate.

    Args:
        depth:
            Layers per dense block to choose from. A layer is a 1 x 1 and a 3 x 3 convolution, or
            only the latter where ``bc`` is False.
        width:
            Growth rates to choose from: the channels that each layer adds.
        input_shape:
            ``(channels, height, width)`` of one image; at least 4 x 4 pixels.
        classes:
            Number of outputs.
        bc:
            True: DenseNet-BC, with bottlenecks in each layer and half the channels after each
            transition. False: DenseNet, with neither.
        name:
            What reports call this space.

    Raises:
        InvalidSpace: An argument makes no network.

    Example:
        >>> space = densenet(depth=[16], width=[12])  # DenseNet-BC (L = 100, k = 12)
        >>> sum(p.numel() for p in space.build(space.shapes[0]).parameters())
        769162
    """
    build = DenseNet(tuple(input_shape), classes, bc)
    return DesignSpace(depth, width, build, input_shape=build.input_shape, name=name)


class _DenseLayer(nn.Module):
    """The input, and the channels that ``added`` makes of it."""

    def __init__(self, added: nn.Module) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.added(x)], dim=1)


def _activated(channels: int, convolution: nn.Module) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), convolution)


def _conv1x1(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=1, bias=False)


def _conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
