"""Data sets: images in three disjoint sets, and how the training images are varied.

:data:`DATASETS` maps a name to a function ``(*, seed) -> Data``. Another data set is another
such function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from optuna_shape.errors import DataUnavailable

Augment = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
"""``augment(images, generator)`` returns varied copies; both live on the same device."""


@dataclass(frozen=True, eq=False)
class Data:
    """Labelled images of one size, ready for a network.

    Attributes:
        name: What reports call the data set.
        train_x: ``(n, channels, height, width)`` float tensor, without variation.
        train_y: ``(n,)`` int64 tensor of classes, as are the other two labels.
        validation_x: Images that tell shapes apart during the search, fixed.
        validation_y: Their classes.
        test_x: Images that no decision of a search ever saw, fixed.
        test_y: Their classes.
        classes: Number of classes.
        augment: Varies a batch of training images, or :obj:`None` to leave them as they are.
        passes: How often one epoch goes through the training images, each time varied afresh.

    Raises:
        DataUnavailable: A set is empty, or its labels do not fit its images.
    """

    name: str
    train_x: torch.Tensor
    train_y: torch.Tensor
    validation_x: torch.Tensor
    validation_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor
    classes: int
    augment: Augment | None = None
    passes: int = 1

    def __post_init__(self) -> None:
        for part in ("train", "validation", "test"):
            x, y = getattr(self, f"{part}_x"), getattr(self, f"{part}_y")
            if len(x) == 0 or len(x) != len(y) or x.shape[1:] != self.train_x.shape[1:]:
                raise DataUnavailable(
                    f"The {part} set of {self.name!r} holds images of shape {tuple(x.shape)} and "
                    f"labels of shape {tuple(y.shape)}. Every set needs at least one image, one "
                    "label per image, and images of the same size."
                )
            if y.min() < 0 or y.max() >= self.classes:
                raise DataUnavailable(
                    f"The {part} set of {self.name!r} has labels from {int(y.min())} to "
                    f"{int(y.max())}. Give labels from 0 to {self.classes - 1}."
                )


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


_DISTORTION = Distortion()
_HELD_OUT = 400
_COPIES = 4


def digits(*, seed: int = 0, distortion: Distortion = _DISTORTION) -> Data:
    """Return scikit-learn's 1,797 handwritten digits, made harder than they are.

    As they come, almost every shape reads them equally well. So they are enlarged to 12 x 12
    pixels and distorted, the training images afresh each time. 400 digits each are held out for
    validation and test, in four distorted copies that never change: 1,600 images, of which one is
    0.06 % of accuracy.

    Args:
        seed:
            Says which digits are held out and how they are distorted. It has nothing to do with
            the seeds of trainings.
        distortion:
            How hard the digits are to read.
    """
    bundle = load_digits()
    images = torch.tensor(bundle.images, dtype=torch.float32).unsqueeze(1) / bundle.images.max()
    images = F.interpolate(images, size=(12, 12), mode="bilinear")
    labels = torch.tensor(bundle.target, dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    validation, test, train = torch.split(
        torch.randperm(len(labels), generator=generator),
        [_HELD_OUT, _HELD_OUT, len(labels) - 2 * _HELD_OUT],
    )

    def held_out(indices: torch.Tensor) -> torch.Tensor:
        copies = [distortion(images[indices], generator) for _ in range(_COPIES)]
        return torch.cat(copies)

    return Data(
        name="digits",
        train_x=images[train],
        train_y=labels[train],
        validation_x=held_out(validation),
        validation_y=labels[validation].repeat(_COPIES),
        test_x=held_out(test),
        test_y=labels[test].repeat(_COPIES),
        classes=10,
        augment=distortion,
        passes=2,
    )


DATASETS: dict[str, Callable[..., Data]] = {"digits": digits}


def _uniform(
    low: float, high: float, size: tuple[int, ...], generator: torch.Generator
) -> torch.Tensor:
    return low + (high - low) * torch.rand(size, generator=generator, device=generator.device)
