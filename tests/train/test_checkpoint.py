from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from optuna_shape import DesignSpace
from optuna_shape import InvalidCheckpoint
from optuna_shape import Shape
from optuna_shape.families import describe
from optuna_shape.families import mlp
from optuna_shape.families import resnet
from optuna_shape.train.checkpoint import load_checkpoint
from optuna_shape.train.checkpoint import save_checkpoint
from optuna_shape.train.recipe import Recipe

SPACE = resnet([1, 2], [3, 4], input_shape=(2, 6, 6), classes=3, variant="wide")
SHAPE = Shape(2, 3)
PROPERTIES = {"accuracy": 0.8125, "latency": 1.25e-3}


def trained(seed: int = 0) -> nn.Module:
    """A network whose every weight and statistic differs from a fresh one's."""
    torch.manual_seed(seed)
    model = SPACE.build(SHAPE)
    for _ in range(3):
        model(torch.randn(8, 2, 6, 6))
    return model.to(memory_format=torch.channels_last)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "trial-0.5"
    save_checkpoint(path, trained(), SPACE, SHAPE, PROPERTIES)
    return path


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = Path(f"{path}.json")
    info = json.loads(file.read_text())
    change(info)
    file.write_text(json.dumps(info))


def test_a_network_comes_back_to_the_bit(saved: Path) -> None:
    model, info = load_checkpoint(saved)
    before, after = trained().state_dict(), model.state_dict()
    assert list(before) == list(after)
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype
        assert torch.equal(tensor, after[name])
    assert not model.training
    x = torch.randn(4, 2, 6, 6)
    assert torch.equal(model(x), trained().to(memory_format=torch.contiguous_format).eval()(x))
    assert info.shape == SHAPE
    assert isinstance(info.shape, Shape)
    assert info.properties == PROPERTIES
    assert info.family == describe(SPACE)
    assert info.versions["torch"] == torch.__version__


@pytest.mark.parametrize("recipe", [None, Recipe.usual("sgd", head="llr", batch_size=7)], ids=str)
def test_the_recipe_comes_back(recipe: Recipe | None, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", trained(), SPACE, SHAPE, PROPERTIES, recipe=recipe)
    kept = load_checkpoint(tmp_path / "a")[1].recipe
    assert (None if kept is None else Recipe(**kept)) == recipe


def test_a_file_of_before_recipes_were_kept_loads(saved: Path) -> None:
    edit(saved, lambda info: info.pop("recipe"))
    assert load_checkpoint(saved)[1].recipe is None


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_either_file_names_the_checkpoint(saved: Path, suffix: str) -> None:
    assert load_checkpoint(f"{saved}{suffix}")[1].shape == SHAPE


def test_there_are_two_files_and_nothing_left_over(saved: Path) -> None:
    save_checkpoint(saved, trained(1), SPACE, SHAPE, {})
    assert {file.name for file in saved.parent.iterdir()} == {
        "trial-0.5.json",
        "trial-0.5.safetensors",
    }
    assert torch.equal(
        load_checkpoint(saved)[0].state_dict()["0.weight"], trained(1).state_dict()["0.weight"]
    )


def test_a_plain_tuple_is_a_shape_too(tmp_path: Path) -> None:
    space = mlp([1], [4], input_shape=(3,), classes=2)
    save_checkpoint(tmp_path / "a", space.build(Shape(1, 4)), space, (1, 4), {})
    assert load_checkpoint(tmp_path / "a")[1].shape == Shape(1, 4)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_missing_file_is_named(saved: Path, suffix: str) -> None:
    Path(f"{saved}{suffix}").unlink()
    with pytest.raises(InvalidCheckpoint, match=rf"trial-0\.5\{suffix} cannot be read: No such"):
        load_checkpoint(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "{}", '"format"', "\udcff"])
def test_a_malformed_description_is_refused(saved: Path, text: str) -> None:
    Path(f"{saved}.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InvalidCheckpoint, match="does not describe a network"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info.pop("family"),
        lambda info: info.pop("weights_sha256"),
        lambda info: info.update(family=3),
        lambda info: info.update(properties=3),
        lambda info: info.update(recipe=3),
        lambda info: info.update(shape=[2]),
        lambda info: info.update(shape=[2, 0]),
        lambda info: info.update(shape=["2", "3"]),
        lambda info: info["family"].update(family="octopus"),
        lambda info: info["family"]["options"].update(classes=-1),
    ],
)
def test_a_description_of_no_network_is_refused(
    saved: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    edit(saved, change)
    with pytest.raises(InvalidCheckpoint, match="does not describe a network"):
        load_checkpoint(saved)


def test_another_format_is_refused_with_its_version(saved: Path) -> None:
    edit(saved, lambda info: info.update(format=2))
    with pytest.raises(InvalidCheckpoint, match="format 2.*optuna_shape"):
        load_checkpoint(saved)


def test_damaged_weights_are_refused(saved: Path) -> None:
    file = Path(f"{saved}.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InvalidCheckpoint, match="does not hold the weights"):
        load_checkpoint(saved)


def test_files_of_two_checkpoints_do_not_mix(saved: Path) -> None:
    other = saved.with_name("other")
    save_checkpoint(other, trained(1), SPACE, SHAPE, PROPERTIES)
    Path(f"{other}.safetensors").replace(f"{saved}.safetensors")
    with pytest.raises(InvalidCheckpoint, match="mixed up"):
        load_checkpoint(saved)


def test_weights_of_another_shape_do_not_fit(saved: Path) -> None:
    edit(saved, lambda info: info.update(shape=[2, 4]))
    with pytest.raises(InvalidCheckpoint, match=r"do not fit resnet \(2, 4\)"):
        load_checkpoint(saved)


def test_weights_that_are_no_safetensors_do_not_fit(saved: Path) -> None:
    garbage = b"not weights"
    Path(f"{saved}.safetensors").write_bytes(garbage)
    edit(saved, lambda info: info.update(weights_sha256=hashlib.sha256(garbage).hexdigest()))
    with pytest.raises(InvalidCheckpoint, match="do not fit"):
        load_checkpoint(saved)


def test_a_build_of_the_users_own_comes_back_by_that_build(tmp_path: Path) -> None:
    def build(shape: Shape) -> nn.Module:
        layer = nn.Linear(shape.width, shape.width)
        return nn.Sequential(layer, nn.ReLU(), layer)  # Tied weights.

    space = DesignSpace([1], [4], build=build)
    network = space.build(Shape(1, 4))
    save_checkpoint(tmp_path / "a", network, space, (1, 4), PROPERTIES)
    with pytest.raises(InvalidCheckpoint, match=re.escape("load_checkpoint(path, space)")):
        load_checkpoint(tmp_path / "a")
    model, info = load_checkpoint(tmp_path / "a", space)
    assert (info.family, info.shape, info.properties) == (None, Shape(1, 4), PROPERTIES)
    x = torch.randn(3, 4)
    assert torch.equal(model(x), network(x))
    wider = DesignSpace([1], [4], build=lambda _: nn.Linear(5, 2))
    with pytest.raises(InvalidCheckpoint, match="do not fit the network of"):
        load_checkpoint(tmp_path / "a", wider)


def test_no_name_in_a_checkpoint_is_imported(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hostile_nets.py").write_text("raise SystemError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    edit(saved, lambda info: info["family"].update(family="hostile_nets:run"))
    with pytest.raises(InvalidCheckpoint, match="does not describe a network"):
        load_checkpoint(saved)
    assert "hostile_nets" not in sys.modules


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_properties_that_json_cannot_hold_are_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(InvalidCheckpoint, match="finite numbers"):
        save_checkpoint(tmp_path / "a", trained(), SPACE, SHAPE, {"accuracy": value})
    assert not list(tmp_path.iterdir())
