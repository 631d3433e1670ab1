from __future__ import annotations

import pytest
import torch
from networks import SPACES
from networks import network
from torch import nn

from optuna_shape import InvalidProblem
from optuna_shape.compress.pruning import prune
from optuna_shape.compress.quantizers import QUANTIZERS
from optuna_shape.compress.sharing import Ties
from optuna_shape.compress.sharing import groups_of
from optuna_shape.compress.sharing import share_weights
from optuna_shape.compress.weights import weights_of


def distinct(*weights: torch.Tensor) -> int:
    values = torch.cat([weight.detach().reshape(-1) for weight in weights]).unique()
    return int((values != 0).sum())


@pytest.mark.parametrize("method", QUANTIZERS)
@pytest.mark.parametrize("family", SPACES)
def test_each_layer_has_few_values_and_keeps_its_zeros(family: str, method: str) -> None:
    model = network(family)
    prune(model, 0.5)
    before = {name: weight.detach().clone() for name, weight in weights_of(model).items()}
    share_weights(model, 6, method=method)
    for name, weight in weights_of(model).items():
        assert distinct(weight) <= 6
        assert (weight[before[name] == 0] == 0).all()
        if method != "uniform":  # It rounds small ones to zero.
            assert (weight[before[name] != 0] != 0).all()
        assert not torch.signbit(weight[weight == 0]).any()


@pytest.mark.parametrize("family", SPACES)
def test_unified_layers_have_values_in_common(family: str) -> None:
    model = network(family)
    share_weights(model, 9, unified=True)
    weights = list(weights_of(model).values())
    dense = [weight for weight in weights if weight.ndim == 2]
    kernels = [weight for weight in weights if weight.ndim > 2]
    assert len(groups_of(model, unified=True)) == bool(dense) + bool(kernels)
    for group in (dense, kernels):
        if group:
            assert distinct(*group) <= 9
    assert len(groups_of(model, unified=False)) == len(weights)


def test_few_values_stay_as_they_are() -> None:
    model = nn.Linear(4, 3)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -0.5, 0.0, 0.25]]).expand(3, 4))
    before = model.weight.detach().clone()
    share_weights(model, 3)
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k=0 values cannot be shared"),
        ({"k": 2, "method": "median"}, "Give one of kmeans, probabilistic, uniform, entropy"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidProblem, match=message):
        share_weights(nn.Linear(2, 2), **options)  # type: ignore[arg-type]


def test_weights_that_are_not_finite_are_refused() -> None:
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight[0, 0] = torch.nan
    with pytest.raises(InvalidProblem, match="not finite"):
        share_weights(model, 2)


def test_the_gradient_of_a_value_is_the_sum_over_its_weights() -> None:
    first, second = nn.Parameter(torch.tensor([[1.0, 2.0, 0.0]])), nn.Parameter(torch.ones(1, 2))
    ties = Ties([first, second])
    first.grad, second.grad = torch.tensor([[3.0, 5.0, 7.0]]), torch.tensor([[0.5, 0.25]])
    ties.sum_gradients()
    assert first.grad.tolist() == [[3.75, 5.0, 0.0]]
    assert second.grad.tolist() == [[3.75, 3.75]]


def test_a_weight_without_a_gradient_moves_with_its_value() -> None:
    first, second = nn.Parameter(torch.tensor([[1.0, 2.0, 0.0]])), nn.Parameter(torch.ones(1, 2))
    ties = Ties([first, second])
    ties.sum_gradients()
    assert first.grad is None
    first.grad = torch.tensor([[3.0, 5.0, 7.0]])
    ties.sum_gradients()
    assert first.grad.tolist() == [[3.0, 5.0, 0.0]]
    assert second.grad is not None
    assert second.grad.tolist() == [[3.0, 3.0]]


def test_values_that_drifted_apart_are_made_equal() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0, 1.0, 0.0]))
    ties = Ties([weight])
    with torch.no_grad():
        weight.add_(torch.tensor([0.5, 0.0, 0.5000001, 0.0]))
    ties.tie()
    assert weight.tolist() == [1.5, 2.0, 1.5, 0.0]
