"""How training images are varied: whole batches at once, each image in its own way.

The transforms of torchvision draw from the global generator, and once for a whole batch. These
draw for each image, from the generator of the training, on its device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Distortion:
    """Makes images of symbols on a background of zeros harder to read.

    Each image is turned, scaled, sheared and shifted; parts of two others of its batch appear
    around it; every second one, by chance, changes its sign; and noise is added.

    Attributes:
        rotation: Largest angle in degrees, either way.
        scale: Smallest and largest magnification.
        shear: Largest shear, and logarithm of the largest change of aspect, either way.
        shift: Largest shift, as a fraction of the image, either way.
        clutter: Brightness of the neighbours, relative to their own.
        noise: Standard deviation of the noise added to each pixel.
    """

    rotation: float = 20.0
    scale: tuple[float, float] = (0.8, 1.1)
    shear: float = 0.2
    shift: float = 0.1
    clutter: float = 0.8
    noise: float = 0.05

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return distorted copies of ``(n, channels, height, width)`` images in [0, 1]."""
        n = len(images)
        centre = _uniform(-self.shift, self.shift, (n, 2), generator)
        result = self._moved(images, centre, generator)
        for _ in range(2):
            others = images[torch.randperm(n, generator=generator, device=images.device)]
            angle = _uniform(0.0, 2 * math.pi, (n,), generator)
            # At this distance, a neighbour is cut off by the edge but hardly hides the symbol.
            distance = _uniform(0.6, 0.8, (n, 1), generator)
            centre = distance * torch.stack([angle.cos(), angle.sin()], dim=1)
            result = torch.maximum(result, self.clutter * self._moved(others, centre, generator))
        sign = 2 * torch.randint(0, 2, (n, 1, 1, 1), generator=generator, device=images.device) - 1
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        return sign * result + self.noise * noise

    def _moved(
        self, images: torch.Tensor, shift: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Return the images turned, scaled, sheared, and shifted by ``(n, 2)`` fractions."""
        n = len(images)
        angle = math.pi / 180 * _uniform(-self.rotation, self.rotation, (n,), generator)
        zoom = 1 / _uniform(*self.scale, (n,), generator)
        aspect = torch.exp(0.5 * _uniform(-self.shear, self.shear, (n,), generator))
        shear = _uniform(-self.shear, self.shear, (n,), generator)
        cos, sin = zoom * angle.cos(), zoom * angle.sin()
        # Rotation times [[aspect, shear], [0, 1 / aspect]]; images span [-1, 1], thus 2 * shift.
        rows = [
            torch.stack([cos * aspect, cos * shear - sin / aspect, 2 * shift[:, 0]], dim=1),
            torch.stack([sin * aspect, sin * shear + cos / aspect, 2 * shift[:, 1]], dim=1),
        ]
        grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, align_corners=False)


@dataclass(frozen=True)
class FlipAndShift:
    """Mirrors every second image, by chance, left to right, and shifts each by whole pixels.

    A shift is the same as a crop of the size of the image, at random from the padded image.

    Attributes:
        background: Value of the pixels that a shift brings in, or one for each channel.
        shift: Largest shift in pixels, either way, along each axis.
        mirror: Whether images are mirrored. A digit or a letter would become another sign.
    """

    background: float | tuple[float, ...] = 0.0
    shift: int = 1
    mirror: bool = True

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return varied copies of ``(n, channels, height, width)`` images."""
        n, channels, height, width = images.shape
        device = images.device
        border = self.shift
        padded = images.new_empty(n, channels, height + 2 * border, width + 2 * border)
        padded[:] = images.new_tensor(self.background).view(-1, 1, 1)
        padded[:, :, border : border + height, border : border + width] = images
        top, left = torch.randint(
            0, 2 * self.shift + 1, (2, n, 1), generator=generator, device=device
        )
        rows = top + torch.arange(height, device=device)
        columns = left + torch.arange(width, device=device)
        if self.mirror:
            mirrored = torch.randint(0, 2, (n, 1), generator=generator, device=device).bool()
            columns = torch.where(mirrored, columns.flip(1), columns)
        return padded[
            torch.arange(n, device=device).view(n, 1, 1, 1),
            torch.arange(channels, device=device).view(1, channels, 1, 1),
            rows.view(n, 1, height, 1),
            columns.view(n, 1, 1, width),
        ]


def _uniform(
    low: float, high: float, size: tuple[int, ...], generator: torch.Generator
) -> torch.Tensor:
    return low + (high - low) * torch.rand(size, generator=generator, device=generator.device)
