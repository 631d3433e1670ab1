from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from optuna_shape import DesignSpace
from optuna_shape.cli import EXIT_BAD_INPUT
from optuna_shape.cli import app
from optuna_shape.cli._checkpoints import load_network
from optuna_shape.cli._compress import _same
from optuna_shape.cli._space import make_space
from optuna_shape.compress.coding import FORMATS
from optuna_shape.compress.measures import measure
from optuna_shape.compress.measures import total
from optuna_shape.compress.packed import load_packed
from optuna_shape.compress.packed import save_packed
from optuna_shape.families import mlp
from optuna_shape.train.checkpoint import save_checkpoint
from optuna_shape.train.data import load
from optuna_shape.train.recipe import Recipe
from optuna_shape.train.trainer import evaluate
from optuna_shape.train.trainer import train

ENDS = (".packed", "-layers.csv", "-curve.csv", "-curve.html")
SHORT = ["--trials", "4", "--epochs", "1", "--device", "cpu"]


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["compress", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def one_line(code: int, text: str) -> str:
    assert code == EXIT_BAD_INPUT
    (line,) = text.splitlines()
    return line


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Upright and level stripes under noise."""
    path = tmp_path_factory.mktemp("data") / "stripes.npz"
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    wave = np.tile(np.arange(8) % 2, (8, 1))
    x = np.where(y[:, None, None] == 0, wave, wave.T) * 100 + rng.integers(0, 150, (400, 8, 8))
    np.savez(path, x=x.astype(np.uint8), y=y)
    return path


def save(stem: Path, space: DesignSpace, images: Path, recipe: Recipe | None = None) -> None:
    torch.manual_seed(0)
    model, data = space.build(space.shapes[0]), load(images)
    accuracy = train(model, data, epochs=3, seed=0)
    known = {"accuracy": accuracy, "latency": 0.001, "size": 4000.0}
    save_checkpoint(stem, model, space, space.shapes[0], known, recipe=recipe)


@pytest.fixture
def answer(tmp_path: Path, images: Path) -> Path:
    """A search's folder with one answer."""
    stem = tmp_path / "out" / "study-1" / "answer"
    save(stem, mlp([2], [12], input_shape=(1, 8, 8), classes=2), images, Recipe())
    return stem


def test_the_answer_of_a_search_is_compressed_beside_it(answer: Path, images: Path) -> None:
    before = {file: file.read_bytes() for file in answer.parent.iterdir()}
    code, text = run(answer.parents[1], "--data", images, "--accuracy-drop", "5%", *SHORT)
    assert code == 0
    packed, layers, table, page = (answer.with_name(f"answer{end}") for end in ENDS)
    assert set(answer.parent.iterdir()) == {*before, packed, layers, table, page}
    assert all(file.read_bytes() == content for file, content in before.items())

    rows = list(csv.DictReader(table.open()))
    (chosen,) = [row for row in rows if row["chosen"] == "1"]
    accuracies = float(rows[0]["accuracy"]), float(chosen["accuracy"])
    assert len(rows) == 5
    assert accuracies[1] >= accuracies[0] - 0.05 - 1e-9
    assert (
        accuracies[0]
        == json.loads(answer.with_suffix(".json").read_text())["properties"]["accuracy"]
    )

    model, info = load_packed(packed)
    data = load(images)
    assert evaluate(model, data.validation_x, data.validation_y) == accuracies[1]
    test = evaluate(model, data.test_x, data.test_y)
    # What the network is does not change; its size does.
    known = {"latency": 0.001, "accuracy": accuracies[1], "test_accuracy": test}
    assert info.properties == known
    assert info.recipe is not None
    plain = sum(tensor.nbytes for tensor in model.state_dict().values())
    said = re.search(r"^mlp, depth 2, width 12: (\S+) times smaller", text, re.MULTILINE)
    assert said is not None
    assert said[1] == f"{plain / packed.stat().st_size:.2f}"
    assert float(said[1]) > 2
    assert (
        f"Validation accuracy: {100 * accuracies[0]:.2f} % before, {100 * accuracies[1]:.2f} % "
        f"after. Test accuracy: {100 * test:.2f} %."
    ) in text
    assert "the same network, to the bit" in text
    assert "Its checkpoint says" not in text
    assert "Accuracy against bits: mlp, depth 2, width 12" in page.read_text()
    numbers = re.search(r"^ *network +(\d+) ", text, re.MULTILINE)
    assert numbers is not None
    assert int(numbers[1]) == sum(tensor.numel() for tensor in model.state_dict().values())
    whole = total(measure(model).values())
    (row,) = re.findall(r"^ *network +(.+?) *$", text, re.MULTILINE)
    each = whole.numbers
    assert row.split()[-4:] == [
        f"{8 * whole.packed_bytes / each:.2f}",
        f"{whole.entropy_bits / each:.2f}",
        f"{whole.overhead:.2f}",
        f"{whole.representation_bits / each:.2f}",
    ]
    assert max(map(len, text[: text.index("Chosen")].splitlines())) <= 100


def test_the_same_seed_writes_the_same_to_another_folder(
    answer: Path, images: Path, tmp_path: Path
) -> None:
    folders = [tmp_path / "a" / "new", tmp_path / "b"]
    for folder in folders:
        code, _ = run(answer, "--data", images, "--output", folder, *SHORT)
        assert code == 0
    for name in ("answer.packed", "answer-curve.csv"):
        first, second = (folder.joinpath(name).read_bytes() for folder in folders)
        assert first == second, name
    assert len(list(answer.parent.iterdir())) == 2


def test_a_script_reads_what_was_found(answer: Path, images: Path) -> None:
    code, text = run(answer, "--data", images, "--accuracy-drop", "5%", *SHORT, "--json")
    assert code == 0
    said = json.loads(text)
    assert said["written"] == [str(answer.with_name(f"answer{end}")) for end in ENDS]
    model, info = load_packed(answer.with_name("answer.packed"))
    assert {name: said[name] for name in ("accuracy", "test_accuracy")}.items() <= (
        info.properties.items()
    )
    rows = list(csv.DictReader(answer.with_name("answer-layers.csv").open()))
    measured = measure(model)
    assert [row["name"] for row in rows] == list(said["layers"]) == list(measured)
    for row in rows:
        layer, bits = said["layers"][row["name"]], measured[row["name"]]
        assert layer["entropy_bits"] == float(row["entropy_bits"]) == bits.entropy_bits
        assert layer["representation_bits"] == bits.representation_bits
        assert layer["packed_bytes"] == int(row["packed_bytes"]) == bits.packed_bytes
        assert layer["overhead"] == (bits.overhead if bits.entropy_bits else None)
        assert layer["format"] == row["format"] in FORMATS
    whole = total(measured.values())
    assert said["total"]["representation_bits"] == whole.representation_bits
    assert said["total"]["overhead"] == whole.overhead
    assert said["accuracy_before"] - said["accuracy"] <= 0.05 + 1e-9
    assert said["size"] == answer.with_name("answer.packed").stat().st_size
    assert said["plain_size"] == sum(tensor.nbytes for tensor in model.state_dict().values())
    assert said["setting"]["k"] >= 2
    assert said["verified"] is True

    code, text = run(answer, "--data", images, "--accuracy-drop", "5%", *SHORT, "--quiet")
    assert code == 0
    first, *rest = text.splitlines()
    assert first.startswith("Chosen: ")
    assert len(rest) == 3


def test_where_nothing_is_within_the_drop_the_network_stays(answer: Path, images: Path) -> None:
    settings = json.loads(answer.with_suffix(".json").read_text())
    settings["properties"]["accuracy"] = 0.1234
    settings["recipe"] |= {"learning_rate": 1e30, "optimizer": "sgd"}  # Each training diverges.
    answer.with_suffix(".json").write_text(json.dumps(settings))
    code, text = run(answer, "--data", images, *SHORT)
    assert code == 0
    assert "Chosen: as it was trained" in text
    assert "No smaller network is within the drop." in text
    assert "Its checkpoint says 12.34 %. If 'stripes" in text


OWN = """
import math
from torch import nn
from optuna_shape import DesignSpace


def family(depth, width, input_shape, classes, factor: int = 1):
    def build(shape):
        n = factor * shape.width
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(input_shape), n, bias=False),  # A state of weights alone.
            nn.ReLU(),
            nn.Linear(n, classes, bias=False),
        )

    return DesignSpace(depth, width, build, input_shape=input_shape)
"""


def test_a_network_of_ones_own(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "compressed_nets.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name, option = "compressed_nets:family", "factor=2"
    space = make_space(name, [option], depth=[1], width=[6], input_shape=(1, 8, 8), classes=2)
    save(tmp_path / "net", space, images)
    arguments = [tmp_path / "net", "--data", images, *SHORT]
    assert "Here: --family module:function" in one_line(*run(*arguments))
    assert "--family-option is for --family" in one_line(
        *run(*arguments, "--family-option", option)
    )
    code, text = run(*arguments, "--family", name, "--family-option", option)
    assert code == 0
    assert "compressed_nets:family(factor=2), depth 1, width 6: " in text
    model, info = load_packed(tmp_path / "net.packed", space)
    assert info.recipe is None
    data = load(images)
    accuracy = evaluate(model, data.validation_x, data.validation_y)
    assert info.properties["accuracy"] == accuracy
    sys.modules.pop("compressed_nets")


def test_a_file_of_other_bits_is_not_the_same(answer: Path, tmp_path: Path) -> None:
    network = load_network(answer, None, torch.device("cpu"))
    target = tmp_path / "a"
    weight = next(network.model.parameters()).detach()
    weight[0] = 0.0
    save_packed(f"{target}.packed", network.model, network.space, network.shape, {})
    assert _same(target, network)
    weight[0] = -0.0
    assert not _same(target, network)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--accuracy-drop", "0.2"], "--accuracy-drop '0.2' is no drop of accuracy"),
        (["--accuracy-drop", "-1%"], "--accuracy-drop '-1%' is no drop of accuracy"),
        (["--accuracy-drop", "100%"], "--accuracy-drop '100%' is no drop of accuracy"),
        (["--data", "stripes"], "DataUnavailable: Unknown data set 'stripes'"),
        (["--data", "digits"], "are 1x12x12, and the network takes 1x8x8"),
        (["--device", "cuda:99"], "There is no device cuda:99"),
        (["--family", "resnet"], "InvalidProblem: --family resnet is built in"),
        (["--output", "/dev/null/x"], "Cannot write /dev/null/x: Not a directory"),
    ],
)
def test_bad_input_is_told_in_a_line(
    answer: Path, images: Path, arguments: list[str], said: str
) -> None:
    assert said in one_line(*run(answer, "--data", images, *arguments))
    assert len(list(answer.parent.iterdir())) == 2


def test_images_are_never_guessed(answer: Path) -> None:
    assert "No checkpoint tells which images" in one_line(*run(answer))


def test_images_of_other_classes_are_an_error(tmp_path: Path, images: Path) -> None:
    space = mlp([1], [4], input_shape=(1, 8, 8), classes=3)
    model = space.build(space.shapes[0])
    save_checkpoint(tmp_path / "net", model, space, space.shapes[0], {})
    line = one_line(*run(tmp_path / "net", "--data", images))
    assert "has 2 classes, and the network tells 3 apart" in line


def test_a_damaged_recipe_is_an_error(answer: Path, images: Path) -> None:
    info = answer.with_suffix(".json")
    settings = json.loads(info.read_text())
    for wrong in ({"head": "none"}, {"colour": 1}):
        info.write_text(json.dumps(settings | {"recipe": settings["recipe"] | wrong}))
        assert "which is no recipe" in one_line(*run(answer, "--data", images))


def test_it_is_a_command_of_the_program() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert re.search(r"compress\s+Compress a trained network", result.output)
