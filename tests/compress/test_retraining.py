from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from networks import DATA
from networks import SPACES
from networks import network
from torch import nn

from optuna_shape import InvalidProblem
from optuna_shape.compress.pruning import prune
from optuna_shape.compress.retraining import adjust_snapshot
from optuna_shape.compress.retraining import retrain_pruned
from optuna_shape.compress.retraining import retrain_shared
from optuna_shape.compress.sharing import groups_of
from optuna_shape.compress.sharing import share_weights
from optuna_shape.compress.weights import weights_of
from optuna_shape.train.recipe import Recipe
from optuna_shape.train.trainer import evaluate
from optuna_shape.train.trainer import train

FAMILIES = pytest.mark.parametrize("family", SPACES)
TRAINING: dict[str, Any] = {"epochs": 1, "seed": 0}


def copies(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@FAMILIES
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_pruned_weights_stay_zero_and_others_learn(family: str, optimizer: str) -> None:
    model = network(family)
    prune(model, 0.7)
    before = copies(model)
    retrain_pruned(model, DATA, **TRAINING, recipe=Recipe.usual(optimizer))
    moved = 0
    for name, weight in weights_of(model).items():
        lost = before[name] == 0
        assert torch.equal(weight == 0, lost)
        moved += int((weight != before[name]).sum())
    assert moved > 0


@FAMILIES
@pytest.mark.parametrize("unified", [False, True])
def test_shared_values_stay_shared_and_learn(family: str, unified: bool) -> None:
    model = network(family)
    prune(model, 0.5)
    share_weights(model, 5, unified=unified)
    before = copies(model)
    recipe = Recipe(group_decay=0.01)  # Pulls the weights of a channel, not those of a value.
    accuracy = retrain_shared(model, DATA, **TRAINING, recipe=recipe, unified=unified)
    assert accuracy == evaluate(model, DATA.validation_x, DATA.validation_y)
    names = {weight: name for name, weight in weights_of(model).items()}
    moved = 0
    for group in groups_of(model, unified=unified):
        old = torch.cat([before[names[weight]].reshape(-1) for weight in group])  # type: ignore[index]
        new = torch.cat([weight.detach().reshape(-1) for weight in group])
        assert torch.equal(new == 0, old == 0)
        pairs = torch.stack([old, new]).unique(dim=1)
        assert pairs.shape[1] == len(old.unique())
        moved += int((old != new).sum())
    assert moved > 0


def test_a_frozen_layer_leaves_the_others_their_values_and_zeros() -> None:
    model = network("mlp")
    *names, frozen = weights_of(model)
    model.get_parameter(frozen).requires_grad_(False)
    prune(model, 0.5)
    share_weights(model, 5, unified=True)
    before = copies(model)
    retrain_shared(model, DATA, **TRAINING, unified=True)
    after = model.state_dict()
    old, new = (torch.cat([s[name].reshape(-1) for name in names]) for s in (before, after))
    assert torch.equal(new == 0, old == 0)
    assert len(new[new != 0].unique()) <= 5
    assert (new != old)[old != 0].all()
    assert torch.equal(after[frozen], before[frozen])


def test_a_shared_value_takes_the_step_of_its_summed_gradient() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False))
    share_weights(model, 3)
    weight = model[1].weight
    before = weight.detach().clone()
    values = before.unique()
    recipe = Recipe("sgd", batch_size=len(DATA.train_x), learning_rate=1e-3, weight_decay=0.0)
    codebook = values.clone().requires_grad_(True)
    index = torch.searchsorted(values, before)
    outputs = DATA.train_x.flatten(1) @ codebook[index].T
    loss = nn.functional.cross_entropy(outputs, DATA.train_y, label_smoothing=0.1)
    (gradient,) = torch.autograd.grad(loss, codebook)
    retrain_shared(model, DATA, **TRAINING, recipe=recipe)
    # Nesterov's momentum takes 1.9 times the first gradient.
    expected = values - recipe.learning_rates(1)[0] * 1.9 * gradient
    assert weight.detach().numpy() == pytest.approx(expected[index].detach().numpy(), abs=1e-6)


@FAMILIES
def test_a_snapshot_keeps_its_weights_and_learns_the_rest(family: str) -> None:
    model = network(family)
    train(model, DATA, epochs=1, seed=0)  # Some begin with outputs that are zero.
    prune(model, 0.7)
    before = copies(model)
    adjust_snapshot(model, DATA, **TRAINING, recipe=Recipe(group_decay=0.01))
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    learning = {
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in model.named_modules()
        for name, _ in [
            *module.named_parameters(recurse=False),
            *module.named_buffers(recurse=False),
        ]
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)) or name.endswith("bias")
    }
    assert changed
    assert changed <= learning
    assert not changed & set(weights_of(model))
    if family != "mlp":
        assert any(not name.endswith("bias") for name in changed)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_snapshot_without_anything_to_adjust_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False))
    with pytest.raises(InvalidProblem, match="neither biases nor normalisations"):
        adjust_snapshot(model, DATA, **TRAINING)


def test_retraining_wins_accuracy_back() -> None:
    model = network("resnet")
    full = train(model, DATA, epochs=10, seed=0)
    state = copies(model)
    prune(model, 0.8)
    lost = evaluate(model, DATA.validation_x, DATA.validation_y)
    retrained = retrain_pruned(model, DATA, epochs=10, seed=1)
    model.load_state_dict(state)
    prune(model, 0.8)
    adjusted = adjust_snapshot(model, DATA, epochs=10, seed=1)
    assert lost < full - 0.2
    assert retrained > lost + 0.2
    assert adjusted > lost + 0.2


def test_a_training_that_diverges_is_nan() -> None:
    model = network("mlp")
    recipe = Recipe("sgd", learning_rate=1e30, warmup=0.0)
    assert math.isnan(retrain_shared(model, DATA, epochs=3, seed=0, recipe=recipe))
