"""The benchmark of output heads, here with tiny perceptrons."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import heads
import pytest
import torch
from torch import nn

from optuna_shape.train.data import Data
from optuna_shape.train.recipe import Recipe
from optuna_shape.train.recipe import shrink_groups

SCRIPT = Path(heads.__file__)
NETWORK = ("d", "mlp", "1x4", "adamw")


def of_top(tops: list[float], right: list[bool]) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities of two classes, of which the first is told, and the true classes."""
    top = torch.tensor(tops, dtype=torch.double)
    classes = torch.tensor([0 if is_right else 1 for is_right in right])
    return torch.stack([top, 1 - top], dim=1), classes


def tiny_data() -> Data:
    x = torch.randn(64, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    y = (x.flatten(1).sum(dim=1) > 0).long()
    return Data("d", x[:32], y[:32], x[32:48], y[32:48], x[48:], y[48:], 2)


def a_setting(**changes: object) -> heads.Setting:
    setting = heads.settings_of(
        NETWORK, "softmax", rate=0.01, seed=0, epochs=2, part=heads.COMPARISON
    )
    return dataclasses.replace(setting, **changes)  # type: ignore[arg-type]


def a_row(**changes: object) -> heads.Row:
    texts = dict.fromkeys(heads.CURVES, "1 2")
    row = heads.Row(
        **dataclasses.asdict(a_setting()), **dict.fromkeys(heads.MEASURES, 0.5), seconds=1, **texts
    )
    return dataclasses.replace(row, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tops", "right", "expected"),
    [
        ([0.7, 0.7, 0.95], [True, False, True], (abs(0.3 - 0.7) + 0.05) / 3),
        ([0.8] * 5, [True] * 4 + [False], 0.0),  # As often right as it says.
        ([1.0, 1.0], [True, False], 0.5),  # The last bin includes 1.
        ([0.61, 0.99], [True, False], (0.39 + 0.99) / 2),  # Bins do not make up for each other.
    ],
)
def test_calibration_error(tops: list[float], right: list[bool], expected: float) -> None:
    assert heads.calibration_error(*of_top(tops, right)) == pytest.approx(expected)


def test_calibration_error_of_probabilities_that_are_true_vanishes_with_many_images() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(100_000, 4, generator=generator).square()
    probabilities = heads.normalised(probabilities)
    classes = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
    assert heads.calibration_error(probabilities, classes) < 0.006


def test_brier_score() -> None:
    classes = torch.tensor([0, 1, 2, 3])
    truth = torch.eye(4)
    assert heads.brier_score(truth, classes) == 0.0
    assert heads.brier_score(truth.roll(1, dims=1), classes) == 2.0
    assert heads.brier_score(torch.full((4, 4), 0.25), classes) == pytest.approx(1 - 1 / 4)


def test_norm_and_empty_share() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))
    *others, last = heads.weights_of(model)
    assert [tuple(w.shape) for w in (*others, last)] == [(2, 1, 3, 3), (3, 2)]
    both = [torch.tensor([[3.0]]), torch.tensor([[0.0, 4.0]])]
    assert heads.norm(both) == 5.0
    assert heads.empty_share(others) == 0.0
    others[0][0] = 0
    assert heads.empty_share(others) == 0.5
    shrink_groups(others, 1e3)
    assert heads.empty_share(others) == 1.0
    assert math.isnan(heads.empty_share([]))


def test_fit_of_outputs() -> None:
    outputs = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double()
    classes = torch.arange(50) % 3
    fit = heads.fit_of(outputs, classes, "softmax")
    assert fit.nll == pytest.approx(float(nn.functional.cross_entropy(outputs, classes)))
    assert fit.loss == pytest.approx(fit.nll)
    llr = heads.fit_of(outputs, classes, "llr")
    odds = outputs.exp() / 2  # Of a class against two others, equally likely beforehand.
    stated = odds / (1 + odds)
    torch.testing.assert_close(llr.probabilities, stated)
    one = (stated / stated.sum(dim=1, keepdim=True))[torch.arange(50), classes]
    assert llr.nll == pytest.approx(float(-one.log().mean()))
    assert llr.accuracy == fit.accuracy
    # Neither certain errors nor classes that are all impossible are infinitely bad.
    assert math.isfinite(heads.fit_of(1e4 * outputs, classes, "llr").nll)
    none = heads.fit_of(torch.full((2, 4), -1e4).double(), torch.tensor([0, 1]), "llr")
    assert none.nll == pytest.approx(math.log(4))


def test_a_method_leaves_out_what_it_does_not_say() -> None:
    decays = {}
    for regularisation in heads.REGULARISATIONS:
        setting = heads.settings_of(
            NETWORK,
            "llr",
            regularisation=regularisation,
            rate=0.005,
            group_decay=0.01,
            seed=0,
            epochs=1,
            part=heads.COMPARISON,
        )
        assert setting.recipe.label_smoothing == 0
        assert (setting.recipe.head, setting.recipe.learning_rate) == ("llr", 0.005)
        decays[regularisation] = (setting.recipe.weight_decay, setting.recipe.group_decay)
    usual = Recipe().weight_decay
    assert decays == {
        "plain": (0, 0),
        "weight": (usual, 0),
        "group": (0, 0.01),
        "both": (usual, 0.01),
    }


def test_heads_share_the_rate_and_the_group_decay_that_are_best_on_average() -> None:
    seen: list[heads.Setting] = []
    low, middle, high = heads.GROUP_DECAYS["adamw"]
    # Of softmax and llr.
    at_rate = {0.01: (math.nan, 0.99), 0.005: (0.9, 0.5), 0.0025: (0.8, 0.7)}
    at_decay = {low: (0.6, 0.6), middle: (0.9, 0.4), high: (0.5, 0.5)}

    def accuracy(setting: heads.Setting) -> float:
        seen.append(setting)
        plain = setting.regularisation == "plain"
        both = at_rate[setting.learning_rate] if plain else at_decay[setting.group_decay]
        return both[setting.head == "llr"] + (setting.seed == 8) / 100

    rate, group = heads.choose(NETWORK, ["softmax", "llr"], [7, 8], 3, accuracy)
    assert (rate, group) == (0.0025, middle)
    assert {setting.seed for setting in seen} == {7, 8}
    assert {setting.part for setting in seen} == {heads.CHOICE}
    assert {s.learning_rate for s in seen if s.regularisation == "group"} == {rate}


def test_a_training_is_watched_from_its_random_weights() -> None:
    row = heads.train_row(a_setting(), tiny_data())
    curves = {name: heads.curve_of(row, name) for name in heads.CURVES}
    assert {len(curve) for curve in curves.values()} == {3}
    torch.manual_seed(0)
    first = nn.Linear(4, 4), nn.Linear(4, 2)  # Drawn in the order of the layers.
    for name, layer in zip(("other_norms", "last_norms"), first):
        assert curves[name][0] == pytest.approx(float(layer.weight.detach().norm()), rel=1e-4)
    assert row.accuracy == pytest.approx(curves["accuracies"][-1], rel=1e-4)
    assert row.gap == pytest.approx(row.train_accuracy - row.accuracy)
    assert row.nll == pytest.approx(row.loss)
    assert row.ece == pytest.approx(row.ece_normalised)


def test_a_training_that_diverged_measures_nothing() -> None:
    row = heads.train_row(a_setting(optimizer="sgd", learning_rate=1e30), tiny_data())
    assert all(math.isnan(getattr(row, name)) for name in heads.MEASURES)


def test_differences_are_paired_by_seed() -> None:
    rows = [
        a_row(seed=0, accuracy=0.5, last_norm=1),
        a_row(seed=1, accuracy=0.7, last_norm=10),
        a_row(seed=0, head="llr", accuracy=0.6, last_norm=4),
        a_row(seed=1, head="llr", accuracy=0.8, last_norm=40),
        a_row(seed=2, head="llr", accuracy=0.1),  # Alone.
        a_row(part=heads.CHOICE, seed=9, learning_rate=0.02, accuracy=0.2),
        a_row(part=heads.CHOICE, seed=9, learning_rate=0.02, accuracy=0.5, head="llr"),
        a_row(part=heads.CHOICE, seed=9, regularisation="group", head="llr"),
    ]
    found = {(line["method"], line["measure"]): line for line in heads.differences(rows)}
    assert {method for method, _ in found} == {"llr plain", "llr plain at 0.02"}
    accuracy = found["llr plain", "accuracy"]
    assert (accuracy["against"], accuracy["kind"]) == ("softmax plain", "difference")
    assert [float(str(accuracy[n])) for n in ("mean", "low", "high")] == pytest.approx([0.1] * 3)
    scale = found["llr plain", "last_norm"]
    assert (scale["kind"], scale["mean"], scale["low"]) == ("ratio", "4", "4")
    assert found["llr plain at 0.02", "accuracy"]["mean"] == "0.3"
    assert found["llr plain at 0.02", "accuracy"]["low"] == "nan"


def test_summary_has_means_and_standard_errors() -> None:
    rows = [a_row(seed=0, accuracy=0.5), a_row(seed=1, accuracy=0.7), a_row(part=heads.CHOICE)]
    (line,) = heads.summarise(rows)
    assert (line["seeds"], line["accuracy"], line["accuracy_error"]) == (2, "0.6", "0.1")
    assert line["last_growth"] == "2"


@pytest.mark.slow
def test_it_runs_and_goes_on_where_it_ended(tmp_path: Path) -> None:
    out = tmp_path / "heads.csv"
    command = [sys.executable, str(SCRIPT), "--data", "digits", "--networks", "mlp:1x4:adamw"]
    command += ["--epochs", "1", "--pilot-seeds", "9", "--no-plot"]
    command += ["--out", str(out)]
    subprocess.run([*command, "--seeds", "0"], check=True, timeout=600)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["part"] for r in rows] == ["choice"] * 12 + ["comparison"] * 8
    assert {(r["head"], r["regularisation"]) for r in rows[12:]} == {
        (head, regularisation)
        for head in ("softmax", "llr")
        for regularisation in heads.REGULARISATIONS
    }
    assert {len(r["last_norms"].split()) for r in rows} == {2}
    source = json.loads(out.with_suffix(".json").read_text())
    assert source["chosen"][0]["group_decay"] == float(rows[-1]["group_decay"])

    written = out.read_text()
    subprocess.run([*command, "--seeds", "0,1"], check=True, timeout=600)
    assert out.read_text().startswith(written)
    assert len(heads.read(out)) == 28
    with (tmp_path / "heads-summary.csv").open(newline="") as file:
        assert {r["seeds"] for r in csv.DictReader(file)} == {"2"}
    assert (tmp_path / "heads-differences.csv").exists()


def test_the_plot_has_a_row_for_each_network_and_names_each_method_once() -> None:
    rows = [a_row(head=head) for head in ("softmax", "llr")]
    rows += [a_row(optimizer="sgd"), a_row(part=heads.CHOICE, family="resnet")]
    figure = heads.plot(rows)
    named = [trace.name for trace in figure.data if trace.showlegend]
    assert named == ["softmax, plain", "llr, plain"]
    assert len(figure.data) == 3 * 5
    assert list(figure.data[0].x) == [0, 1]
    assert list(figure.data[3].y) == [0, 0]  # The gap.
