from __future__ import annotations

import hashlib
import json
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from optuna_shape import DesignSpace
from optuna_shape import InvalidCheckpoint
from optuna_shape import Shape
from optuna_shape.compress import ans
from optuna_shape.compress.bits import whole
from optuna_shape.compress.coding import FORMATS
from optuna_shape.compress.packed import _layout
from optuna_shape.compress.packed import load_packed
from optuna_shape.compress.packed import pack
from optuna_shape.compress.packed import save_packed
from optuna_shape.families import densenet
from optuna_shape.families import describe
from optuna_shape.families import mlp
from optuna_shape.families import nasnet
from optuna_shape.families import resnet
from optuna_shape.families import vit
from optuna_shape.train.checkpoint import load_checkpoint
from optuna_shape.train.checkpoint import save_checkpoint
from optuna_shape.train.recipe import Recipe

SPACE = resnet([1, 2], [3, 4], input_shape=(2, 6, 6), classes=3, variant="wide")
SHAPE = Shape(2, 3)
PROPERTIES = {"accuracy": 0.8125, "latency": 1.25e-3}
HEADER = 4 + 1 + 32


def shared(space: DesignSpace = SPACE, shape: tuple[int, int] = SHAPE) -> nn.Module:
    """A network whose weights are rounded to a few values, and many to zero."""
    torch.manual_seed(0)
    model = space.build(Shape(*shape))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_((8 * parameter).round() / 8)
    model(torch.randn(8, *space.input_shape or ()))
    return model.to(memory_format=torch.channels_last)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "trial-0.5.packed"
    save_packed(path, shared(), SPACE, SHAPE, PROPERTIES)
    return path


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the description, and make the digest fit again."""
    body = path.read_bytes()[HEADER:]
    begin, length, shift = 0, 0, 0
    while True:
        length |= (body[begin] & 0x7F) << shift
        begin, shift = begin + 1, shift + 7
        if body[begin - 1] < 0x80:
            break
    info = json.loads(body[begin : begin + length])
    change(info)
    text = json.dumps(info).encode()
    write(path, whole(len(text)) + text + body[begin + length :])


def write(path: Path, body: bytes) -> None:
    path.write_bytes(b"OShP\x02" + hashlib.sha256(body).digest() + body)


def assert_same(before: nn.Module, after: nn.Module) -> None:
    states = before.state_dict(), after.state_dict()
    assert list(states[0]) == list(states[1])
    for name, tensor in states[0].items():
        assert tensor.dtype == states[1][name].dtype
        assert torch.equal(tensor, states[1][name])


@pytest.mark.parametrize(
    "space",
    [
        SPACE,
        resnet([2], [3], input_shape=(3, 8, 8), classes=4, variant="bottleneck"),
        densenet([2], [4], input_shape=(1, 8, 8), classes=3),
        nasnet([1], [24], input_shape=(1, 8, 8), classes=3),
        vit([1], [64], input_shape=(1, 8, 8), classes=3),
        mlp([2], [20], input_shape=(5,), classes=3),
    ],
    ids=repr,
)
def test_a_network_comes_back_to_the_bit(space: DesignSpace, tmp_path: Path) -> None:
    shape = space.shapes[0]
    model = shared(space, shape)
    save_packed(tmp_path / "a", model, space, shape, PROPERTIES)
    loaded, info = load_packed(tmp_path / "a")
    assert_same(model, loaded)
    assert not loaded.training
    assert info.shape == shape
    assert isinstance(info.shape, Shape)
    assert info.properties == PROPERTIES
    assert info.family == describe(space)
    assert info.versions["torch"] == torch.__version__


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_comes_back(name: str, tmp_path: Path) -> None:
    model = shared()
    written = save_packed(tmp_path / "a", model, SPACE, SHAPE, {}, formats=[name])
    assert {tensor.format for tensor in written} == {"planes", name}
    assert_same(model, load_packed(tmp_path / "a")[0])


def test_it_is_smaller_than_a_checkpoint_and_says_the_same(saved: Path) -> None:
    recipe = Recipe.usual("sgd", head="llr")
    save_packed(saved, shared(), SPACE, SHAPE, PROPERTIES, recipe=recipe)
    save_checkpoint(saved.parent / "plain", shared(), SPACE, SHAPE, PROPERTIES, recipe=recipe)
    plain = (saved.parent / "plain.safetensors").stat().st_size
    assert saved.stat().st_size < plain / 2
    assert load_packed(saved)[1] == load_checkpoint(saved.parent / "plain")[1]


def test_the_file_has_the_bytes_of_the_tensors_and_a_short_description(saved: Path) -> None:
    tensors = pack(shared())
    assert [tensor.name for tensor in tensors] == list(shared().state_dict())
    description = saved.stat().st_size - HEADER - sum(1 + len(t.content) for t in tensors)
    assert 0 < description < 500


def test_there_is_one_file_and_nothing_left_over(saved: Path) -> None:
    save_packed(saved, shared(), SPACE, SHAPE, {})
    assert [file.name for file in saved.parent.iterdir()] == ["trial-0.5.packed"]


def test_a_network_of_a_users_own_needs_its_space(tmp_path: Path) -> None:
    space = DesignSpace([1], [4], lambda shape: nn.Linear(3, shape.width))
    model = space.build(Shape(1, 4))
    save_packed(tmp_path / "a", model, space, (1, 4), {})
    with pytest.raises(InvalidCheckpoint, match=re.escape("load_packed(path, space)")):
        load_packed(tmp_path / "a")
    assert_same(model, load_packed(tmp_path / "a", space)[0])
    other = DesignSpace([1], [4], lambda shape: nn.Linear(4, shape.width))
    with pytest.raises(InvalidCheckpoint, match="not those of the network that was packed"):
        load_packed(tmp_path / "a", other)


def test_what_is_no_tensor_cannot_be_packed(tmp_path: Path) -> None:
    class Odd(nn.Linear):
        def get_extra_state(self) -> object:
            return {"steps": 3}

    space = DesignSpace([1], [1], lambda _: Odd(2, 2))
    with pytest.raises(InvalidCheckpoint, match="'_extra_state' of the network"):
        save_packed(tmp_path / "a", space.build(Shape(1, 1)), space, (1, 1), {})


@pytest.mark.parametrize("buffer", [torch.eye(3).to_sparse(), torch.ones(3) * 1j], ids=str)
def test_odd_buffers_cannot_be_packed(buffer: torch.Tensor) -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("odd", buffer)
    with pytest.raises(InvalidCheckpoint, match="'odd' of the network cannot be packed"):
        pack(model)


def test_a_network_on_meta_cannot_be_packed() -> None:
    with pytest.raises(InvalidCheckpoint, match="'weight' of the network.*on meta"):
        pack(nn.Linear(2, 2, device="meta"))


def test_a_property_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match="Give finite numbers"):
        save_packed(tmp_path / "a", shared(), SPACE, SHAPE, {"accuracy": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match=r"a\.packed cannot be read: No such"):
        load_packed(tmp_path / "a.packed")


def test_any_changed_byte_is_noticed(saved: Path) -> None:
    content = saved.read_bytes()
    for place in range(0, len(content), 13):
        saved.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(InvalidCheckpoint):
            load_packed(saved)


def test_any_missing_or_added_end_is_noticed(saved: Path) -> None:
    content = saved.read_bytes()
    for end in [*range(0, len(content), 17), len(content) - 1]:
        saved.write_bytes(content[:end])
        with pytest.raises(InvalidCheckpoint):
            load_packed(saved)
    saved.write_bytes(content + b"\0")
    with pytest.raises(InvalidCheckpoint, match="damaged"):
        load_packed(saved)


def test_another_version_is_said(saved: Path) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[:4] + b"\x01" + content[5:])
    with pytest.raises(InvalidCheckpoint, match=r"has format \[1\].*reads format 2"):
        load_packed(saved)


def test_a_malicious_body_with_a_fitting_digest_is_refused(saved: Path) -> None:
    body = saved.read_bytes()[HEADER:]
    bodies = [
        b"",
        b"\xff" * 40,
        whole(2**60) + body,
        whole(5) + b"null\n",
        whole(2) + b"{}",
        whole(100_000) + b"[" * 100_000,
        body[:-1],
        body + b"\0",
        body[:-40] + bytes(40),
        body[:-40] + b"\xff" * 40,
    ]
    for changed in bodies:
        write(saved, changed)
        with pytest.raises(InvalidCheckpoint, match="does not describe a network"):
            load_packed(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info.update(shape=[2, 10**6]),
        lambda info: info.update(shape=[2, 2**62]),
        lambda info: info.update(shape=[10**9, 3]),
        lambda info: info.update(shape=[2]),
        lambda info: info.update(layout="0"),
        lambda info: info.update(family={"family": "vgg", "options": {}}),
        lambda info: info["family"]["options"].update(classes=10**12),
        lambda info: info["family"]["options"].update(classes=4),
        lambda info: info.pop("properties"),
    ],
)
def test_sizes_that_a_file_makes_up_take_no_memory(
    saved: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    rewrite(saved, lambda info: None)
    load_packed(saved)
    rewrite(saved, change)
    tracemalloc.start()
    with pytest.raises(InvalidCheckpoint, match="does not describe a network"):
        load_packed(saved)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_a_huge_network_in_a_small_file_is_refused_although_all_fits(tmp_path: Path) -> None:
    # The layout is the file's to state too: one that fits the network it describes.
    space = mlp([1], [10_000], input_shape=(10_000,), classes=3)
    with torch.device("meta"):
        meta = space.build(Shape(1, 10_000))
    small = mlp([1], [4], input_shape=(5,), classes=3)
    save_packed(tmp_path / "a", small.build(Shape(1, 4)), small, (1, 4), {})

    def change(info: dict[str, Any]) -> None:
        info.update(layout=_layout(meta), shape=[1, 10_000], family=describe(space))

    rewrite(tmp_path / "a", change)
    with pytest.raises(InvalidCheckpoint, match="bytes in a file of"):
        load_packed(tmp_path / "a")


def test_a_large_network_of_nothing_is_not_written(tmp_path: Path) -> None:
    space = DesignSpace([1], [1], lambda _: nn.Linear(5000, 5000, bias=False))
    model = space.build(Shape(1, 1))
    with torch.no_grad():
        next(model.parameters()).zero_()
    with pytest.raises(InvalidCheckpoint, match="as if it held nothing"):
        save_packed(tmp_path / "a", model, space, (1, 1), {})


def test_without_the_library_a_file_can_be_written_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ans, "available", lambda: False)
    written = save_packed(tmp_path / "a", shared(), SPACE, SHAPE, {})
    assert "ans" not in {tensor.format for tensor in written}
    assert_same(shared(), load_packed(tmp_path / "a")[0])
