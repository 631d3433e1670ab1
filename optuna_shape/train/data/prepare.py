"""From images as they are stored to three disjoint sets, scaled."""

from __future__ import annotations

import torch

from optuna_shape.train.data.augment import FlipAndShift
from optuna_shape.train.data.sets import Data
from optuna_shape.train.data.sets import check
from optuna_shape.train.data.split import tenths

Labelled = tuple[torch.Tensor, torch.Tensor]
"""``(n, channels, height, width)`` images of any scale, and ``(n,)`` int64 classes."""


def prepared(
    name: str,
    train: Labelled,
    validation: Labelled | None,
    test: Labelled | None,
    *,
    classes: int,
    seed: int,
    mirror: bool,
) -> Data:
    """Return data whose channels have mean 0 and standard deviation 1 over the training images.

    In training, images are shifted by up to an eighth of their smaller side, and what a shift
    brings in is what 0 became, which is black in most images.

    Args:
        name:
            What reports call the data set.
        train:
            Images to train on. For each set that is missing, a tenth of each class is taken away.
        validation:
            Images that tell shapes apart during the search.
        test:
            Images that no decision of a search ever sees.
        classes:
            Number of classes.
        seed:
            Says which images are taken away.
        mirror:
            Whether images are also mirrored in training.

    Raises:
        DataUnavailable: The sets do not fit together, or a class has too few images.
    """
    parts = {"train": train, "validation": validation, "test": test}
    for part, labelled in parts.items():
        if labelled is not None:
            check(name, part, *labelled, like=train[0])
    missing = (validation is None) + (test is None)
    if missing:
        images, labels = train
        generator = torch.Generator().manual_seed(seed)
        *held_out, rest = tenths(labels, missing, generator)
        drawn = [(images[indices], labels[indices]) for indices in held_out]
        train = images[rest], labels[rest]
        validation = drawn.pop() if validation is None else validation
        test = drawn.pop() if test is None else test
    assert validation is not None
    assert test is not None
    train_x = _floats(train[0])
    std, mean = torch.std_mean(train_x, dim=(0, 2, 3), keepdim=True)
    # A channel that is the same everywhere, such as full opacity, becomes 0 but for rounding.
    std = std.where(std > 1e-5 * mean.abs(), 1.0)
    return Data(
        name=name,
        train_x=train_x.sub_(mean).div_(std),
        train_y=train[1],
        validation_x=_floats(validation[0]).sub_(mean).div_(std),
        validation_y=validation[1],
        test_x=_floats(test[0]).sub_(mean).div_(std),
        test_y=test[1],
        classes=classes,
        augment=FlipAndShift(
            background=tuple((-mean / std).flatten().tolist()),
            shift=min(train_x.shape[2:]) // 8,
            mirror=mirror,
        ),
    )


def _floats(images: torch.Tensor) -> torch.Tensor:
    return images.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
