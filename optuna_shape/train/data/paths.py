"""Data sets of the user's own: a folder of images, or arrays in a ``.npz`` file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from optuna_shape.errors import DataUnavailable
from optuna_shape.train.data.prepare import Labelled
from optuna_shape.train.data.prepare import prepared
from optuna_shape.train.data.sets import Data
from optuna_shape.train.data.sets import reason

_SETS = ("train", "val", "test")


def from_npz(path: Path, *, seed: int = 0) -> Data:
    """Return the images of a ``.npz`` file; no Python objects are loaded from it.

    It holds images ``x`` and classes ``y``; where present, ``x_val`` and ``y_val`` are for
    validation, ``x_test`` and ``y_test`` for the test, else a tenth of ``x`` is. Other arrays are
    not looked at. Images are numbers of any scale and of shape (n, channels, height, width),
    (n, height, width, channels) or (n, height, width); the shorter one of the second and the last
    of four axes counts the channels. Classes are integers 0, 1, ... of shape (n,). In training,
    images are shifted but not mirrored.

    Args:
        path:
            The file.
        seed:
            Says which images are held out.

    Raises:
        DataUnavailable: The file is missing or damaged, or does not hold such arrays.
    """
    if not path.is_file():
        raise DataUnavailable(f"There is no file {path}. Check the path.")
    names = [key + suffix for suffix in ("", "_val", "_test") for key in ("x", "y")]
    try:
        with np.load(path, allow_pickle=False) as file:
            found = sorted(file.files)
            # An entry that is no array comes as bytes.
            arrays = {name: np.asarray(file[name]) for name in names if name in found}
    except Exception as error:  # Of the file system, zip, zlib, or numpy's reader.
        raise DataUnavailable(
            f"{path} cannot be read as .npz ({reason(error)}). Write it by "
            "numpy.savez_compressed, with arrays of numbers only."
        ) from error
    train = _pair(path, arrays, "")
    if train is None:
        raise DataUnavailable(
            f"{path} holds no x and y, but {', '.join(found) or 'nothing'}. Write images as x and "
            "their classes as y."
        )
    labels = arrays["y"]
    different = len(np.unique(labels))
    if labels.size and (labels.min() != 0 or labels.max() != different - 1):
        raise DataUnavailable(
            f"y of {path} has {different} different labels, from {labels.min()} to "
            f"{labels.max()}. Number the classes 0, 1, ... without gaps."
        )
    return prepared(
        path.resolve().stem,
        train,
        _pair(path, arrays, "_val"),
        _pair(path, arrays, "_test"),
        classes=different,
        seed=seed,
        mirror=False,
    )


def from_folder(path: Path, *, seed: int = 0) -> Data:
    """Return the images of a folder with a folder of images for each class.

    It may also hold such folders for each set: ``train``, and ``val`` and ``test`` where present;
    for each one that is missing, a tenth of the training images is held out. Images are read in
    colour, and have one size. In training, they are shifted but not mirrored.

    Args:
        path:
            The folder.
        seed:
            Says which images are held out.

    Raises:
        DataUnavailable: There are no images of two or more classes, one cannot be read, or they
            differ in size.
    """
    if not path.is_dir():
        raise DataUnavailable(f"There is no folder {path}. Check the path.")
    folders = sorted(child.name for child in path.iterdir() if child.is_dir())
    if not any(_has_folders(path / name) for name in _SETS):
        labelled, classes = _images(path)
        parts: dict[str, Labelled] = {"train": labelled}
    elif "train" not in folders or not set(folders) <= set(_SETS):
        raise DataUnavailable(
            f"{path} holds the folders {', '.join(folders)}. Call those of the sets train, val "
            "and test, the first of which is needed, and put no others beside them."
        )
    else:
        parts, classes = {}, []
        for part in (name for name in _SETS if name in folders):
            parts[part], found = _images(path / part)
            classes = classes or found
            if found != classes:
                raise DataUnavailable(
                    f"{path / part} holds the classes {', '.join(found)}, but "
                    f"{path / 'train'} {', '.join(classes)}. Give every set the same classes."
                )
    return prepared(
        path.resolve().name,
        parts["train"],
        parts.get("val"),
        parts.get("test"),
        classes=len(classes),
        seed=seed,
        mirror=False,
    )


def _pair(path: Path, arrays: dict[str, NDArray[np.generic]], suffix: str) -> Labelled | None:
    """Return the images and labels of one set, or None where there are neither."""
    x, y = arrays.get(f"x{suffix}"), arrays.get(f"y{suffix}")
    if x is None and y is None:
        return None
    if x is None or y is None:
        raise DataUnavailable(
            f"{path} holds only one of x{suffix} and y{suffix}. Write both or none."
        )
    if x.dtype.kind not in "buif" or x.ndim not in (3, 4):
        raise DataUnavailable(
            f"x{suffix} of {path} is of shape {x.shape} and type {x.dtype}. Give numbers of shape "
            "(n, channels, height, width), (n, height, width, channels) or (n, height, width)."
        )
    if y.dtype.kind not in "ui" or y.ndim != 1:
        raise DataUnavailable(
            f"y{suffix} of {path} is of shape {y.shape} and type {y.dtype}. Give one integer for "
            "each image."
        )
    # Bytes stay bytes until the sets are drawn: a quarter of the memory.
    with np.errstate(over="ignore"):  # What is too large for 32 bits is refused as infinite.
        images = torch.from_numpy(x if x.dtype == np.uint8 else x.astype(np.float32, copy=False))
    if images.is_floating_point() and not images.isfinite().all():
        raise DataUnavailable(
            f"x{suffix} of {path} holds values that are infinite or no number. Give finite ones."
        )
    if images.ndim == 3:
        images = images.unsqueeze(1)
    elif images.shape[3] < images.shape[1]:
        images = images.permute(0, 3, 1, 2)
    return images, torch.from_numpy(y.astype(np.int64))


def _has_folders(path: Path) -> bool:
    return path.is_dir() and any(child.is_dir() for child in path.iterdir())


def _images(path: Path) -> tuple[Labelled, list[str]]:
    """Read the images below a folder, and return the names of their classes with them."""
    from torchvision.datasets import ImageFolder  # Here, as it takes a second.
    from torchvision.transforms.functional import pil_to_tensor

    try:
        folder = ImageFolder(path)
    except OSError as error:
        raise DataUnavailable(
            f"{path} cannot be used ({reason(error).rstrip('.')}). Put the images of each class "
            f"in a folder of its own: {path / 'CLASS' / 'NAME.png'}."
        ) from error
    images = torch.empty(0)
    for index, (file, _) in enumerate(folder.samples):
        try:
            image = pil_to_tensor(folder.loader(file))
        except Exception as error:  # Whatever the reader of that format raises.
            raise DataUnavailable(
                f"The image {file} cannot be read ({reason(error)}). Replace or delete it."
            ) from error
        if index == 0:
            images = image.new_empty(len(folder.samples), *image.shape)
        if image.shape != images.shape[1:]:
            raise DataUnavailable(
                f"The image {file} has {_size(image)} pixels, but {folder.samples[0][0]} has "
                f"{_size(images[0])}. Resize them to one size."
            )
        images[index] = image
    return (images, torch.tensor(folder.targets)), folder.classes


def _size(image: torch.Tensor) -> str:
    return f"{image.shape[1]} x {image.shape[2]}"
