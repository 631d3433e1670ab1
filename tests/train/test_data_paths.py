"""Data sets of the user's own, written as a user would."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from optuna_shape import DataUnavailable
from optuna_shape.train.data import DATASETS
from optuna_shape.train.data import FlipAndShift
from optuna_shape.train.data import load

N = 60
LABELS = np.arange(N) % 3
PARTS = ("train", "validation", "test")


def pictures(n: int = N, size: tuple[int, int] = (16, 20)) -> np.ndarray:
    """Channels-last bytes whose channels have means and deviations of their own."""
    rng = np.random.default_rng(0)
    return (rng.integers(0, 60, (n, *size, 3)) + np.array([0, 50, 150])).astype(np.uint8)


def write(path: Path, **arrays: Any) -> Path:
    file = path / "mine.npz"
    np.savez_compressed(file, **arrays)
    return file


def write_folder(
    folder: Path, images: np.ndarray, labels: np.ndarray = LABELS, mode: str = "RGB"
) -> None:
    for index, (image, label) in enumerate(zip(images, labels)):
        file = folder / "abc"[label] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).convert(mode).save(file)


def test_names_are_looked_up_before_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "digits", pictures())
    monkeypatch.chdir(tmp_path)
    assert load("digits").train_x.shape[1:] == (1, 12, 12)
    assert torch.equal(load("digits", seed=1).test_x, DATASETS["digits"](seed=1).test_x)
    assert load("./digits").train_x.shape[1:] == (3, 16, 20)


@pytest.mark.parametrize("data", ["imagenet", "there/is/none", ""])
def test_unknown_names_are_told_the_known_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataUnavailable, match=r"Unknown .* cifar10-small, cifar100, digits"):
        load(data or "README.md")


@pytest.mark.parametrize("kind", ["npz", "folder"])
def test_images_are_split_and_scaled(tmp_path: Path, kind: str) -> None:
    images = pictures()
    if kind == "npz":
        data = load(write(tmp_path, x=images, y=LABELS), seed=3)
        assert data.name == "mine"
    else:
        write_folder(tmp_path / "pets", images)
        data = load(tmp_path / "pets", seed=3)
        assert data.name == "pets"
    assert data.classes == 3
    assert [len(getattr(data, f"{part}_y")) for part in PARTS] == [48, 6, 6]
    assert data.train_x.shape[1:] == (3, 16, 20)
    assert data.train_x.is_contiguous()
    std, mean = torch.std_mean(data.train_x, dim=(0, 2, 3))
    assert torch.allclose(mean, torch.zeros(3), atol=1e-5)
    assert torch.allclose(std, torch.ones(3), atol=1e-5)
    assert isinstance(data.augment, FlipAndShift)
    assert isinstance(data.augment.background, tuple)
    assert (data.augment.shift, data.augment.mirror) == (2, False)
    # Undo the scaling: all the pictures are there, with their labels.
    zero = torch.tensor(data.augment.background).view(1, 3, 1, 1)
    every = torch.cat([getattr(data, f"{part}_x") for part in PARTS]) - zero
    labels = torch.cat([getattr(data, f"{part}_y") for part in PARTS])
    original = torch.tensor(images).permute(0, 3, 1, 2).float()
    every *= original.amax(dim=(0, 2, 3), keepdim=True) / every.amax(dim=(0, 2, 3), keepdim=True)
    distance = torch.cdist(every.flatten(1), original.flatten(1))
    assert distance.min(dim=1).values.max() < 0.1
    source = distance.argmin(dim=1)
    assert sorted(source.tolist()) == list(range(N))
    assert labels.tolist() == LABELS[source].tolist()


def test_the_same_images_in_any_order_of_axes_and_any_type(tmp_path: Path) -> None:
    images = pictures()
    expected = load(write(tmp_path, x=images, y=LABELS))
    for x in (
        images.transpose(0, 3, 1, 2),
        images / 255,
        (images / 255).astype(">f4"),
        images.astype(np.int64),
    ):
        data = load(write(tmp_path, x=x, y=LABELS.astype(np.uint8)))
        for part in PARTS:
            other, same = getattr(data, f"{part}_x"), getattr(expected, f"{part}_x")
            assert torch.allclose(other, same, atol=1e-4)
            assert torch.equal(getattr(data, f"{part}_y"), getattr(expected, f"{part}_y"))
    grey = load(write(tmp_path, x=images[..., 0], y=LABELS))
    assert torch.allclose(grey.train_x, expected.train_x[:, :1], atol=1e-4)


def test_the_seed_fixes_the_sets(tmp_path: Path) -> None:
    file = write(tmp_path, x=pictures(), y=LABELS)
    first, again, other = (load(file, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.validation_x, again.validation_x)
    assert not torch.equal(first.validation_x, other.validation_x)
    assert not torch.equal(first.test_x, other.test_x)


@pytest.mark.parametrize("given", [("val",), ("test",), ("val", "test")])
@pytest.mark.parametrize("kind", ["npz", "folder"])
def test_sets_that_are_given_stay_as_they_are(
    tmp_path: Path, kind: str, given: tuple[str, ...]
) -> None:
    white = np.full((9, 16, 20, 3), 255, dtype=np.uint8)
    if kind == "npz":
        arrays = {
            f"{key}_{part}": v for part in given for key, v in zip("xy", (white, LABELS[:9]))
        }
        data = load(write(tmp_path, x=pictures(), y=LABELS, **arrays))
    else:
        write_folder(tmp_path / "train", pictures())
        for part in given:
            write_folder(tmp_path / part, white, LABELS[:9])
        data = load(tmp_path)
    for part, x in (("val", data.validation_x), ("test", data.test_x)):
        assert len(x) == (9 if part in given else 6)
        assert (x.amin(dim=(0, 2, 3)) == x.amax(dim=(0, 2, 3))).all() == (part in given)
    assert len(data.train_x) == N - 6 * (2 - len(given))
    assert data.train_x.mean().abs() < 1e-5


def test_classes_may_be_called_like_sets(tmp_path: Path) -> None:
    for name in ("train", "plane"):
        (tmp_path / name).mkdir()
        for index, image in enumerate(pictures(5)):
            Image.fromarray(image).save(tmp_path / name / f"{index}.png")
    data = load(tmp_path)
    assert data.classes == 2
    assert len(data.train_x) == 6


def test_grey_images_of_a_folder_are_read_in_colour(tmp_path: Path) -> None:
    write_folder(tmp_path, pictures(), mode="L")
    assert load(tmp_path).train_x.shape[1:] == (3, 16, 20)


def test_a_channel_that_is_the_same_everywhere_stays_finite(tmp_path: Path) -> None:
    images = np.concatenate([pictures(), np.full((N, 16, 20, 1), 0.7)], axis=3)
    data = load(write(tmp_path, x=images, y=LABELS))
    assert data.train_x.isfinite().all()
    assert data.train_x[:, 3].abs().max() < 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": None}, "holds only one of x and y. Write both"),
        ({"x": None, "y": None, "images": np.zeros(3)}, "no x and y, but images"),
        ({"y_test": LABELS}, "holds only one of x_test and y_test"),
        ({"x": np.zeros((N, 20))}, r"of shape \(60, 20\).*\(n, channels, height, width\)"),
        ({"x": np.full((N, 4, 4), "a")}, "type <U1. Give numbers"),
        ({"x": np.full((N, 4, 4), 1j)}, "type complex128. Give numbers"),
        ({"x": np.full((N, 4, 4), np.nan)}, "no number. Give finite ones"),
        ({"x": np.full((N, 4, 4), 1e300)}, "infinite or no number"),
        ({"x": np.zeros((0, 4, 4)), "y": LABELS[:0]}, "at least one image"),
        ({"x": np.zeros((N, 0, 4))}, "at least one image"),
        ({"y": LABELS[:-1]}, "one label per image"),
        ({"y": LABELS[:, None]}, r"of shape \(60, 1\).*one integer for each image"),
        ({"y": LABELS / 2}, "type float64. Give one integer"),
        ({"y": LABELS - 1}, "from -1 to 1. Number the classes 0, 1, ... without gaps"),
        ({"y": LABELS + 1}, "3 different labels, from 1 to 3"),
        ({"y": LABELS * 2**61}, "without gaps"),
        ({"y": LABELS * 0}, "two classes or more"),
        ({"y": np.minimum(np.arange(N), 1)}, "3 or more of each class"),
        ({"x_test": pictures()[:, 1:], "y_test": LABELS}, "images of the same size"),
        ({"x_val": pictures()[..., 0], "y_val": LABELS}, "images of the same size"),
        ({"x_test": pictures(), "y_test": LABELS + 1}, "Give labels from 0 to 2"),
        ({"x_val": pictures(), "y_val": LABELS - 1}, "Give labels from 0 to 2"),
    ],
)
def test_arrays_that_make_no_data_set_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    arrays = {"x": pictures(), "y": LABELS, **changes}
    file = write(tmp_path, **{key: value for key, value in arrays.items() if value is not None})
    with pytest.raises(DataUnavailable, match=message):
        load(file)


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("key", ["x", "y", "x_test"])
def test_pickles_in_a_file_are_not_run(tmp_path: Path, key: str) -> None:
    trap = tmp_path / "trap"
    arrays = dict.fromkeys(("x", "y", "x_test", "y_test"), LABELS)
    file = write(tmp_path, **{**arrays, key: np.array([Evil(trap)], dtype=object)})
    with pytest.raises(DataUnavailable, match="cannot be read as .npz .*allow_pickle"):
        load(file)
    assert not trap.exists()
    with np.load(file, allow_pickle=True) as loaded:
        loaded[key]
    assert trap.exists()  # It would have been run.


def test_a_file_that_is_a_pickle_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "mine.npz").write_bytes(pickle.dumps(Evil(tmp_path / "trap")))
    with pytest.raises(DataUnavailable, match="cannot be read as .npz"):
        load(tmp_path / "mine.npz")
    assert not (tmp_path / "trap").exists()


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    for position in range(200, 260):
        content[position] ^= 255
    file.write_bytes(bytes(content))


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _replace(file: Path) -> None:
    file.write_bytes(b"<html>Not found</html>")


def _single(file: Path) -> None:
    with file.open("wb") as stream:
        np.save(stream, pictures())


@pytest.mark.parametrize("damage", [_cut, _flip, _empty, _replace, _single])
def test_damaged_files_are_refused(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    file = write(tmp_path, x=pictures(), y=LABELS)
    damage(file)
    with pytest.raises(
        DataUnavailable, match="cannot be read as .npz .*savez_compressed"
    ) as caught:
        load(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_entries_that_are_no_arrays_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.npz"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", "no array")
        archive.writestr("y.npy", "no array")
    with pytest.raises(DataUnavailable, match=r"type \|S8. Give numbers"):
        load(file)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match="There is no file .*none.npz. Check the path"):
        load(tmp_path / "none.npz")


def test_a_file_that_is_no_npz(tmp_path: Path) -> None:
    file = tmp_path / "images.zip"
    file.write_bytes(b"")
    with pytest.raises(DataUnavailable, match="or of a .npz file"):
        load(file)


def _no_class(folder: Path) -> str:
    return "any class folder"


def _no_images(folder: Path) -> str:
    (folder / "a").mkdir()
    (folder / "a" / "notes.txt").write_text("none yet")
    return "no valid file for the classes a"


def _empty_class(folder: Path) -> str:
    write_folder(folder, pictures())
    (folder / "d").mkdir()
    return "no valid file for the classes d"


def _one_class(folder: Path) -> str:
    write_folder(folder, pictures(), LABELS * 0)
    return "'data' has 1 class, .* two classes or more"


def _other_size(folder: Path) -> str:
    write_folder(folder, pictures())
    Image.fromarray(pictures(size=(8, 9))[0]).save(folder / "b" / "odd.png")
    return "odd.png has 8 x 9 pixels, but .*0.png has 16 x 20. Resize"


def _no_image(folder: Path) -> str:
    write_folder(folder, pictures())
    (folder / "b" / "1.png").write_bytes(b"<html>Not found</html>")
    return "1.png cannot be read .* Replace or delete it"


def _cut_image(folder: Path) -> str:
    write_folder(folder, pictures())
    _cut(folder / "c" / "2.png")
    return "2.png cannot be read"


def _few_images(folder: Path) -> str:
    write_folder(folder, pictures(6))
    return "3 or more of each class"


def _other_classes(folder: Path) -> str:
    write_folder(folder / "train", pictures())
    write_folder(folder / "test", pictures(10), LABELS[:10] % 2)
    return "test holds the classes a, b, but .*train a, b, c"


def _other_size_in_test(folder: Path) -> str:
    write_folder(folder / "train", pictures())
    write_folder(folder / "test", pictures(size=(8, 9)))
    return "images of the same size"


def _no_train(folder: Path) -> str:
    write_folder(folder / "training", pictures())
    write_folder(folder / "test", pictures())
    return "holds the folders test, training. Call those of the sets train, val and test"


def _other_set(folder: Path) -> str:
    write_folder(folder / "train", pictures())
    write_folder(folder / "valid", pictures())
    return "holds the folders train, valid. Call"


@pytest.mark.parametrize(
    "damage",
    [
        _no_class,
        _no_images,
        _empty_class,
        _one_class,
        _other_size,
        _no_image,
        _cut_image,
        _few_images,
        _other_classes,
        _other_size_in_test,
        _no_train,
        _other_set,
    ],
)
def test_folders_that_make_no_data_set_are_refused(
    tmp_path: Path, damage: Callable[[Path], str]
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    message = damage(folder)
    with pytest.raises(DataUnavailable, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
