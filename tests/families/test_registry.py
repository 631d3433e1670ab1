from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from optuna_shape import DesignSpace
from optuna_shape import InvalidSpace
from optuna_shape import families
from optuna_shape.families import FAMILIES
from optuna_shape.families import densenet
from optuna_shape.families import describe
from optuna_shape.families import mlp
from optuna_shape.families import nasnet
from optuna_shape.families import rebuild
from optuna_shape.families import resnet
from optuna_shape.families import vit

SPACES = [
    resnet([1, 2], [4, 6]),
    resnet([1, 2], [4, 6], input_shape=(1, 9, 8), classes=3, variant="wide", name="mine"),
    resnet([1, 2], [4, 6], variant="bottleneck", stem="imagenet"),
    mlp([1, 2], [4, 6], input_shape=(5,), classes=2),
    vit([1, 2], [4, 6], head_size=2),
    vit([1, 2], [4, 6], input_shape=(1, 9, 8), classes=3, patch_size=4, head_size=1),
    nasnet([1, 2], [24, 48]),
    nasnet([1, 2], [96, 192], input_shape=(1, 33, 32), classes=3, stem="imagenet", drop_path=0),
    nasnet([1, 2], [24, 48], stem_filters=5),
    densenet([1, 2], [4, 6]),
    densenet([1, 2], [4, 6], input_shape=(1, 9, 8), classes=3, bc=False),
]


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_a_description_goes_through_json_and_rebuilds_the_same_networks(
    space: DesignSpace,
) -> None:
    description = describe(space)
    stored = json.loads(json.dumps(description))
    assert stored == description
    again = rebuild(stored, space.depths, space.widths, name=space.name)
    assert again.builder == space.builder
    assert (again.shapes, again.input_shape, again.name) == (
        space.shapes,
        space.input_shape,
        space.name,
    )
    assert describe(again) == description
    assert space.input_shape is not None
    x = torch.randn(2, *space.input_shape)
    outputs = []
    for each in (space, again):
        torch.manual_seed(0)
        outputs.append(each.build(space.shapes[-1])(x))
    assert torch.equal(*outputs)


def test_a_rebuilt_space_is_named_after_its_family_by_default() -> None:
    description = describe(SPACES[1])
    assert description is not None
    assert rebuild(description, [1], [4]).name == "resnet"


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_can_be_described(name: str) -> None:
    space = FAMILIES[name]([1], [192], input_shape=(1, 8, 8), classes=4)
    description = describe(space)
    assert description is not None
    assert description["family"] == space.name == name


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_says_in_a_line_what_depth_and_width_mean(name: str) -> None:
    line = (FAMILIES[name].__doc__ or "").splitlines()[0]
    assert ": depth is " in line
    assert ", width the " in line
    assert line.endswith(".")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_shapes_to_choose_from_by_default(name: str) -> None:
    space = FAMILIES[name](input_shape=(1, 12, 12), classes=4)
    assert len(space.depths) > 3
    assert len(space.widths) > 3
    with torch.device("meta"):
        for shape in (space.shapes[0], space.shapes[-1]):
            assert space.build(shape).eval()(torch.zeros(2, 1, 12, 12)).shape == (2, 4)


@pytest.mark.parametrize("family", [resnet, nasnet])
def test_the_default_shapes_suit_both_stems(family: Any) -> None:
    space = family(stem="imagenet")
    with torch.device("meta"):
        assert space.build(space.shapes[0])(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_public(name: str) -> None:
    assert name in families.__all__
    assert getattr(families, name) is FAMILIES[name]


@pytest.mark.parametrize("build", [None, lambda shape: nn.Linear(1, shape.width)])
def test_a_build_of_the_users_own_has_no_description(build: Any) -> None:
    assert describe(DesignSpace([1], [4], build=build)) is None


@pytest.mark.parametrize(
    "description",
    [
        {},
        {"family": "resnet"},
        {"family": "octopus", "options": {}},
        {"family": "resnet", "options": {"arms": 8}},
        {"family": "resnet", "options": [1]},
        {"family": "resnet", "options": {"input_shape": 3}},
        {"family": ["resnet"], "options": {}},
        {"family": "densenet", "options": {"growth": 12}},
    ],
)
def test_a_description_that_rebuilds_nothing_is_refused(description: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpace, match="known here: densenet, mlp, nasnet, resnet, vit"):
        rebuild(description, [1], [4])


def test_no_module_is_imported_by_a_description(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hostile_family.py").write_text("raise SystemError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InvalidSpace, match="known here: densenet"):
        rebuild({"family": "hostile_family:run", "options": {}}, [1], [4])
    assert "hostile_family" not in sys.modules


def test_a_wrong_option_keeps_its_own_message() -> None:
    with pytest.raises(InvalidSpace, match="2 or more"):
        rebuild({"family": "mlp", "options": {"input_shape": [4], "classes": 1}}, [1], [4])
