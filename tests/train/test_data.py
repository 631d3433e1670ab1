from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from optuna_shape import DataUnavailable
from optuna_shape.train.data import DATASETS
from optuna_shape.train.data import Data
from optuna_shape.train.data import Distortion
from optuna_shape.train.data import FlipAndShift
from optuna_shape.train.data import digits

PLACES = {
    "fashion-mnist": "FashionMNIST/raw",
    "fashion-mnist-full": "FashionMNIST/raw",
    "mnist": "MNIST/raw",
    "cifar10": "cifar-10-batches-py",
    "cifar10-small": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
}
STILL = Distortion(rotation=0, scale=(1, 1), shear=0, shift=0, clutter=0, noise=0)


@pytest.fixture(scope="module")
def data() -> Data:
    return digits()


def sources(images: torch.Tensor) -> list[int]:
    """Which of scikit-learn's digits each undistorted image was made of."""
    originals = torch.tensor(load_digits().images, dtype=torch.float32).unsqueeze(1) / 16
    originals = torch.nn.functional.interpolate(originals, size=(12, 12), mode="bilinear")
    distances = torch.cdist(images.abs().flatten(1), originals.flatten(1))
    nearest = distances.min(dim=1)
    assert nearest.values.max() < 0.01
    return nearest.indices.tolist()


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_is_ready_for_a_network(name: str) -> None:
    root = os.environ.get("OPTUNA_SHAPE_DATA")
    if name in PLACES and (root is None or not Path(root, PLACES[name]).exists()):
        pytest.skip(f"OPTUNA_SHAPE_DATA names no folder with {PLACES[name]}")
    data = DATASETS[name](seed=0)
    assert data.name == name
    for x, y in (
        (data.train_x, data.train_y),
        (data.validation_x, data.validation_y),
        (data.test_x, data.test_y),
    ):
        assert x.dtype == torch.float32
        assert y.dtype == torch.int64
        assert x.ndim == 4
        assert set(y.tolist()) == set(range(data.classes))


def test_no_digit_is_in_two_sets_and_none_is_lost() -> None:
    data = digits(distortion=STILL)
    train, validation, test = map(sources, (data.train_x, data.validation_x, data.test_x))
    assert len(train) == len(set(train)) == 997
    assert len(set(validation)) == len(set(test)) == 400
    assert sorted({*train, *validation, *test}) == list(range(1797))
    targets = torch.tensor(load_digits().target)
    assert torch.equal(data.train_y, targets[train])
    assert torch.equal(data.validation_y, targets[validation])
    assert torch.equal(data.test_y, targets[test])


def test_the_seed_fixes_the_sets_whatever_torch_drew_before(data: Data) -> None:
    torch.manual_seed(123)
    again, other = digits(seed=0), digits(seed=1)
    for field in ("train_x", "train_y", "validation_x", "validation_y", "test_x", "test_y"):
        assert torch.equal(getattr(data, field), getattr(again, field))
    assert not torch.equal(data.validation_x, other.validation_x)


def test_copies_of_a_held_out_digit_differ(data: Data) -> None:
    copies = data.validation_x.view(4, 400, 1, 12, 12)
    for first in range(4):
        for second in range(first):
            same = (copies[first] == copies[second]).flatten(1).all(dim=1)
            assert not same.any()


def test_distortion_follows_its_generator_and_leaves_its_input(data: Data) -> None:
    images = data.train_x[:16].clone()
    first, again, other = (
        Distortion()(images, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == images.shape
    assert torch.equal(images, data.train_x[:16])


def test_a_still_distortion_only_changes_signs() -> None:
    images = torch.rand(64, 2, 7, 5)
    result = STILL(images, torch.Generator().manual_seed(0))
    assert torch.allclose(result.abs(), images, atol=1e-5)
    signs = result.flatten(1).sum(dim=1).sign()
    assert set(signs.tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize(
    ("change", "brightness", "furthest"),
    [
        ({"scale": (2, 2)}, 4.0, 0.0),
        ({"rotation": 180.0}, 1.0, 0.0),
        ({"shear": 0.5}, 1.0, 0.0),
        ({"shift": 0.25}, 1.0, 0.25),
    ],
)
def test_a_distortion_keeps_to_its_limits(
    change: dict[str, object], brightness: float, furthest: float
) -> None:
    distortion = dataclasses.replace(STILL, **change)  # type: ignore[arg-type]
    images = torch.zeros(200, 1, 24, 24)
    images[:, :, 9:15, 9:15] = 1
    result = distortion(images, torch.Generator().manual_seed(0)).abs()
    total = result.sum(dim=(1, 2, 3))
    assert torch.allclose(total, torch.full((200,), brightness * 36.0), rtol=0.05)
    pixels = (torch.arange(24) + 0.5) / 24 - 0.5
    for dim in (2, 3):
        centres = result.sum(dim=(1, dim)) @ pixels / total
        assert centres.abs().max() <= furthest + 0.01
        assert centres.abs().max() >= 0.9 * furthest


def test_neighbours_surround_the_symbol_and_spare_its_middle() -> None:
    images = torch.zeros(200, 1, 24, 24)
    images[:, :, 8:16, 8:16] = 1
    cluttered = dataclasses.replace(STILL, clutter=0.5)
    result = cluttered(images, torch.Generator().manual_seed(0)).abs()
    assert torch.allclose(result[:, :, 8:16, 8:16], images[:, :, 8:16, 8:16], atol=1e-5)
    around = result.sum(dim=(1, 2, 3)) - 64
    assert (around > 1).float().mean() > 0.7
    assert (result <= 1 + 1e-5).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_x": torch.zeros(0, 1, 4, 4), "test_y": torch.zeros(0)}, "at least one image"),
        ({"validation_y": torch.zeros(1, dtype=torch.int64)}, "one label per image"),
        ({"test_x": torch.zeros(2, 1, 5, 5)}, "images of the same size"),
        ({"train_y": torch.tensor([0, 3])}, "labels from 0 to 2"),
        ({"train_y": torch.tensor([-1, 0])}, "labels from 0 to 2"),
        ({"classes": 1}, "images of two classes or more"),
    ],
)
def test_sets_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    x, y = torch.zeros(2, 1, 4, 4), torch.tensor([0, 2])
    data = Data("tiny", x, y, x, y, x, y, classes=3)
    with pytest.raises(DataUnavailable, match=message):
        dataclasses.replace(data, **changes)  # type: ignore[arg-type]


def test_a_shift_brings_in_the_background_of_each_channel_and_may_leave_mirrors_out() -> None:
    image = torch.arange(1.0, 25.0).view(1, 2, 3, 4)
    padded = torch.stack(
        [
            torch.nn.functional.pad(channel, [2] * 4, value=value)
            for channel, value in zip(image[0], (-7.0, -8.0))
        ]
    )
    allowed = {
        tuple(padded[:, top : top + 3, left : left + 4].flatten().tolist())
        for top in range(5)
        for left in range(5)
    }
    augment = FlipAndShift(background=(-7.0, -8.0), shift=2, mirror=False)
    results = augment(image.repeat(500, 1, 1, 1), torch.Generator().manual_seed(0))
    assert {tuple(result.flatten().tolist()) for result in results} == allowed
