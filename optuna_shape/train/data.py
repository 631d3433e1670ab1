"""Data sets: images in three disjoint sets, and how the training images are varied.

:data:`DATASETS` maps a name to a function ``(*, seed) -> Data``. Another data set is another
such function.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class FlipAndShift:
    """Mirrors every second image, by chance, left to right, and shifts each by whole pixels.

    Attributes:
        background: Value of the pixels that a shift brings in.
        shift: Largest shift in pixels, either way, along each axis.
    """

    background: float = 0.0
    shift: int = 1

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return varied copies of ``(n, channels, height, width)`` images."""
        n, channels, height, width = images.shape
        device = images.device
        padded = F.pad(images, [self.shift] * 4, value=self.background)
        top, left = torch.randint(
            0, 2 * self.shift + 1, (2, n, 1), generator=generator, device=device
        )
        mirrored = torch.randint(0, 2, (n, 1), generator=generator, device=device).bool()
        rows = top + torch.arange(height, device=device)
        columns = left + torch.arange(width, device=device)
        columns = torch.where(mirrored, columns.flip(1), columns)
        return padded[
            torch.arange(n, device=device).view(n, 1, 1, 1),
            torch.arange(channels, device=device).view(1, channels, 1, 1),
            rows.view(n, 1, height, 1),
            columns.view(n, 1, 1, width),
        ]


_DISTORTION = Distortion()
_HELD_OUT = 400
_COPIES = 4
_CLOTHES = 10


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


def fashion_mnist(
    *,
    seed: int = 0,
    root: str | os.PathLike[str] | None = None,
    train: int = 6000,
    validation: int = 2000,
    test: int = 2000,
    size: int = 14,
) -> Data:
    """Return images of clothes from Fashion-MNIST, with as many of each class in every set.

    Training and validation images are drawn from its 60,000 training images, test images from
    its 10,000 test images. Pixels are averaged down to ``size``, then scaled to mean 0 and
    standard deviation 1 of the training images. They are mirrored and shifted in training.

    Args:
        seed:
            Says which images are drawn. It has nothing to do with the seeds of trainings.
        root:
            The folder that holds ``FashionMNIST/raw`` with the four files, packed or not. They
            are downloaded to it if they are missing. By default the environment variable
            ``OPTUNA_SHAPE_DATA``, else ``~/.cache/optuna_shape``.
        train:
            Number of training images, a multiple of 10, as are the other two.
        validation:
            Number of validation images. Which they are does not depend on ``train``.
        test:
            Number of test images.
        size:
            Height and width in pixels; 28 leaves the images as they are.

    Raises:
        DataUnavailable: The files cannot be read nor downloaded, or have too few images.
    """
    folder = Path(root or os.environ.get("OPTUNA_SHAPE_DATA") or "~/.cache/optuna_shape")
    (images, labels), (test_images, test_labels) = _read_fashion_mnist(folder.expanduser())
    generator = torch.Generator().manual_seed(seed)
    for_validation, for_training = _balanced(labels, [validation, train], generator)
    (for_test,) = _balanced(test_labels, [test], generator)

    def scaled(images: torch.Tensor) -> torch.Tensor:
        """Turn ``(n, 28, 28)`` bytes into ``(n, 1, size, size)`` fractions."""
        return F.adaptive_avg_pool2d(images.unsqueeze(1) / 255, size)

    train_x = scaled(images[for_training])
    std, mean = torch.std_mean(train_x)
    return Data(
        name="fashion-mnist",
        train_x=(train_x - mean) / std,
        train_y=labels[for_training],
        validation_x=(scaled(images[for_validation]) - mean) / std,
        validation_y=labels[for_validation],
        test_x=(scaled(test_images[for_test]) - mean) / std,
        test_y=test_labels[for_test],
        classes=_CLOTHES,
        augment=FlipAndShift(background=float(-mean / std)),
    )


DATASETS: dict[str, Callable[..., Data]] = {"digits": digits, "fashion-mnist": fashion_mnist}


def _read_fashion_mnist(root: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return ``(n, 28, 28)`` bytes and ``(n,)`` int64 labels, for training and for test."""
    from torchvision.datasets import FashionMNIST  # Here, as it takes a second.
    from torchvision.datasets.utils import extract_archive

    folder = Path("FashionMNIST", "raw")
    packed = [root / folder / name for name, _ in FashionMNIST.resources]
    try:
        with tempfile.TemporaryDirectory() as unpacked:
            # torchvision reads no packed files, and would unpack them where they are: in a folder
            # that may be read-only.
            source = root
            if all(file.exists() and not file.with_suffix("").exists() for file in packed):
                source = Path(unpacked)
                (source / folder).mkdir(parents=True)
                for file in packed:
                    extract_archive(file, source / folder)
            sets = [FashionMNIST(source, train=train, download=True) for train in (True, False)]
            return [(part.data, part.targets) for part in sets]
    except Exception as error:  # Of the network, the file system, gzip, or torchvision's reader.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataUnavailable(
            f"Fashion-MNIST can neither be read from {root / folder} nor downloaded to it "
            f"({reason}). Connect to the network, put its four .gz files there, or set "
            "OPTUNA_SHAPE_DATA to the folder that holds FashionMNIST/raw. Delete damaged files."
        ) from error


def _balanced(
    labels: torch.Tensor, sizes: Sequence[int], generator: torch.Generator
) -> list[torch.Tensor]:
    """Draw disjoint sets with as many of each class, in random order.

    Args:
        labels:
            ``(n,)`` int64 tensor of classes.
        sizes:
            How many to draw for each set.
        generator:
            Draws them.

    Returns:
        For each set a ``(size,)`` tensor of indices.
    """
    available = int(labels.bincount(minlength=_CLOTHES).min())
    if any(size % _CLOTHES for size in sizes) or sum(sizes) > available * _CLOTHES:
        raise DataUnavailable(
            f"Sets of {' and '.join(map(str, sizes))} images cannot be drawn with as many of each "
            f"class. Give multiples of {_CLOTHES}, {available * _CLOTHES} at most together."
        )
    order = torch.randperm(len(labels), generator=generator)
    classes = labels[order].unsqueeze(1)
    # The first drawn of each class has rank 0, the next rank 1, ...
    rank = F.one_hot(classes.squeeze(1), _CLOTHES).cumsum(dim=0).gather(1, classes).squeeze(1) - 1
    sets, begin = [], 0
    for size in sizes:
        end = begin + size // _CLOTHES
        sets.append(order[(begin <= rank) & (rank < end)])
        begin = end
    return sets


def _uniform(
    low: float, high: float, size: tuple[int, ...], generator: torch.Generator
) -> torch.Tensor:
    return low + (high - low) * torch.rand(size, generator=generator, device=generator.device)
