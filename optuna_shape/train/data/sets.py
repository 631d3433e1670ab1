"""What a data set is: labelled images in three disjoint sets."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch

from optuna_shape.errors import DataUnavailable

Augment = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
"""``augment(images, generator)`` returns varied copies; both live on the same device."""

Root = str | os.PathLike[str] | None
"""The folder that holds published data sets, or :obj:`None` for the default one."""


@dataclass(frozen=True, eq=False)
class Data:
    """Labelled images of one size, ready for a network.

    The pixels of all sets are held in memory as 32-bit floats, scaled once: 60,000 images of
    3 x 32 x 32 take 0.7 GB, and a training copies them to its device once.

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
        DataUnavailable: There is one class only, a set is empty, or its labels do not fit its
            images.
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
        if self.classes < 2:
            raise DataUnavailable(
                f"{self.name!r} has {self.classes} class, so there is nothing to tell apart. "
                "Give images of two classes or more."
            )
        for part in ("train", "validation", "test"):
            x, y = getattr(self, f"{part}_x"), getattr(self, f"{part}_y")
            check(self.name, part, x, y, like=self.train_x)
            if y.min() < 0 or y.max() >= self.classes:
                raise DataUnavailable(
                    f"The {part} set of {self.name!r} has labels from {int(y.min())} to "
                    f"{int(y.max())}. Give labels from 0 to {self.classes - 1}."
                )

    @property
    def digest(self) -> str:
        """What tells data of the same name apart, by shapes, and by classes in their order.

        Another split differs, too. Pixels are not looked at, as that takes seconds.
        """
        labels = torch.cat([self.train_y, self.validation_y, self.test_y]).cpu().numpy()
        shapes = [list(x.shape) for x in (self.train_x, self.validation_x, self.test_x)]
        return hashlib.sha256(labels.tobytes() + str(shapes).encode()).hexdigest()[:12]


def check(name: str, part: str, x: torch.Tensor, y: torch.Tensor, *, like: torch.Tensor) -> None:
    """Raise unless there is an image, a label for each, and all are as large as others."""
    if x.numel() == 0 or len(x) != len(y) or x.shape[1:] != like.shape[1:]:
        raise DataUnavailable(
            f"The {part} set of {name!r} holds images of shape {tuple(x.shape)} and labels of "
            f"shape {tuple(y.shape)}; the training images are of shape {tuple(like.shape)}. "
            "Every set needs at least one image, one label per image, and images of the same size."
        )


def reason(error: Exception) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
