from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import SPACES
from networks import network
from torch import nn

from optuna_shape import InvalidProblem
from optuna_shape.compress.pruning import prune
from optuna_shape.compress.weights import weights_of


def zeros(weight: torch.Tensor) -> float:
    return float((weight == 0).double().mean())


@pytest.mark.parametrize("family", SPACES)
def test_each_layer_loses_its_share_of_the_smallest(family: str) -> None:
    model = network(family)
    with torch.no_grad():
        for weight in weights_of(model).values():  # Some begin as zeros.
            weight.normal_()
    before = {name: weight.detach().clone() for name, weight in weights_of(model).items()}
    share = prune(model, 0.6)
    for name, weight in weights_of(model).items():
        assert zeros(weight) == pytest.approx(0.6, abs=1 / weight.numel())
        assert weight.any()
        lost = weight == 0
        if lost.any():
            assert before[name][lost].abs().max() <= before[name][~lost].abs().min()
        assert torch.equal(weight[~lost], before[name][~lost])
        assert not torch.signbit(weight[lost]).any()
    assert share == pytest.approx(0.6, abs=0.02)


def test_globally_small_layers_lose_more() -> None:
    model = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20))
    with torch.no_grad():
        model[0].weight.mul_(10)
    assert prune(model, 0.5, scope="global") == pytest.approx(0.5, abs=0.01)
    assert zeros(model[0].weight) < 0.15
    assert zeros(model[1].weight) > 0.85


@pytest.mark.parametrize("family", SPACES)
def test_what_is_no_weight_stays(family: str) -> None:
    model, before = network(family), network(family).state_dict()
    prune(model, 0.9, scope="global")
    weights = weights_of(model)
    others = [name for name in before if name not in weights]
    assert others
    for name in others:
        assert torch.equal(model.state_dict()[name], before[name])


def test_nothing_is_pruned_at_zero_and_pruning_again_adds_up() -> None:
    model = network("mlp")
    assert prune(model, 0.0) == 0
    prune(model, 0.5)
    assert prune(model, 0.0) == pytest.approx(0.5, abs=0.01)
    assert prune(model, 0.8) == pytest.approx(0.8, abs=0.01)


def test_the_threshold_is_numpys_percentile() -> None:
    model = nn.Linear(8, 5)
    magnitudes = model.weight.detach().double().abs().numpy().copy()
    prune(model, 0.25)
    kept = magnitudes > np.percentile(magnitudes, 25)
    assert np.array_equal(model.weight.detach().numpy() != 0, kept)


def test_of_equal_magnitudes_no_more_go_than_asked_for() -> None:
    model = nn.Linear(4, 5)
    nn.init.ones_(model.weight)
    assert prune(model, 0.5) == 0.5


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(InvalidProblem, match=r"cannot be pruned\. Give 0 or more, and below 1"):
        prune(network("mlp"), share)


def test_a_network_without_weights_is_refused() -> None:
    with pytest.raises(InvalidProblem, match="BatchNorm1d has no linear layer"):
        prune(nn.BatchNorm1d(3), 0.5)
