from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import nn

from optuna_shape import DesignSpace
from optuna_shape.families import mlp
from optuna_shape.families import nasnet
from optuna_shape.families import resnet
from optuna_shape.train.data import Data
from optuna_shape.train.data import digits
from optuna_shape.train.recipe import Recipe
from optuna_shape.train.trainer import Teacher
from optuna_shape.train.trainer import train

IMAGES: dict[str, Any] = {"input_shape": (1, 12, 12), "classes": 10}
SPACES = {
    "mlp": mlp([1], [8], **IMAGES),
    "resnet": resnet([1], [4], **IMAGES),  # Its weights are not contiguous, and it has buffers.
    "nasnet": nasnet([1], [24], **IMAGES),  # Drops paths by torch's global generator.
}
EPOCHS = 4


@functools.cache
def few_digits() -> Data:
    """The real digits, fewer of them, in the order and the distortions of a training."""
    data = digits()
    return dataclasses.replace(
        data,
        train_x=data.train_x[:128],
        train_y=data.train_y[:128],
        validation_x=data.validation_x[:400],
        validation_y=data.validation_y[:400],
    )


def build(space: DesignSpace) -> nn.Module:
    torch.manual_seed(7)
    return space.build(space.shapes[0])


class Run:
    """A training in this process, its reports, and whether its result is to the bit another's."""

    def __init__(
        self,
        space: DesignSpace,
        progress: Path | None = None,
        *,
        end_after: int = EPOCHS,
        error: type[BaseException] = optuna.TrialPruned,
        **options: Any,
    ) -> None:
        self.reports: list[tuple[int, float]] = []

        def report(epoch: int, accuracy: float) -> None:
            self.reports.append((epoch, accuracy))
            if epoch == end_after < EPOCHS:
                raise error

        self.model = build(space)
        arguments = {"data": few_digits(), "epochs": EPOCHS, "seed": 3, **options}
        self.accuracy = train(self.model, report=report, progress=progress, **arguments)

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Run)
        own, others = self.model.state_dict(), other.model.state_dict()
        same = all(torch.equal(tensor, others[name]) for name, tensor in own.items())
        return same and self.reports == other.reports and self.accuracy == other.accuracy


@functools.cache
def uninterrupted(name: str) -> Run:
    return Run(SPACES[name])


def interrupt(
    space: DesignSpace,
    path: Path,
    after: int = 2,
    error: type[BaseException] = optuna.TrialPruned,
    **options: Any,
) -> None:
    with pytest.raises(error):
        Run(space, path, end_after=after, error=error, **options)
    assert path.is_file()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "progress.safetensors"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("mlp", optuna.TrialPruned),
        ("resnet", KeyboardInterrupt),
        ("nasnet", optuna.TrialPruned),
    ],
)
def test_a_training_goes_on_to_the_bit(name: str, error: type[BaseException], path: Path) -> None:
    interrupt(SPACES[name], path, error=error)
    torch.rand(100)  # As other trainings in between do.
    assert Run(SPACES[name], path) == uninterrupted(name)
    assert list(path.parent.iterdir()) == [path]


def test_it_trains_no_epoch_twice(path: Path) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(144, 10)
            self.images = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.images += self.training * len(x)
            scores: torch.Tensor = self.layer(x.flatten(1))
            return scores

    space = DesignSpace([1], [1], lambda shape: Counting())
    # Nor is the last one, if its own report raises.
    for after, images in [(1, 256), (2, 256), (2, 0), (3, 256), (EPOCHS, 256), (EPOCHS, 0)]:
        model: Any = build(space)

        def report(epoch: int, accuracy: float, after: int = after) -> None:
            if epoch == after:
                raise optuna.TrialPruned

        with pytest.raises(optuna.TrialPruned):
            train(model, few_digits(), epochs=EPOCHS, seed=3, report=report, progress=path)
        assert path.is_file()
        assert model.images == images


def test_a_training_that_was_finished_is_not_repeated(path: Path) -> None:
    assert Run(SPACES["resnet"], path) == uninterrupted("resnet")
    finished = path.read_bytes()
    assert Run(SPACES["resnet"], path) == uninterrupted("resnet")
    assert path.read_bytes() == finished


def train_until_killed(path: str, threads: str) -> None:
    """What the child process of the next test does."""
    torch.set_num_threads(int(threads))

    def report(epoch: int, accuracy: float) -> None:
        print(epoch, flush=True)
        if epoch == EPOCHS - 1:
            time.sleep(600)  # It shall not finish, however late the signal comes.

    train(
        build(SPACES["resnet"]),
        few_digits(),
        epochs=EPOCHS,
        seed=3,
        report=report,
        progress=Path(path),
    )


def test_a_killed_training_goes_on_to_the_bit(path: Path) -> None:
    program = "import sys, test_progress; test_progress.train_until_killed(*sys.argv[1:])"
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(path), str(torch.get_num_threads())],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "1\n"
    finally:
        child.kill()
        child.communicate()
    assert child.returncode == -9
    assert path.is_file()
    assert Run(SPACES["resnet"], path) == uninterrupted("resnet")


def test_a_report_may_end_the_training_again_at_an_epoch_before(path: Path) -> None:
    interrupt(SPACES["mlp"], path, after=3)
    interrupt(SPACES["mlp"], path, after=1)
    assert Run(SPACES["mlp"], path) == uninterrupted("mlp")


def test_the_file_says_what_it_holds_and_pickles_nothing(path: Path) -> None:
    interrupt(SPACES["resnet"], path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        kinds = {name.split(".")[0] for name in file.keys()}  # noqa: SIM118
    assert kinds == {"model", "optimizer", "random"}
    assert '"format": 2, "epoch": 2' in metadata["progress"]
    assert str([value for _, value in uninterrupted("resnet").reports[:2]]) in metadata["progress"]
    assert path.name == "progress.safetensors"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def flip(position: float) -> Callable[[bytes], bytes]:
    """Change a bit at a share of the length."""

    def damage(content: bytes) -> bytes:
        damaged = bytearray(content)
        damaged[int(position * len(content))] ^= 1
        return bytes(damaged)

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"garbage",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content.replace(b'"epoch', b'"epuch').replace(b"epoch", b"epuch"),
        lambda content: content.replace(b"optimizer.0", b"optimizer.9"),
        lambda content: content.replace(b"sha256", b"sha257"),
        lambda content: safetensors.torch.save({"model.0.weight": torch.zeros(2)}),
        flip(0),
        flip(0.02),
        flip(0.5),
        flip(0.999),
    ],
)
def test_from_a_damaged_file_a_training_starts_anew(
    damage: Callable[[bytes], bytes], path: Path, warnings: list[str]
) -> None:
    interrupt(SPACES["mlp"], path)
    content = path.read_bytes()
    damaged = damage(content)
    assert damaged != content
    path.write_bytes(damaged)
    assert Run(SPACES["mlp"], path) == uninterrupted("mlp")
    assert len(warnings) == 1
    assert f"does not go on from {path}, but starts anew" in warnings[0]
    assert path.read_bytes() != damaged


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 4}, "seed is 4 there and 3 here"),
        ({"epochs": 5}, "epochs is 5 there and 4 here"),
        ({"recipe": Recipe(weight_decay=0.2)}, "recipe is {.*0.2.*} there and {.*0.1.*} here"),
        ({"name": "letters"}, "data is 'letters' there and 'digits' here"),
        ({"passes": 1}, "passes is 1 there and 2 here"),
        ({"validation_x": 200, "validation_y": 200}, "labels is .* there"),
        ({"train_y": -128}, "labels is '.*' there"),
        ({"space": mlp([1], [12], **IMAGES)}, "network is '.*' there"),
        (
            {"teacher": Teacher(build(SPACES["mlp"]), 0.3)},
            r"teacher is \[0.3, 2.0\] there and None",
        ),
    ],
)
def test_the_file_of_another_training_is_not_gone_on_from(
    change: dict[str, Any], said: str, path: Path, warnings: list[str]
) -> None:
    data, other = few_digits(), dict(change)
    space = other.pop("space", SPACES["mlp"])
    names = ("seed", "epochs", "recipe", "teacher")
    options = {name: other.pop(name) for name in names if name in other}
    for name in ("validation_x", "validation_y"):
        if name in other:
            other[name] = getattr(data, name)[: other[name]]
    if "train_y" in other:
        other["train_y"] = data.train_y.flip(0)
    interrupt(space, path, data=dataclasses.replace(data, **other), **options)
    assert Run(SPACES["mlp"], path) == uninterrupted("mlp")
    assert len(warnings) == 1
    assert re.search(f"it is of another training: .*{said}", warnings[0])


def test_with_a_teacher_a_training_does_not_go_on_from_one_without(
    path: Path, warnings: list[str]
) -> None:
    interrupt(SPACES["mlp"], path)
    teacher = Teacher(build(SPACES["mlp"]))
    taught = Run(SPACES["mlp"], path, teacher=teacher)
    assert taught == Run(SPACES["mlp"], teacher=teacher) != uninterrupted("mlp")
    assert "of another training: teacher is None there and [0.5, 2.0] here" in warnings[0]


def test_a_file_of_another_format_is_not_gone_on_from(
    path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optuna_shape.train.progress._FORMAT", 1)
    interrupt(SPACES["mlp"], path)
    monkeypatch.undo()
    assert Run(SPACES["mlp"], path) == uninterrupted("mlp")
    assert "format 1, and this version of optuna_shape reads format 2" in warnings[0]


def test_a_training_that_cannot_keep_its_progress_goes_on(
    tmp_path: Path, warnings: list[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    assert Run(SPACES["mlp"], tmp_path / "file" / "progress") == uninterrupted("mlp")
    assert len(warnings) == 1
    assert "its progress cannot be kept" in warnings[0]


def test_a_folder_in_place_of_the_file_does_not_end_a_training(
    path: Path, warnings: list[str]
) -> None:
    path.mkdir(parents=True)
    assert Run(SPACES["mlp"], path) == uninterrupted("mlp")
    assert len(warnings) == 2
    assert "does not go on from" in warnings[0]
    assert "cannot be kept" in warnings[1]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_training_that_diverges_leaves_no_file(path: Path, warnings: list[str]) -> None:
    model = build(SPACES["mlp"])

    @torch.no_grad()
    def report(epoch: int, accuracy: float) -> None:
        assert path.is_file()
        next(model.parameters()).fill_(math.nan)

    assert math.isnan(
        train(model, few_digits(), epochs=EPOCHS, seed=3, report=report, progress=path)
    )
    assert not path.exists()
    assert len(warnings) == 1
    assert "The training diverged in epoch 2" in warnings[0]


def test_tied_weights_are_kept_too(path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(144, 144)
            self.second = nn.Linear(144, 144)
            self.second.weight = self.first.weight
            self.unused = nn.Linear(3, 3)  # No gradient, and no state in the optimizer.

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.second(self.first(x.flatten(1)).relu())[:, :10]
            return scores

    space = DesignSpace([1], [1], lambda shape: Tied())
    interrupt(space, path)
    assert Run(space, path) == Run(space)


@pytest.mark.gpu
def test_on_a_gpu_a_training_goes_on(path: Path, warnings: list[str]) -> None:
    space = SPACES["nasnet"]
    interrupt(space, path, device="cuda")
    with safe_open(path, framework="pt") as file:
        kept = file.get_tensor("random.global_cuda")
    run = Run(space, path, device="cuda")
    assert [epoch for epoch, _ in run.reports] == [1, 2, 3, 4]
    assert not torch.equal(kept, torch.cuda.get_rng_state())
    assert warnings == []
