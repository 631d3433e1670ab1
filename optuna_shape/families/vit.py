"""Vision transformers: depth is the number of encoder layers, width the hidden size.

    patches -> linear to width -> depth x (attention, perceptron of 4 width) -> classes

The networks of Dosovitskiy et al. [Dosovitskiy2021]_, built by
:class:`torchvision.models.VisionTransformer`. All heads have ``head_size`` channels, so a wider
network has more of them; with 64, ViT-Ti, -S, -B and -L are (12, 192), (12, 384), (12, 768) and
(24, 1024).

.. [Dosovitskiy2021] Dosovitskiy et al. An image is worth 16x16 words: transformers for image
   recognition at scale. ICLR 2021.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from optuna_shape.errors import InvalidSpace
from optuna_shape.families._checks import check_classes
from optuna_shape.families._checks import check_image
from optuna_shape.families._checks import check_multiples
from optuna_shape.families._checks import check_positive
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape

_MLP_RATIO = 4
_LARGEST_PATCH = 16
_PATCHES_A_SIDE = 6


@dataclass(frozen=True)
class ViT:
    """Builds the vision transformer of a shape, whose width is a multiple of ``head_size``.

    Attributes:
        input_shape: ``(channels, height, width)`` of one image.
        classes: Number of outputs.
        patch_size: Pixels along either side of a patch.
        head_size: Channels of each attention head.
    """

    input_shape: tuple[int, ...]
    classes: int
    patch_size: int
    head_size: int

    def __post_init__(self) -> None:
        image = check_image(self.input_shape, 1, "a vision transformer")
        object.__setattr__(self, "input_shape", image)
        check_classes(self.classes)
        check_positive("patch_size", self.patch_size)
        check_positive("head_size", self.head_size)
        longest = max(image[1:])
        if self.patch_size > longest:
            raise InvalidSpace(
                f"patch_size={self.patch_size} is more than the {image[1]} x {image[2]} pixels "
                f"of an image. Give {longest} or less."
            )

    def __call__(self, shape: Shape) -> nn.Module:
        from torchvision.models import VisionTransformer  # Here, as it takes a second.

        channels, height, width = self.input_shape
        side = math.ceil(max(height, width) / self.patch_size) * self.patch_size
        transformer: nn.Module = VisionTransformer(
            image_size=side,
            patch_size=self.patch_size,
            num_layers=shape.depth,
            num_heads=shape.width // self.head_size,
            hidden_dim=shape.width,
            mlp_dim=_MLP_RATIO * shape.width,
            num_classes=self.classes,
        )
        if channels != 3:  # torchvision's class knows colour images only.
            transformer.conv_proj = self._patches(channels, shape.width)
        if height == width == side:
            return transformer
        return nn.Sequential(nn.ZeroPad2d((0, side - width, 0, side - height)), transformer)

    def _patches(self, channels: int, width: int) -> nn.Module:
        """Return the linear map of a patch, with the initial weights that torchvision gives it."""
        projection = nn.Conv2d(channels, width, self.patch_size, stride=self.patch_size)
        nn.init.trunc_normal_(projection.weight, std=(channels * self.patch_size**2) ** -0.5)
        if projection.bias is not None:
            nn.init.zeros_(projection.bias)
        return projection


def vit(
    depth: Iterable[int] = (1, 2, 3, 4, 5, 6),
    width: Iterable[int] = (64, 128, 192, 256),
    *,
    input_shape: Sequence[int] = (3, 32, 32),
    classes: int = 10,
    patch_size: int | None = None,
    head_size: int = 64,
    name: str = "vit",
) -> DesignSpace:
    """Vision transformers: depth is the number of encoder layers, width the hidden size.

    Args:
        depth:
            Numbers of encoder layers to choose from.
        width:
            Hidden sizes to choose from, multiples of ``head_size``; the perceptron of a layer is
            four times as wide.
        input_shape:
            ``(channels, height, width)`` of one image. Where patches do not make a square of it,
            zeros are added below and to the right.
        classes:
            Number of outputs.
        patch_size:
            Pixels along either side of a patch. By default the largest power of two, up to 16,
            that leaves six patches or more along the longer side: 16 for 224 pixels, 4 for 32.
        head_size:
            Channels of each attention head. Small networks may want fewer than the usual 64.
        name:
            What reports call this space.

    Raises:
        InvalidSpace: An argument makes no network.

    Example:
        >>> space = vit(depth=range(1, 13), width=[192, 384, 768], input_shape=(3, 224, 224))
        >>> space.builder.patch_size
        16
    """
    image = check_image(input_shape, 1, "a vision transformer")
    if patch_size is None:
        patch_size = _patch_size(max(image[1:]))
    build = ViT(image, classes, patch_size, head_size)
    space = DesignSpace(depth, width, build, input_shape=image, name=name)
    check_multiples(space.widths, head_size, f"the {head_size} channels of an attention head")
    return space


def _patch_size(longest: int) -> int:
    patch = _LARGEST_PATCH
    while patch > 1 and longest < _PATCHES_A_SIDE * patch:
        patch //= 2
    return patch
