"""Residual networks: depth is blocks per stage, width the channels of the first stage.

    stem -> depth blocks of width -> depth of 2 width -> depth of 4 width (-> 8 width) -> classes

Every stage after the first halves the image. Three variants:

* ``"plain"``: blocks of two 3 x 3 convolutions [He2016a]_. The CIFAR networks of 20, 32, 44, 56
  and 110 layers are depths 3, 5, 7, 9 and 18 at width 16: ``6 depth + 2`` layers.
* ``"bottleneck"``: blocks of 1 x 1, 3 x 3 and 1 x 1 convolutions, with four times as many channels
  between blocks [He2016a]_. The 3 x 3 convolution has the stride. With the CIFAR stem, 164 and
  1001 layers are depths 18 and 111 at width 16: ``9 depth + 2`` layers.
* ``"wide"``: the pre-activation networks of Zagoruyko and Komodakis [Zagoruyko2016]_ with 1 x 1
  convolutions as shortcuts. WRN-40-4 is depth 6 at width 64: ``6 depth + 4`` layers, and width is
  16 times their widening factor.

Two stems:

* ``"cifar"``: a 3 x 3 convolution and three stages, for small images.
* ``"imagenet"``: a 7 x 7 convolution and a maximum pooling, both of stride 2, and four stages.
  ResNet-18 is depth 2 at width 64. ResNet-34 and -50 have stages of unequal depth, and are no
  shape here. :class:`torchvision.models.ResNet` is the same network at width 64, the only width
  that it has.

Where a shortcut changes its shape, plain blocks after the CIFAR stem have the parameter-free
shortcuts of the CIFAR networks (option A); all others have normalised 1 x 1 convolutions
(option B), as torchvision's.

.. [He2016a] He, Zhang, Ren, Sun. Deep residual learning for image recognition. CVPR 2016.
.. [Zagoruyko2016] Zagoruyko, Komodakis. Wide residual networks. BMVC 2016.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from typing import TypeAlias
from typing import get_args

import torch
import torch.nn.functional as F
from torch import nn

from optuna_shape.errors import InvalidSpace
from optuna_shape.families._checks import check_choice
from optuna_shape.families._checks import check_classes
from optuna_shape.families._checks import check_image
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape

Variant: TypeAlias = Literal["plain", "bottleneck", "wide"]
Stem: TypeAlias = Literal["cifar", "imagenet"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
STEMS: tuple[Stem, ...] = get_args(Stem)

_STAGES = {"cifar": 3, "imagenet": 4}
_SMALLEST_IMAGE = {"cifar": 4, "imagenet": 32}  # Halved by every stage, it still has a pixel.
_WIDE_STEM = 16
_EXPANSION = 4


@dataclass(frozen=True)
class ResNet:
    """Builds the residual network of a shape.

    Attributes:
        input_shape: ``(channels, height, width)`` of one image; at least 4 x 4 pixels, or 32 x 32
            for the ImageNet stem.
        classes: Number of outputs.
        variant: ``"plain"``, ``"bottleneck"`` or ``"wide"``, see
            :mod:`optuna_shape.families.resnet`.
        stem: ``"cifar"`` or ``"imagenet"``.
    """

    input_shape: tuple[int, ...]
    classes: int
    variant: Variant
    stem: Stem

    def __post_init__(self) -> None:
        check_choice("variant", self.variant, VARIANTS)
        check_choice("stem", self.stem, STEMS)
        check_classes(self.classes)
        image = check_image(
            self.input_shape,
            _SMALLEST_IMAGE[self.stem],
            f"a residual network with the {self.stem!r} stem",
        )
        object.__setattr__(self, "input_shape", image)
        if self.variant == "wide" and self.stem != "cifar":
            raise InvalidSpace(
                f"variant='wide' has no stem={self.stem!r}. "
                "Choose stem='cifar', or variant 'plain' or 'bottleneck'."
            )

    def __call__(self, shape: Shape) -> nn.Module:
        wide = self.variant == "wide"
        # A wide network's stem does not widen. One narrower than the stem has no use for it.
        channels = min(_WIDE_STEM, shape.width) if wide else shape.width
        layers = self._stem(channels)
        for stage in range(_STAGES[self.stem]):
            outputs = shape.width * 2**stage
            if self.variant == "bottleneck":
                outputs *= _EXPANSION
            for index in range(shape.depth):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(self._block(channels, outputs, stride))
                channels = outputs
        if wide:
            layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, self.classes)]
        return nn.Sequential(*layers)

    def _stem(self, channels: int) -> list[nn.Module]:
        colours = self.input_shape[0]
        if self.variant == "wide":  # Its first block begins with the activation.
            return [_conv(colours, channels)]
        if self.stem == "cifar":
            return [_conv(colours, channels), nn.BatchNorm2d(channels), nn.ReLU()]
        return [
            _conv(colours, channels, stride=2, kernel=7),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        ]

    def _block(self, inputs: int, outputs: int, stride: int) -> nn.Module:
        if self.variant == "wide":
            return _PreActivationBlock(inputs, outputs, stride)
        plain = self.variant == "plain"
        residual = (
            _basic(inputs, outputs, stride) if plain else _bottleneck(inputs, outputs, stride)
        )
        shortcut: nn.Module
        if inputs == outputs:
            shortcut = nn.Identity()
        elif plain and self.stem == "cifar":
            shortcut = _PaddedShortcut(outputs - inputs, stride)
        else:
            shortcut = nn.Sequential(
                _conv(inputs, outputs, stride, kernel=1), nn.BatchNorm2d(outputs)
            )
        return _PostActivationBlock(residual, shortcut)


def resnet(
    depth: Iterable[int] = (1, 2, 3, 4, 5, 6),
    width: Iterable[int] = (4, 6, 8, 12, 16, 24),
    *,
    input_shape: Sequence[int] = (3, 32, 32),
    classes: int = 10,
    variant: Variant = "plain",
    stem: Stem = "cifar",
    name: str = "resnet",
) -> DesignSpace:
    """Residual networks: depth is blocks per stage, width the channels of the first stage.

    Args:
        depth:
            Blocks per stage to choose from.
        width:
            Channels of the first stage to choose from; each further stage has twice as many.
        input_shape:
            ``(channels, height, width)`` of one image; at least 4 x 4 pixels, or 32 x 32 for the
            ImageNet stem.
        classes:
            Number of outputs.
        variant:
            ``"plain"``: blocks of two convolutions. ``"bottleneck"``: of three, with four times
            the channels between blocks. ``"wide"``: pre-activation blocks of two.
        stem:
            ``"cifar"``: a 3 x 3 convolution, then three stages. ``"imagenet"``: a quarter of the
            resolution, then four stages; not for wide networks.
        name:
            What reports call this space.

    Raises:
        InvalidSpace: An argument makes no network.

    Example:
        >>> space = resnet(depth=[3], width=[16])
        >>> sum(p.numel() for p in space.build(space.shapes[0]).parameters())
        269722
    """
    build = ResNet(tuple(input_shape), classes, variant, stem)
    return DesignSpace(depth, width, build, input_shape=build.input_shape, name=name)


class _PostActivationBlock(nn.Module):
    """The sum of both ways, then an activation."""

    def __init__(self, residual: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.residual = residual
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.shortcut(x) + self.residual(x))


class _PaddedShortcut(nn.Module):
    """Option A: every ``stride``-th pixel, and zeros for the channels that are new."""

    def __init__(self, added: int, stride: int) -> None:
        super().__init__()
        self.before = added // 2
        self.after = added - self.before
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.before, self.after))


class _PreActivationBlock(nn.Module):
    """Activation before each convolution; the sum is left as it is."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = _conv(inputs, outputs, stride)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs)
        self.shortcut = None if inputs == outputs else _conv(inputs, outputs, stride, kernel=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm1(x))
        if self.shortcut is not None:
            x = self.shortcut(y)
        y = self.conv2(F.relu(self.norm2(self.conv1(y))))
        return torch.add(x, y)


def _basic(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Sequential(
        _conv(inputs, outputs, stride),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        _conv(outputs, outputs),
        nn.BatchNorm2d(outputs),
    )


def _bottleneck(inputs: int, outputs: int, stride: int) -> nn.Module:
    inner = outputs // _EXPANSION
    return nn.Sequential(
        _conv(inputs, inner, kernel=1),
        nn.BatchNorm2d(inner),
        nn.ReLU(),
        _conv(inner, inner, stride),
        nn.BatchNorm2d(inner),
        nn.ReLU(),
        _conv(inner, outputs, kernel=1),
        nn.BatchNorm2d(outputs),
    )


def _conv(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
