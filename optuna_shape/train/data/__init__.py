"""Data sets: images in three disjoint sets, and how the training images are varied.

:data:`DATASETS` maps names to functions that return :class:`Data`, and :func:`load` also reads
folders and files of the user's own.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Protocol

from optuna_shape.errors import DataUnavailable
from optuna_shape.train.data.augment import Distortion
from optuna_shape.train.data.augment import FlipAndShift
from optuna_shape.train.data.named import cifar10_small
from optuna_shape.train.data.named import digits
from optuna_shape.train.data.named import fashion_mnist
from optuna_shape.train.data.named import published
from optuna_shape.train.data.paths import from_folder
from optuna_shape.train.data.paths import from_npz
from optuna_shape.train.data.sets import Augment
from optuna_shape.train.data.sets import Data
from optuna_shape.train.data.sets import Root

__all__ = [
    "DATASETS",
    "Augment",
    "Data",
    "Distortion",
    "FlipAndShift",
    "cifar10_small",
    "digits",
    "fashion_mnist",
    "load",
]


class Named(Protocol):
    """Returns a data set; ``seed`` fixes its sets, ``root`` is where published ones lie."""

    def __call__(self, *, seed: int = 0, root: Root = None) -> Data: ...


DATASETS: dict[str, Named] = {
    "digits": digits,
    "fashion-mnist": fashion_mnist,  # Small, so that a CPU can train every shape on it.
    "fashion-mnist-full": partial(
        published, "fashion-mnist-full", "FashionMNIST", 10, mirror=True
    ),
    "mnist": partial(published, "mnist", "MNIST", 10, mirror=False),
    "cifar10": partial(published, "cifar10", "CIFAR10", 10, mirror=True),
    "cifar10-small": cifar10_small,
    "cifar100": partial(published, "cifar100", "CIFAR100", 100, mirror=True),
}


def load(data: str | Path, *, root: Root = None, seed: int = 0) -> Data:
    """Return a data set: a known one, a folder of images, or a ``.npz`` file.

    Args:
        data:
            A name in :data:`DATASETS`, else the path of a folder with a folder of images for each
            class, or of a file that ends in ``.npz`` and holds images ``x`` and classes ``y``.
        root:
            The folder where torchvision finds the data sets it reads, or downloads them to. By
            default the environment variable ``OPTUNA_SHAPE_DATA``, else ``~/.cache/optuna_shape``.
        seed:
            Fixes which images are for training, validation and test. It has nothing to do with the
            seeds of trainings.

    Raises:
        DataUnavailable: There is no such data, or none that can be used. Says what to mend.
    """
    if data in DATASETS:
        return DATASETS[str(data)](seed=seed, root=root)
    path = Path(data).expanduser()
    if path.suffix == ".npz":
        return from_npz(path, seed=seed)
    if path.is_dir():
        return from_folder(path, seed=seed)
    raise DataUnavailable(
        f"Unknown data set {str(data)!r}. Known are {', '.join(sorted(DATASETS))}; else give the "
        "path of a folder with a folder of images for each class, or of a .npz file."
    )
