from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from optuna_shape import DesignSpace
from optuna_shape.cli import EXIT_BAD_INPUT
from optuna_shape.cli import EXIT_NOT_VERIFIED
from optuna_shape.cli import app
from optuna_shape.cli._space import make_space
from optuna_shape.constraints import format_quantity
from optuna_shape.families import mlp
from optuna_shape.families import resnet
from optuna_shape.train.checkpoint import load_checkpoint
from optuna_shape.train.checkpoint import save_checkpoint
from optuna_shape.train.recipe import Recipe

INPUT = (1, 12, 12)


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["export", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def save(stem: Path, space: DesignSpace) -> nn.Module:
    torch.manual_seed(0)
    shape = space.shapes[-1]
    model = space.build(shape)
    recipe = Recipe.usual("sgd", head="llr")
    save_checkpoint(stem, model, space, shape, {"accuracy": 0.5}, recipe=recipe)
    return model.eval()


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def answer(tmp_path: Path) -> Path:
    """A search's folder with one answer, and its other networks."""
    stem = tmp_path / "out" / "study-1" / "answer"
    save(stem, resnet([1, 2], [4], input_shape=INPUT))
    save(stem.with_name("trial-0"), resnet([1], [4], input_shape=INPUT))
    return stem


def test_the_answer_of_a_search_is_exported_beside_it(answer: Path) -> None:
    before = {file: file.read_bytes() for file in answer.parent.iterdir()}
    code, text = run(answer.parents[1])
    assert code == 0
    assert set(answer.parent.iterdir()) == {*before, answer.with_suffix(".pt2")}
    assert all(file.read_bytes() == content for file, content in before.items())
    parameters = sum(p.numel() for p in load_checkpoint(answer)[0].parameters())
    for said in (
        "resnet, depth 2, width 4",
        format_quantity("parameters", parameters),
        "any number of 1x12x12, float32, on cpu",
        "answer.safetensors",
        f"Written to {answer.parent}.",
    ):
        assert said in text, said


def test_what_is_printed_loads_the_program(answer: Path) -> None:
    _, text = run(answer)
    lines = re.findall(r"^  (.*torch.*)$", text, re.MULTILINE)
    assert len(lines) == 3
    script = "\n".join([*lines, "print(scores.tolist())"])
    output = subprocess.check_output([sys.executable, "-I", "-c", script], text=True)
    model, _ = load_checkpoint(answer)
    expected = model(torch.zeros(1, *INPUT)).detach()
    torch.testing.assert_close(torch.tensor(json.loads(output)), expected)


def test_all_three_files_go_to_another_folder(answer: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "new"
    code, text = run(f"{answer}.json", "--output", folder, "--verify")
    assert code == 0
    assert {file.name for file in folder.iterdir()} == {
        "answer.json",
        "answer.pt2",
        "answer.safetensors",
    }
    (model, info), (copy, same) = load_checkpoint(answer), load_checkpoint(folder / "answer")
    x = torch.randn(3, *INPUT)
    assert torch.equal(model(x), copy(x))
    assert info == same
    assert same.recipe is not None
    assert (same.recipe["optimizer"], same.recipe["head"]) == ("sgd", "llr")
    assert "Verified on random inputs, batches of 1, 2, 7, 32." in text
    for batch in (1, 32):
        assert re.search(rf"batch {batch}: \d\.\d\d of the network's, interval \d\.", text)
    assert max(map(float, re.findall(r"^  the .*: (\S+)$", text, re.MULTILINE))) < 1e-4


def test_a_batch_size_of_its_own(tmp_path: Path) -> None:
    save(tmp_path / "net", mlp([1], [4], input_shape=(5,)))
    code, text = run(tmp_path / "net", "--batch-size", "3", "--verify")
    assert code == 0
    assert "3 of 5, float32" in text
    assert "torch.zeros(3, 5)" in text
    assert "batches of 3." in text
    assert text.count("latency of the program") == 1


def test_a_script_reads_what_was_written(answer: Path) -> None:
    code, text = run(answer, "--json")
    assert code == 0
    said = json.loads(text)
    names = ("answer.pt2", "answer.safetensors", "answer.json")
    assert said["written"] == [str(answer.with_name(name)) for name in names]
    assert (said["family"], said["depth"], said["width"]) == ("resnet", 2, 4)
    assert said["parameters"] == sum(p.numel() for p in load_checkpoint(answer)[0].parameters())
    assert said["verified"] is said["difference"] is said["latency_ratios"] is None
    said = json.loads(run(answer, "--json", "--verify")[1])
    assert said["verified"] is True
    assert 0 <= said["difference"] < 1e-4
    assert set(said["latency_ratios"]) == {"1", "32"}


@pytest.mark.gpu
def test_a_program_for_a_gpu_stays_there(answer: Path) -> None:
    code, text = run(answer, "--device", "cuda", "--verify")
    assert code == 0
    assert "float32, on cuda:0" in text
    assert 'device="cuda:0"))' in text
    program = torch.export.load(answer.with_suffix(".pt2")).module()
    assert program(torch.zeros(2, *INPUT, device="cuda:0")).device == torch.device("cuda:0")


OWN = """
import math

import torch
from torch import nn

from optuna_shape import DesignSpace


class Net(nn.Module):
    def __init__(self, shape, inputs, classes):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, shape.width),
            *(nn.Linear(shape.width, shape.width) for _ in range(shape.depth)),
            nn.Linear(shape.width, classes),
        )

    def forward(self, x):
        return self.layers(x.flatten(1))


class Noisy(Net):
    def forward(self, x):
        return super().forward(x) + torch.randn(x.shape[0], 1)


class Undecided(Net):
    def forward(self, x):
        return super().forward(x + 1 if x.sum() > 0 else x)


class TwoFaced(Net):
    def forward(self, x):
        return super().forward(x) * (2 if torch.compiler.is_exporting() else 1)


NETS = {"net": Net, "noisy": Noisy, "undecided": Undecided, "two": TwoFaced}


def family(depth, width, input_shape, classes, kind: str = "net", factor: int = 1):
    if min(width) < 4:
        raise ValueError(f"width {width} is too small")

    def build(shape):
        shape = shape._replace(width=factor * shape.width)
        return NETS[kind](shape, math.prod(input_shape), classes)

    return DesignSpace(depth, width, build, input_shape=input_shape)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Checkpoints of a user's own networks, in a folder that holds their module."""
    (tmp_path / "exported_nets.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for kind in ("net", "noisy", "undecided", "two"):
        space = make_space(
            "exported_nets:family",
            [f"kind={kind}", "factor=2"],
            depth=[3],
            width=[4],
            input_shape=(2, 3),
            classes=7,
        )
        save(tmp_path / "nets" / kind, space)
    yield tmp_path / "nets"
    sys.modules.pop("exported_nets")


OPTIONS = ["--family", "exported_nets:family", "--family-option", "factor=2"]
OPTIONS += ["--input-shape", "2x3", "--classes", "7"]


def test_a_network_of_ones_own(own: Path) -> None:
    code, text = run(own / "net", *OPTIONS, "--verify")
    assert code == 0
    assert "exported_nets:family(factor=2), depth 3, width 4" in text
    assert "any number of 2x3" in text
    assert "Verified" in text
    program = torch.export.load(own / "net.pt2").module()
    assert program(torch.zeros(5, 2, 3)).shape == (5, 7)


def test_a_network_whose_outputs_are_random_is_not_verified(own: Path) -> None:
    code, text = run(own / "noisy", *OPTIONS, "--family-option", "kind=noisy", "--verify")
    assert code == EXIT_NOT_VERIFIED
    assert "NOT verified: the outputs of the network itself, called again, differ" in text


def test_a_program_that_computes_something_else_is_not_verified(own: Path) -> None:
    code, text = run(own / "two", *OPTIONS, "--family-option", "kind=two", "--verify")
    assert code == EXIT_NOT_VERIFIED
    assert "NOT verified: the outputs of the exported program differ" in text
    assert "by 1 of the largest output, at a batch of " in text
    code, text = run(own / "two", *OPTIONS, "--family-option", "kind=two", "--verify", "--json")
    assert code == EXIT_NOT_VERIFIED
    assert json.loads(text)["verified"] is False


def one_line(code: int, text: str) -> str:
    assert code == EXIT_BAD_INPUT
    (line,) = text.splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["net"], "Here: --family module:function, with the --family-option of its search"),
        (["net", "--family-option", "factor=2"], "--family-option is for --family module:functi"),
        (["net", "--family", "resnet"], "InvalidProblem: --family resnet is built in"),
        (
            ["net", "--family", "gone:f"],
            "InvalidSpace: --family gone:f: there is no module 'gone'",
        ),
        (["net", *OPTIONS[:2]], "net.safetensors do not fit exported_nets:family (3, 4): "),
        (["net", *OPTIONS, "--classes", "8"], "do not fit exported_nets:family (3, 4)"),
        (["net", *OPTIONS, "--input-shape", "2;3"], "write it like 3x32x32"),
        (["net", *OPTIONS, "--family-option", "kind=x"], "raised KeyError: 'x'"),
        (
            ["undecided", *OPTIONS, "--family-option", "kind=undecided"],
            "ExportFailed: torch.export cannot export the network for any batch size: Guard",
        ),
    ],
)
def test_what_is_wrong_with_ones_own_is_told_in_a_line(
    own: Path, arguments: list[str], said: str
) -> None:
    assert said in one_line(*run(own / arguments[0], *arguments[1:]))
    assert not list(own.glob("*.pt2"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--batch-size", "0"], "--batch-size '0' is no number of inputs"),
        (["--batch-size", "many"], "--batch-size 'many' is no number of inputs"),
        (["--device", "cuda:99"], "There is no device cuda:99"),
        (["--output", "/dev/null/x"], "NotWritten: Cannot write /dev/null/x: Not a directory"),
    ],
)
def test_bad_input_is_told_in_a_line(answer: Path, arguments: list[str], said: str) -> None:
    assert said in one_line(*run(answer, *arguments))
    assert not list(answer.parent.glob("*.pt2"))


def test_folders_without_a_single_answer_say_what_they_hold(answer: Path, tmp_path: Path) -> None:
    other = answer.parents[1] / "study-2" / "answer"
    save(other, resnet([1], [4], input_shape=INPUT))
    line = one_line(*run(answer.parents[1]))
    assert f"holds 2 answers. Name one: {answer}, {other}." in line
    assert run(other.parent)[0] == 0
    (tmp_path / "empty").mkdir()
    line = one_line(*run(tmp_path / "empty"))
    assert f"{tmp_path / 'empty'} holds no answer" in line


def test_damaged_and_missing_checkpoints_are_told_in_a_line(answer: Path) -> None:
    weights = answer.with_suffix(".safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "does not hold the weights" in one_line(*run(answer))
    info = json.loads(answer.with_suffix(".json").read_text())
    info["shape"] = [1, 8]
    answer.with_suffix(".json").write_text(json.dumps(info))
    weights.unlink()
    assert "answer.safetensors cannot be read: No such file" in one_line(*run(answer))
    assert "trial-7.json cannot be read" in one_line(*run(answer.with_name("trial-7")))
    assert not list(answer.parent.glob("*.pt2"))
