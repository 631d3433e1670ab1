"""Fashion-MNIST: read from small files of its format, and from the real ones where they are."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from optuna_shape import DataUnavailable
from optuna_shape.train.data import Data
from optuna_shape.train.data import FlipAndShift
from optuna_shape.train.data import fashion_mnist

RAW = Path("FashionMNIST", "raw")
FIELDS = ("train_x", "train_y", "validation_x", "validation_y", "test_x", "test_y")
NUMBER = {"train": 80, "t10k": 40}


def small(root: Path | None = None, **options: object) -> Data:
    sizes = {"train": 40, "validation": 20, "test": 20, "size": 28}
    return fashion_mnist(root=root, **{**sizes, **options})  # type: ignore[arg-type]


def contents() -> dict[str, np.ndarray]:
    """Images and labels by file name; pixel 2 of the first row numbers the image."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in NUMBER.items():
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        images[:, 0, 0], images[:, 0, 1], images[:, 0, 2] = 0, 255, np.arange(n)
        arrays[f"{part}-images-idx3-ubyte"] = images
        arrays[f"{part}-labels-idx1-ubyte"] = rng.permutation(np.arange(n) % 10).astype(np.uint8)
    return arrays


def write(root: Path, arrays: dict[str, np.ndarray], packed: bool = True) -> None:
    (root / RAW).mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        data = header + array.tobytes()
        if packed:
            (root / RAW / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (root / RAW / name).write_bytes(data)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, contents())
    return tmp_path


@pytest.fixture
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send every request to a port where nobody listens."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)


def numbers(images: torch.Tensor) -> list[int]:
    """The number of each image in its file, whatever the normalisation."""
    zero, full, number = images[:, 0, 0, 0], images[:, 0, 0, 1], images[:, 0, 0, 2]
    result: list[int] = (255 * (number - zero) / (full - zero)).round().int().tolist()
    return result


def test_images_keep_their_labels_and_no_two_sets_share_one(root: Path) -> None:
    data, arrays = small(root), contents()
    train, validation, test = map(numbers, (data.train_x, data.validation_x, data.test_x))
    assert len({*train, *validation}) == 60
    assert len(set(test)) == 20
    for part, indices, labels in (
        ("train", train, data.train_y),
        ("train", validation, data.validation_y),
        ("t10k", test, data.test_y),
    ):
        assert labels.tolist() == arrays[f"{part}-labels-idx1-ubyte"][indices].tolist()
    images = torch.tensor(arrays["train-images-idx3-ubyte"][train]).unsqueeze(1).float()
    assert torch.allclose(data.train_x, (images - images.mean()) / images.std(), atol=1e-5)


def test_every_set_is_balanced_and_mixed(root: Path) -> None:
    data = small(root)
    for labels, each in ((data.train_y, 4), (data.validation_y, 2), (data.test_y, 2)):
        assert labels.bincount().tolist() == [each] * 10
        assert labels.tolist() != sorted(labels.tolist())


def test_pixels_are_averages_of_two_by_two(root: Path) -> None:
    large, half = small(root), small(root, size=14)
    averages = large.train_x.view(40, 1, 14, 2, 14, 2).mean(dim=(3, 5))
    assert half.train_x.shape == (40, 1, 14, 14)
    expected = (averages - averages.mean()) / averages.std()
    assert torch.allclose(half.train_x, expected, atol=1e-5)


def test_the_seed_fixes_the_sets_whatever_torch_drew_before(root: Path) -> None:
    first = small(root)
    torch.manual_seed(123)
    again, other = small(root, seed=0), small(root, seed=1)
    for field in FIELDS:
        assert torch.equal(getattr(first, field), getattr(again, field))
    for part in ("train_x", "validation_x", "test_x"):
        assert set(numbers(getattr(first, part))) != set(numbers(getattr(other, part)))


def test_validation_images_do_not_depend_on_how_many_train(root: Path) -> None:
    few, many = small(root, train=10), small(root, train=60)
    assert numbers(few.validation_x) == numbers(many.validation_x)
    assert set(numbers(few.train_x)) < set(numbers(many.train_x))


def test_only_training_images_decide_the_normalisation(root: Path, tmp_path: Path) -> None:
    before, arrays = small(root), contents()
    assert before.train_x.mean().item() == pytest.approx(0, abs=1e-5)
    assert before.train_x.std().item() == pytest.approx(1, abs=1e-5)
    unseen = sorted(set(range(80)) - set(numbers(before.train_x)))
    arrays["train-images-idx3-ubyte"][unseen] //= 3
    arrays["t10k-images-idx3-ubyte"] //= 3
    write(tmp_path, arrays)
    after = small(tmp_path)
    assert torch.equal(before.train_x, after.train_x)
    assert before.augment == after.augment
    assert after.validation_x.mean() < before.validation_x.mean() - 0.5
    assert after.test_x.mean() < before.test_x.mean() - 0.5


def test_shifts_bring_in_what_a_black_pixel_became(root: Path) -> None:
    data = small(root)
    assert isinstance(data.augment, FlipAndShift)
    assert data.augment.background == pytest.approx((data.train_x[0, 0, 0, 0].item(),))


def test_packed_files_are_read_without_writing_beside_them(root: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in (root / RAW).iterdir())
    packed = small(root)
    assert sorted(path.name for path in (root / RAW).iterdir()) == before
    write(tmp_path / "unpacked", contents(), packed=False)
    unpacked = small(tmp_path / "unpacked")
    for field in FIELDS:
        assert torch.equal(getattr(packed, field), getattr(unpacked, field))


def test_the_environment_says_where_to_look(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTUNA_SHAPE_DATA", str(root))
    assert torch.equal(small().train_x, small(root).train_x)


@pytest.mark.usefixtures("_offline")
def test_missing_files_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataUnavailable, match="set OPTUNA_SHAPE_DATA") as caught:
        small(tmp_path / "none")
    assert str(tmp_path / "none" / RAW) in str(caught.value)
    assert "\n" not in str(caught.value)
    monkeypatch.delenv("OPTUNA_SHAPE_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataUnavailable) as caught:
        small()
    assert str(tmp_path / ".cache" / "optuna_shape" / RAW) in str(caught.value)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:200])


def _replace(file: Path) -> None:
    file.write_bytes(b"<html>Not found</html>")


@pytest.mark.parametrize("damage", [_cut, _replace])
def test_damaged_files_are_refused(root: Path, damage: Callable[[Path], None]) -> None:
    damage(root / RAW / "train-images-idx3-ubyte.gz")
    with pytest.raises(DataUnavailable, match="Delete damaged files"):
        small(root)


@pytest.mark.parametrize(
    ("sizes", "most"),
    [
        ({"train": 70}, "80 at most"),
        ({"validation": 15}, "multiples of 10"),
        ({"test": 50}, "40 at most"),
    ],
)
def test_sets_that_cannot_be_balanced_are_refused(
    root: Path, sizes: dict[str, int], most: str
) -> None:
    with pytest.raises(DataUnavailable, match=most):
        small(root, **sizes)


def test_flip_and_shift_does_all_it_may_and_nothing_else() -> None:
    image = torch.arange(1.0, 25.0).view(1, 2, 3, 4)
    padded = torch.nn.functional.pad(image, [1] * 4, value=-7.0)[0]
    allowed = {
        tuple(moved.flatten().tolist())
        for top in range(3)
        for left in range(3)
        for crop in [padded[:, top : top + 3, left : left + 4]]
        for moved in (crop, crop.flip(2))
    }
    images = image.repeat(500, 1, 1, 1)
    results = FlipAndShift(background=-7.0)(images, torch.Generator().manual_seed(0))
    assert len(allowed) == 18
    assert {tuple(result.flatten().tolist()) for result in results} == allowed
    assert torch.equal(images, image.repeat(500, 1, 1, 1))


def test_flip_and_shift_follows_its_generator() -> None:
    images = torch.rand(16, 1, 5, 5)
    first, again, other = (
        FlipAndShift()(images, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_real_images() -> None:
    if "OPTUNA_SHAPE_DATA" not in os.environ:
        pytest.skip("OPTUNA_SHAPE_DATA names no folder with FashionMNIST/raw")
    data = fashion_mnist()
    assert data.train_x.shape == (6000, 1, 14, 14)
    assert data.validation_x.shape == data.test_x.shape == (2000, 1, 14, 14)
    for labels, each in ((data.train_y, 600), (data.validation_y, 200), (data.test_y, 200)):
        assert labels.bincount().tolist() == [each] * 10
    # The published mean and deviation, 0.2860 and 0.3530, are of 28 x 28 pixels.
    large = fashion_mnist(size=28)
    low, high = large.train_x.min().item(), large.train_x.max().item()
    assert -low / (high - low) == pytest.approx(0.2860, abs=0.005)
    assert 1 / (high - low) == pytest.approx(0.3530, abs=0.005)
