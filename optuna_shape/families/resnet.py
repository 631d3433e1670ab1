"""Residual networks for small images: depth is blocks per stage, width the first stage's channels.

Three stages of ``depth`` blocks have ``width``, ``2 width`` and ``4 width`` channels; the second
and third halve the image. Two variants:

* ``"plain"``: the CIFAR networks of He et al. [He2016]_ with parameter-free shortcuts (their
  option A). 20, 32, 44, 56 and 110 layers are depths 3, 5, 7, 9 and 18 at width 16.
* ``"wide"``: the pre-activation networks of Zagoruyko and Komodakis [Zagoruyko2016]_ with 1 x 1
  convolutions as shortcuts. WRN-40-4 is depth 6 at width 64: ``6 depth + 4`` layers, and width is
  16 times their widening factor.

.. [He2016] He, Zhang, Ren, Sun. Deep residual learning for image recognition. CVPR 2016.
.. [Zagoruyko2016] Zagoruyko, Komodakis. Wide residual networks. BMVC 2016.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from optuna_shape.errors import InvalidSpace
from optuna_shape.families._checks import check_classes
from optuna_shape.families._checks import check_input_shape
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape

VARIANTS = ("plain", "wide")

_SMALLEST_IMAGE = 4  # Halved twice, it still has a pixel.
_WIDE_STEM = 16


@dataclass(frozen=True)
class ResNet:
    """Builds the residual network of a shape.

    Attributes:
        input_shape: ``(channels, height, width)`` of one image; at least 4 x 4 pixels.
        classes: Number of outputs.
        variant: ``"plain"`` or ``"wide"``, see :mod:`optuna_shape.families.resnet`.
    """

    input_shape: tuple[int, ...]
    classes: int
    variant: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shape", check_input_shape(self.input_shape))
        check_classes(self.classes)
        if len(self.input_shape) != 3 or min(self.input_shape[1:]) < _SMALLEST_IMAGE:
            raise InvalidSpace(
                f"input_shape={self.input_shape} is no image for a residual network. "
                "Give (channels, height, width) with height and width of 4 or more."
            )
        if self.variant not in VARIANTS:
            raise InvalidSpace(f"variant={self.variant!r} is unknown. Choose one of {VARIANTS}.")

    def __call__(self, shape: Shape) -> nn.Module:
        wide = self.variant == "wide"
        block = _PreActivationBlock if wide else _BasicBlock
        # A wide network's stem does not widen. One narrower than the stem has no use for it.
        channels = min(_WIDE_STEM, shape.width) if wide else shape.width
        layers: list[nn.Module] = [_conv(self.input_shape[0], channels)]
        if not wide:
            layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        for stage in range(3):
            outputs = shape.width * 2**stage
            for index in range(shape.depth):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(block(channels, outputs, stride))
                channels = outputs
        if wide:
            layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, self.classes)]
        return nn.Sequential(*layers)


def resnet(
    depth: Iterable[int],
    width: Iterable[int],
    *,
    input_shape: Sequence[int] = (3, 32, 32),
    classes: int = 10,
    variant: str = "plain",
    name: str = "resnet",
) -> DesignSpace:
    """Return the design space of residual networks.

    Args:
        depth:
            Blocks per stage to choose from.
        width:
            Channels of the first stage to choose from; the other two have twice and four times
            as many.
        input_shape:
            ``(channels, height, width)`` of one image; at least 4 x 4 pixels.
        classes:
            Number of outputs.
        variant:
            ``"plain"``: post-activation blocks with parameter-free shortcuts. ``"wide"``:
            pre-activation blocks, with 1 x 1 convolutions where a shortcut changes its shape.
        name:
            What reports call this space.

    Raises:
        InvalidSpace: An argument makes no network.

    Example:
        >>> space = resnet(depth=[3], width=[16])
        >>> sum(p.numel() for p in space.build(space.shapes[0]).parameters())
        269722
    """
    build = ResNet(tuple(input_shape), classes, variant)
    return DesignSpace(depth, width, build, input_shape=build.input_shape, name=name)


class _BasicBlock(nn.Module):
    """Two convolutions, the sum with the shortcut, then the last activation."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, outputs, stride)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.added = outputs - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.added:
            # Option A: every second pixel, and zeros for the channels that are new.
            before = self.added // 2
            x = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(x, (0, 0, 0, 0, before, self.added - before))
        return F.relu(x + y)


class _PreActivationBlock(nn.Module):
    """Activation before each convolution; the sum is left as it is."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = _conv(inputs, outputs, stride)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs)
        self.shortcut = (
            None
            if inputs == outputs
            else nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm1(x))
        if self.shortcut is not None:
            x = self.shortcut(y)
        y = self.conv2(F.relu(self.norm2(self.conv1(y))))
        return torch.add(x, y)


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
