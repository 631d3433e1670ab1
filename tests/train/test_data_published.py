"""Published data sets: small files in their formats, read by torchvision itself."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from optuna_shape import DataUnavailable
from optuna_shape.train.data import Data
from optuna_shape.train.data import FlipAndShift
from optuna_shape.train.data import cifar10_small
from optuna_shape.train.data import load

FIELDS = ("train_x", "train_y", "validation_x", "validation_y", "test_x", "test_y")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send every request to a port where nobody listens."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)


def write_idx(file: Path, array: np.ndarray) -> None:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(header + array.tobytes())


def write_mnist(root: Path, title: str, **changes: np.ndarray) -> dict[str, np.ndarray]:
    """Write 200 and 40 images: a number, white, then black."""
    arrays = {}
    for part, n in (("train", 200), ("t10k", 40)):
        images = np.zeros((n, 28, 28), dtype=np.uint8)
        images[:, 0, 0], images[:, 0, 1] = np.arange(n), 255
        arrays[f"{part}-images-idx3"] = images
        arrays[f"{part}-labels-idx1"] = (np.arange(n) * 7 % 10).astype(np.uint8)
    arrays |= changes
    for name, array in arrays.items():
        write_idx(root / title / "raw" / f"{name}-ubyte", array)
    return arrays


def cifar(root: Path, monkeypatch: pytest.MonkeyPatch, title: str, classes: int) -> np.ndarray:
    """Write a tiny CIFAR where the first red pixel numbers each training image; say its labels."""
    dataset = getattr(datasets, title)
    folder = root / dataset.base_folder
    folder.mkdir(parents=True)
    key = "labels" if title == "CIFAR10" else "fine_labels"
    pixels = np.zeros((250, 3072), dtype=np.uint8)
    pixels[:, 0], pixels[:, 1:] = np.arange(250), np.arange(3071) * 80 // 1024
    labels = np.arange(250) * 7 % classes
    train = [name for name, _ in dataset.train_list]
    test = [name for name, _ in dataset.test_list]
    for names in (train, test):
        for name, x, y in zip(names, np.split(pixels, len(names)), np.split(labels, len(names))):
            (folder / name).write_bytes(pickle.dumps({"data": x, key: y.tolist()}))
    meta = {dataset.meta["key"]: [str(label) for label in range(classes)]}
    (folder / dataset.meta["filename"]).write_bytes(pickle.dumps(meta))
    # Only the real files have the real check sums.
    monkeypatch.setattr(dataset, "train_list", [[name, None] for name in train])
    monkeypatch.setattr(dataset, "test_list", [[name, None] for name in test])
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": None})
    return labels


def numbers(data: Data, part: str) -> list[int]:
    """The number of each image in its file, whatever the normalisation."""
    zero, full, number = (getattr(data, part)[:, 0, 0, column] for column in (2, 1, 0))
    result: list[int] = (255 * (number - zero) / (full - zero)).round().int().tolist()
    return result


@pytest.mark.parametrize(
    ("name", "title", "mirror"),
    [("mnist", "MNIST", False), ("fashion-mnist-full", "FashionMNIST", True)],
)
def test_mnist_and_its_like(tmp_path: Path, name: str, title: str, mirror: bool) -> None:
    arrays = write_mnist(tmp_path, title)
    data = load(name, root=tmp_path)
    assert (data.name, data.classes, data.passes) == (name, 10, 1)
    assert data.train_x.shape == (180, 1, 28, 28)
    assert data.validation_y.bincount().tolist() == [2] * 10
    train, validation, test = (numbers(data, part) for part in FIELDS[::2])
    assert sorted(train + validation) == list(range(200))
    assert test == list(range(40))
    labels = torch.tensor(arrays["train-labels-idx1"]).long()
    assert torch.equal(data.train_y, labels[train])
    assert torch.equal(data.validation_y, labels[validation])
    assert isinstance(data.augment, FlipAndShift)
    assert (data.augment.mirror, data.augment.shift) == (mirror, 3)


@pytest.mark.parametrize(
    ("name", "title", "classes"), [("cifar10", "CIFAR10", 10), ("cifar100", "CIFAR100", 100)]
)
def test_cifar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, title: str, classes: int
) -> None:
    labels = torch.tensor(cifar(tmp_path, monkeypatch, title, classes))
    data = load(name, root=tmp_path)
    assert (data.name, data.classes) == (name, classes)
    assert data.train_x.shape[1:] == (3, 32, 32)
    assert data.train_x.dtype == torch.float32
    low, high = data.test_x[[0, 249], 0, 0, 0]
    seen = []
    for part in ("train", "validation"):
        number = (249 * (getattr(data, f"{part}_x")[:, 0, 0, 0] - low) / (high - low)).round()
        assert torch.equal(getattr(data, f"{part}_y"), labels[number.long()])
        seen += number.int().tolist()
    assert sorted(seen) == list(range(250))
    assert torch.equal(data.test_y, labels)
    # Rows run from left to right, and channels are red, green, blue.
    rows = data.test_x[0].flatten(1)
    assert (rows[:, 1:].diff() >= 0).all()
    assert isinstance(data.augment, FlipAndShift)
    assert (data.augment.mirror, data.augment.shift) == (True, 4)


def test_small_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar(tmp_path, monkeypatch, "CIFAR10", 10)
    sizes = {"train": 100, "validation": 50, "test": 50}
    large, small = (cifar10_small(root=tmp_path, size=size, **sizes) for size in (32, 16))
    assert small.train_x.shape == (100, 3, 16, 16)
    # A pixel is the average of four, of its own channel, up to the scale of each channel.
    for channel in range(3):
        averages = torch.nn.functional.avg_pool2d(large.test_x[:, channel], 2)
        both = torch.stack([averages.flatten(), small.test_x[:, channel].flatten()])
        assert torch.corrcoef(both)[0, 1] > 0.99999
    assert torch.allclose(small.train_x.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5)
    for y, each in ((small.train_y, 10), (small.validation_y, 5), (small.test_y, 5)):
        assert y.bincount().tolist() == [each] * 10
    # The first red pixel numbers the images, so no two sets drawn from one file share any.
    first = torch.cat([large.train_x, large.validation_x])[:, 0, 0, 0]
    assert len(first.unique()) == 150
    assert isinstance(small.augment, FlipAndShift)
    assert small.augment.shift == 2


def test_the_seed_fixes_the_sets(tmp_path: Path) -> None:
    write_mnist(tmp_path, "MNIST")
    first = load("mnist", root=tmp_path)
    torch.manual_seed(123)
    again, other = load("mnist", root=tmp_path, seed=0), load("mnist", root=tmp_path, seed=1)
    for field in FIELDS:
        assert torch.equal(getattr(first, field), getattr(again, field))
    assert set(numbers(first, "validation_x")) != set(numbers(other, "validation_x"))
    assert numbers(first, "test_x") == numbers(other, "test_x")


def test_each_channel_is_scaled_by_the_training_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cifar(tmp_path, monkeypatch, "CIFAR10", 10)
    data = load("cifar10", root=tmp_path)
    std, mean = torch.std_mean(data.train_x, dim=(0, 2, 3))
    assert torch.allclose(mean, torch.zeros(3), atol=1e-5)
    assert torch.allclose(std, torch.ones(3), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("mnist", "MNIST/raw"),
        ("fashion-mnist-full", "FashionMNIST/raw"),
        ("cifar10", "cifar-10-batches-py"),
        ("cifar100", "cifar-100-python"),
    ],
)
def test_missing_files_without_a_network(tmp_path: Path, name: str, place: str) -> None:
    with pytest.raises(DataUnavailable, match="Connect to the network") as caught:
        load(name, root=tmp_path / "none")
    assert str(tmp_path / "none" / place) in str(caught.value)
    assert f"--data-root to the folder that holds {place}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_cifar_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar(tmp_path, monkeypatch, "CIFAR10", 10)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"<html>Not found</html>")
    with pytest.raises(DataUnavailable, match="Delete damaged files"):
        load("cifar10", root=tmp_path)


def test_cifar_of_other_check_sums_is_not_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        cifar(tmp_path, patched, "CIFAR10", 10)

    def fail(*args: object, **options: object) -> None:
        raise AssertionError("A pickle was loaded.")

    monkeypatch.setattr(pickle, "load", fail)
    with pytest.raises(DataUnavailable, match="CIFAR10 can neither be read"):
        load("cifar10", root=tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train-labels-idx1": np.full(200, 10, dtype=np.uint8)}, "labels from 10 to 10.*0 to 9"),
        ({"t10k-labels-idx1": np.full(40, 200, dtype=np.uint8)}, "Give labels from 0 to 9"),
        ({"train-labels-idx1": np.zeros(199, dtype=np.uint8)}, "one label per image"),
        ({"t10k-images-idx3": np.zeros((40, 20, 20), dtype=np.uint8)}, "of the same size"),
        ({"train-images-idx3": np.zeros((0, 28, 28), dtype=np.uint8)}, "Delete damaged files"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, changes: dict[str, np.ndarray], message: str
) -> None:
    write_mnist(tmp_path, "MNIST", **changes)
    with pytest.raises(DataUnavailable, match=message):
        load("mnist", root=tmp_path)


def test_the_real_clothes_in_full() -> None:
    root = os.environ.get("OPTUNA_SHAPE_DATA")
    if root is None or not Path(root, "FashionMNIST", "raw").exists():
        pytest.skip("OPTUNA_SHAPE_DATA names no folder with FashionMNIST/raw")
    data = load("fashion-mnist-full", root=root)
    assert data.train_x.shape == (54_000, 1, 28, 28)
    assert data.validation_y.bincount().tolist() == [600] * 10
    assert data.test_y.bincount().tolist() == [1000] * 10


def test_the_real_photographs_from_a_file() -> None:
    root = os.environ.get("OPTUNA_SHAPE_DATA")
    file = Path(root or "", "cifar10", "cifar10_test.npz")
    if root is None or not file.exists():
        pytest.skip("OPTUNA_SHAPE_DATA names no folder with cifar10/cifar10_test.npz")
    data = load(file)
    assert data.train_x.shape == (8000, 3, 32, 32)
    for labels in (data.validation_y, data.test_y):
        assert labels.bincount().tolist() == [100] * 10
    # The published means and deviations of the channels, as fractions of white.
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
    assert isinstance(data.augment, FlipAndShift)
    assert torch.allclose(torch.tensor(data.augment.background), -mean / std, atol=0.05)


def test_the_real_photographs() -> None:
    root = os.environ.get("OPTUNA_SHAPE_DATA")
    if root is None or not Path(root, "cifar-10-batches-py").exists():
        pytest.skip("OPTUNA_SHAPE_DATA names no folder with cifar-10-batches-py")
    data = load("cifar10", root=root)
    assert data.train_x.shape == (45_000, 3, 32, 32)
    assert data.validation_y.bincount().tolist() == [500] * 10
    assert data.test_y.bincount().tolist() == [1000] * 10
