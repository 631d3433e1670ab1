"""Data sets known by name: scikit-learn's digits, and those that torchvision reads."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from optuna_shape.errors import DataUnavailable
from optuna_shape.train.data.augment import Distortion
from optuna_shape.train.data.augment import FlipAndShift
from optuna_shape.train.data.prepare import Labelled
from optuna_shape.train.data.prepare import prepared
from optuna_shape.train.data.sets import Data
from optuna_shape.train.data.sets import Root
from optuna_shape.train.data.sets import check
from optuna_shape.train.data.sets import reason
from optuna_shape.train.data.split import balanced

_DISTORTION = Distortion()
_HELD_OUT = 400
_COPIES = 4
_TEN = 10


def digits(*, seed: int = 0, root: Root = None, distortion: Distortion = _DISTORTION) -> Data:
    """Return scikit-learn's 1,797 handwritten digits, made harder than they are.

    As they come, almost every shape reads them equally well. So they are enlarged to 12 x 12
    pixels and distorted, the training images afresh each time. 400 digits each are held out for
    validation and test, in four distorted copies that never change: 1,600 images, of which one is
    0.06 % of accuracy.

    Args:
        seed:
            Says which digits are held out and how they are distorted. It has nothing to do with
            the seeds of trainings.
        root:
            Makes no difference: scikit-learn brings the digits.
        distortion:
            How hard the digits are to read.
    """
    from sklearn.datasets import load_digits  # Takes over a second to import.

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


def published(
    name: str, title: str, classes: int, *, mirror: bool, seed: int = 0, root: Root = None
) -> Data:
    """Return all images of a data set that torchvision reads, downloading it where it is missing.

    A tenth of the training images of each class are for validation. In training, images are
    shifted by up to an eighth: 3 pixels of 28, 4 of 32.

    Args:
        name:
            What reports call the data set.
        title:
            Its class in :mod:`torchvision.datasets`, such as ``"CIFAR10"``.
        classes:
            Number of classes.
        mirror:
            Whether images are mirrored in training.
        seed:
            Says which images are for validation. It has nothing to do with the seeds of trainings.
        root:
            The folder that torchvision calls so, see :func:`fashion_mnist`.

    Raises:
        DataUnavailable: The files can be neither read nor downloaded.
    """
    train, test = _read(title, root)
    return prepared(name, train, None, test, classes=classes, seed=seed, mirror=mirror)


def fashion_mnist(
    *,
    seed: int = 0,
    root: Root = None,
    train: int = 6000,
    validation: int = 2000,
    test: int = 2000,
    size: int = 14,
) -> Data:
    """Return small images of clothes from Fashion-MNIST, with as many of each class in every set.

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
        DataUnavailable: The files can be neither read nor downloaded, or have too few images.
    """
    return _reduced(
        "fashion-mnist", "FashionMNIST", seed, root, (validation, train), test, size, shift=1
    )


def cifar10_small(
    *,
    seed: int = 0,
    root: Root = None,
    train: int = 6000,
    validation: int = 2000,
    test: int = 2000,
    size: int = 16,
) -> Data:
    """Return small colour images from CIFAR-10, with as many of each class in every set.

    Training and validation images are drawn from its 50,000 training images, test images from
    its 10,000 test images. Pixels are averaged down to ``size``, then scaled to mean 0 and
    standard deviation 1 of each channel of the training images. They are mirrored and shifted in
    training.

    Args:
        seed:
            Says which images are drawn. It has nothing to do with the seeds of trainings.
        root:
            The folder that holds ``cifar-10-batches-py``. It is downloaded there if it is missing.
            By default as for :func:`fashion_mnist`.
        train:
            Number of training images, a multiple of 10, as are the other two.
        validation:
            Number of validation images. Which they are does not depend on ``train``.
        test:
            Number of test images.
        size:
            Height and width in pixels; 32 leaves the images as they are.

    Raises:
        DataUnavailable: The files can be neither read nor downloaded, or have too few images.
    """
    return _reduced(
        "cifar10-small", "CIFAR10", seed, root, (validation, train), test, size, shift=2
    )


def _reduced(
    name: str,
    title: str,
    seed: int,
    root: Root,
    drawn: tuple[int, int],
    test: int,
    size: int,
    *,
    shift: int,
) -> Data:
    """Return few and small images of ten classes; ``drawn`` are those to validate and train on."""
    (images, labels), (test_images, test_labels) = _read(title, root)
    generator = torch.Generator().manual_seed(seed)
    for_validation, for_training = balanced(labels, drawn, _TEN, generator)
    (for_test,) = balanced(test_labels, [test], _TEN, generator)

    def scaled(images: torch.Tensor) -> torch.Tensor:
        """Turn ``(n, channels, height, width)`` bytes into fractions of the smaller size."""
        return F.adaptive_avg_pool2d(images / 255, size)

    train_x = scaled(images[for_training])
    std, mean = torch.std_mean(train_x, dim=(0, 2, 3), keepdim=True)
    return Data(
        name=name,
        train_x=(train_x - mean) / std,
        train_y=labels[for_training],
        validation_x=(scaled(images[for_validation]) - mean) / std,
        validation_y=labels[for_validation],
        test_x=(scaled(test_images[for_test]) - mean) / std,
        test_y=test_labels[for_test],
        classes=_TEN,
        augment=FlipAndShift(background=tuple((-mean / std).flatten().tolist()), shift=shift),
    )


def _read(title: str, root: Root) -> list[Labelled]:
    """Return the training and the test set of a class in :mod:`torchvision.datasets`, as bytes."""
    from torchvision import datasets  # Here, as it takes a second.
    from torchvision.datasets.utils import extract_archive

    folder = Path(root or os.environ.get("OPTUNA_SHAPE_DATA") or "~/.cache/optuna_shape")
    folder = folder.expanduser()
    dataset = getattr(datasets, title)
    like_mnist = issubclass(dataset, datasets.MNIST)
    place = Path(title, "raw") if like_mnist else Path(dataset.base_folder)
    packed = [folder / place / name for name, _ in dataset.resources] if like_mnist else []
    try:
        with tempfile.TemporaryDirectory() as unpacked:
            # torchvision would unpack these files where they are: in a folder that may be
            # read-only.
            source = folder
            if packed and all(f.exists() and not f.with_suffix("").exists() for f in packed):
                source = Path(unpacked)
                (source / place).mkdir(parents=True)
                for file in packed:
                    extract_archive(file, source / place)
            sets = [
                _labelled(dataset(source, train=part, download=True)) for part in (True, False)
            ]
    except Exception as error:  # Of the network, the file system, gzip, or torchvision's reader.
        raise DataUnavailable(
            f"{title} can neither be read from {folder / place} nor downloaded to it "
            f"({reason(error)}). Connect to the network, put its files there as torchvision keeps "
            f"them, or set OPTUNA_SHAPE_DATA or --data-root to the folder that holds {place}. "
            "Delete damaged files."
        ) from error
    for part, (x, y) in zip(("train", "test"), sets):
        check(title, part, x, y, like=sets[0][0])
    return sets


def _labelled(dataset: Any) -> Labelled:
    """Return images and classes as tensors, of which torchvision keeps only some as such."""
    images, labels = torch.as_tensor(dataset.data), torch.as_tensor(dataset.targets)
    return (images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)), labels
