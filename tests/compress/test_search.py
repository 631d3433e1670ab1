from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import DATA
from networks import SPACES
from networks import network
from torch import nn

from optuna_shape import InvalidProblem
from optuna_shape.compress.packed import load_packed
from optuna_shape.compress.packed import pack
from optuna_shape.compress.packed import save_packed
from optuna_shape.compress.quantizers import QUANTIZERS
from optuna_shape.compress.search import PERCENTILES
from optuna_shape.compress.search import VALUES
from optuna_shape.compress.search import Compression
from optuna_shape.compress.search import Point
from optuna_shape.compress.search import Setting
from optuna_shape.compress.search import compress
from optuna_shape.compress.search import curve
from optuna_shape.compress.search import round_others
from optuna_shape.compress.weights import weights_of
from optuna_shape.train.recipe import Recipe
from optuna_shape.train.trainer import evaluate
from optuna_shape.train.trainer import train

ARGUMENTS: dict[str, Any] = {"drop": 0.05, "trials": 6, "epochs": 1, "seed": 0}


def points(*pairs: tuple[int, float]) -> list[Point]:
    return [
        Point(Setting(50.0, k, "kmeans", True), *pair)
        for k, pair in enumerate(
            ((bits, float(bits), accuracy) for bits, accuracy in pairs), start=1
        )
    ]


def trained(family: str = "mlp") -> nn.Module:
    model = network(family)
    train(model, DATA, epochs=3, seed=0)
    return model


def accuracy_of(model: nn.Module) -> float:
    return evaluate(model, DATA.validation_x, DATA.validation_y)


@pytest.fixture(scope="module")
def searched() -> tuple[nn.Module, nn.Module, Compression, list[Point]]:
    """The network before and after, what was found, and what was reported."""
    before = trained()
    after, reported = copy.deepcopy(before), []
    found = compress(after, DATA, **ARGUMENTS, report=reported.append)
    return before, after, found, reported


def test_the_curve_has_the_points_that_no_other_is_better_than() -> None:
    a, b, c, d, e, f = points((5, 0.9), (1, 0.5), (3, 0.7), (4, 0.7), (3, 0.6), (6, 0.9))
    assert curve([a, b, c, d, e, f]) == [b, c, a]
    for point in (d, e, f):
        assert any(o.bits <= point.bits and o.accuracy >= point.accuracy for o in (a, b, c))


def test_the_curve_by_representation_bits() -> None:
    setting = Setting(50.0, 8, "kmeans", True)
    a, b = Point(setting, 100, 900.0, 0.5), Point(setting, 200, 800.0, 0.6)
    assert curve([a, b]) == [a, b]
    assert curve([a, b], "representation_bits") == [b]


def test_the_curve_of_few_points() -> None:
    assert curve([]) == []
    (one,) = points((1, 0.5))
    assert curve([one, one]) == [one]


def test_only_numbers_that_are_no_weights_are_rounded() -> None:
    model = trained("resnet")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    round_others(model)
    weights = weights_of(model)
    changed = 0
    for name, tensor in model.state_dict().items():
        if name in weights or not tensor.is_floating_point():
            assert torch.equal(tensor, before[name]), name
        else:
            assert torch.equal(tensor, before[name].bfloat16().float()), name
            changed += int((tensor != before[name]).sum())
    assert changed > 0


def test_a_weight_of_two_names_is_not_rounded() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(8, 8)
            self.second = nn.Linear(8, 8)
            self.second.weight = self.first.weight

    model = Tied()
    weight, bias = model.first.weight.detach().clone(), model.second.bias.detach().clone()
    round_others(model)
    assert torch.equal(model.first.weight, weight)
    assert torch.equal(model.second.bias, bias.bfloat16().float())


def test_the_best_has_the_fewest_bits_within_the_drop(searched: Any) -> None:
    before, _, found, _ = searched
    assert found.trained.setting is None
    assert found.trained.accuracy == accuracy_of(before)
    least = found.trained.accuracy - ARGUMENTS["drop"] - 1e-9
    within = [point for point in found.points if point.accuracy >= least]
    assert found.best == min(within, key=lambda point: point.bits)
    assert found.best.bits < found.trained.bits / 4


def test_the_network_becomes_the_best(searched: Any) -> None:
    _, after, found, _ = searched
    assert accuracy_of(after) == found.best.accuracy
    assert 8 * sum(len(tensor.content) for tensor in pack(after)) == found.best.bits
    for weight in weights_of(after).values():
        values = weight.unique()
        assert len(values[values != 0]) <= found.best.setting.k


def test_every_point_is_reported_and_of_another_setting(searched: Any) -> None:
    _, _, found, reported = searched
    assert tuple(reported) == found.points
    settings = [point.setting for point in found.points]
    assert len(set(settings)) == len(settings) <= ARGUMENTS["trials"] + 1
    for setting in settings[1:]:
        assert setting.percentile in PERCENTILES
        assert VALUES[0] <= setting.k <= VALUES[1]
        assert setting.method in QUANTIZERS


def test_the_same_seed_finds_the_same(searched: Any) -> None:
    before, after, found, _ = searched
    again = copy.deepcopy(before)
    assert compress(again, DATA, **ARGUMENTS) == found
    for name, tensor in after.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_the_answer_is_packed_to_the_bit(searched: Any, tmp_path: Path) -> None:
    _, after, _, _ = searched
    space = SPACES["mlp"]
    save_packed(tmp_path / "a.packed", after, space, space.shapes[0], {})
    again, _ = load_packed(tmp_path / "a.packed")
    for name, tensor in after.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_trainings_that_diverge_leave_the_network_as_it_was() -> None:
    model = trained()
    before = copy.deepcopy(model)
    found = compress(
        model, DATA, **ARGUMENTS | {"trials": 2}, recipe=Recipe("sgd", learning_rate=1e30)
    )
    assert found.points == (found.best,)
    assert found.best.setting is None
    for name, tensor in before.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_a_setting_that_diverged_is_not_trained_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PERCENTILES": (0.0,),
        "VALUES": (2, 2),
        "QUANTIZERS": {"kmeans": QUANTIZERS["kmeans"]},
        "_FIRST": (),
    }.items():
        monkeypatch.setattr(f"optuna_shape.compress.search.{name}", value)
    steps = []
    for trials in (1, 6):
        model = trained()
        seen: list[int] = []
        model.register_forward_hook(lambda module, *_, seen=seen: seen.append(module.training))
        recipe = Recipe("sgd", learning_rate=1e30)
        compress(model, DATA, **ARGUMENTS | {"trials": trials}, recipe=recipe)
        steps.append(sum(seen))
    assert 0 < steps[1] <= 2 * steps[0]  # Rounded or not: there are two settings.


@pytest.mark.parametrize(
    "wrong", [{"drop": -0.1}, {"drop": 1.0}, {"drop": float("nan")}, {"trials": 0}, {"epochs": 0}]
)
def test_what_cannot_be_searched_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidProblem, match="Give"):
        compress(network("mlp"), DATA, **ARGUMENTS | wrong)


def test_a_network_without_weights_is_an_error() -> None:
    with pytest.raises(InvalidProblem, match="no linear layer"):
        compress(nn.Sequential(nn.Flatten(), nn.LayerNorm(64)), DATA, **ARGUMENTS)
