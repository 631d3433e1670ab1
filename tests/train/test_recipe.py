from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from optuna_shape import DesignSpace
from optuna_shape import InvalidProblem
from optuna_shape.families import densenet
from optuna_shape.families import mlp
from optuna_shape.families import nasnet
from optuna_shape.families import resnet
from optuna_shape.families import vit
from optuna_shape.train.recipe import Recipe
from optuna_shape.train.recipe import grouped_weights
from optuna_shape.train.recipe import shrink_groups


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"optimizer": "adam"}, "one of adamw, sgd"),
        ({"head": "sigmoid"}, "one of softmax, llr"),
        ({"batch_size": 0}, "1 or more"),
        ({"learning_rate": 0.0}, "a number above 0"),
        ({"learning_rate": math.nan}, "a number above 0"),
        ({"weight_decay": -1.0}, "0 or more"),
        ({"group_decay": math.inf}, "0 or more"),
        ({"warmup": 1.5}, "a share from 0 to 1"),
        ({"label_smoothing": 1.0}, "a share from 0 to below 1"),
    ],
)
def test_what_is_no_recipe_says_why(setting: dict[str, Any], expected: str) -> None:
    (name, value) = next(iter(setting.items()))
    with pytest.raises(InvalidProblem, match=f"{name}={value!r} is no setting.*Give {expected}"):
        Recipe(**setting)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_usual_settings_of_each_optimizer(optimizer: str) -> None:
    assert Recipe.usual("adamw") == Recipe()
    recipe = Recipe.usual(optimizer, batch_size=7)
    assert (recipe.optimizer, recipe.batch_size) == (optimizer, 7)
    with pytest.raises(InvalidProblem, match="one of adamw, sgd"):
        Recipe.usual("lion")


def test_gentle_is_slower_and_otherwise_the_same() -> None:
    recipe = Recipe.usual("sgd", head="llr")
    assert recipe.gentle == Recipe.usual("sgd", head="llr", learning_rate=0.025, warmup=0.1)


def test_only_weights_decay() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    for name in ("adamw", "sgd"):
        weights, others = Recipe.usual(name).make_optimizer(model).param_groups
        assert [tuple(p.shape) for p in weights["params"]] == [(2, 1, 3, 3), (2, 2)]
        assert len(others["params"]) == 4
        assert weights["weight_decay"] == Recipe.usual(name).weight_decay
        assert others["weight_decay"] == 0


IMAGES: dict[str, Any] = {"input_shape": (1, 8, 8), "classes": 3}


@pytest.mark.parametrize(
    "space",
    [
        mlp([2], [4], **IMAGES),
        resnet([2], [4], **IMAGES),
        resnet([1], [4], **IMAGES, variant="bottleneck"),
        resnet([1], [20], **IMAGES, variant="wide"),
        densenet([2], [4], **IMAGES),
        nasnet([1], [24], **IMAGES),
    ],
    ids=lambda space: f"{space.name} {getattr(space.builder, 'variant', '')}",
)
def test_all_matrices_and_filters_of_a_family_decay(space: DesignSpace) -> None:
    model = space.build(space.shapes[0])
    weights, others = Recipe().make_optimizer(model).param_groups
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    for group, expected in ((weights, matrices), (others, vectors)):
        assert [id(p) for p in group["params"]] == [id(p) for p in expected]
    assert [id(p) for p in grouped_weights(model)] == [id(p) for p in matrices[:-1]]


@pytest.mark.parametrize("height", [8, 7], ids=["square", "padded"])
def test_of_a_transformer_neither_token_nor_positions_decay(height: int) -> None:
    space = vit([2], [16], input_shape=(1, height, 8), classes=3, patch_size=4, head_size=8)
    model = space.build(space.shapes[0])
    names = {
        p: name.removeprefix("1.")  # Padding comes first.
        for name, p in model.named_parameters()
    }
    weights, others = (
        [names[p] for p in group["params"]]
        for group in Recipe().make_optimizer(model).param_groups
    )
    block = "encoder.layers.encoder_layer_{}."
    layers = ("self_attention.in_proj_weight", "self_attention.out_proj.weight")
    layers += ("mlp.0.weight", "mlp.3.weight")
    inner = [block.format(index) + layer for index in range(2) for layer in layers]
    assert weights == ["conv_proj.weight", *inner, "heads.head.weight"]
    assert {"class_token", "encoder.pos_embedding"} < set(others)
    assert len(weights) + len(others) == len(names)
    assert [names[p] for p in grouped_weights(model)] == weights[:-1]


def test_the_last_layer_is_the_one_registered_last_also_where_weights_are_shared() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.middle, self.last = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(3, 4)
            self.last.weight = self.first.weight
            self.words = nn.Embedding(5, 2)
            self.matrix = nn.Parameter(torch.zeros(2, 2))

    model = Tied()
    weights, others = Recipe().make_optimizer(model).param_groups
    assert [id(p) for p in weights["params"]] == [id(model.first.weight), id(model.middle.weight)]
    assert {id(model.words.weight), id(model.matrix)} < {id(p) for p in others["params"]}
    assert [id(p) for p in grouped_weights(model)] == [id(model.middle.weight)]


def test_sgd_is_nesterovs() -> None:
    """Two steps against the recursion v <- 0.9 v + g; w <- w - rate (g + 0.9 v)."""
    parameter = nn.Parameter(torch.tensor([1.0]))
    network = nn.ParameterList([parameter])
    optimizer = Recipe.usual("sgd", learning_rate=0.1).make_optimizer(network)
    value, velocity = 1.0, 0.0
    for _ in range(2):
        optimizer.zero_grad()
        (parameter**2).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        gradient = 2 * value
        velocity = 0.9 * velocity + gradient
        value -= 0.1 * (gradient + 0.9 * velocity)
    assert parameter.item() == pytest.approx(value)


@given(st.integers(0, 10_000), st.floats(1e-3, 1.0))
def test_shrinking_is_the_proximal_step(seed: int, amount: float) -> None:
    """Of amount times the sum of root d times the length of each row, at w."""
    generator = torch.Generator().manual_seed(seed)
    before = torch.randn(5, 3, 2, generator=generator, dtype=torch.float64)
    after = before.clone()
    shrink_groups([after], amount)
    # It is where the gradient (after - before) meets that of the penalty, row by row.
    for old, new in zip(before.flatten(1), after.flatten(1)):
        penalty = amount * math.sqrt(6)
        if new.norm() > 0:
            torch.testing.assert_close(old - new, penalty * new / new.norm())
        else:
            assert old.norm() <= penalty


def test_a_row_of_zeros_stays_one() -> None:
    weight = torch.zeros(2, 3)
    shrink_groups([weight], 0.1)
    assert torch.equal(weight, torch.zeros(2, 3))
