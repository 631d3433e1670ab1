from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from optuna_shape.cli import EXIT_BAD_INPUT
from optuna_shape.cli import EXIT_NO_ANSWER
from optuna_shape.cli import app
from optuna_shape.train.checkpoint import load_checkpoint

# Other processes may keep this machine busy; that is not what is tested here.
SMALL = ["--depth", "1-2", "--width", "4,6,8", "--epochs", "1", "--max-noise", "100"]


def run(*arguments: str, output: Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["search", *arguments, "--output", str(output)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, re.sub(r"\s+", " ", result.output)


def test_search_prints_the_way_to_the_answer_and_saves_it(tmp_path: Path) -> None:
    code, text = run(*SMALL, output=tmp_path)
    assert code == 0
    for said in (
        "space resnet: 6 shapes",
        "goal maximize accuracy",
        "latency <= 50 % of (2, 8)",
        "removed by",
        "trial 0: shape (1, 4): accuracy",
        "Stopped:",
        "The answer",
        "test accuracy",
    ):
        assert said in text, said
    (answer,) = tmp_path.glob("*/answer.safetensors")
    model, info = load_checkpoint(answer.with_suffix(""))
    shape = info.shape
    assert f"depth {shape[0]}, width {shape[1]}" in text
    assert sum(p.numel() for p in model.parameters()) > 0
    assert set(info.properties) >= {"accuracy", "latency", "size", "test_accuracy"}

    # The same question again is answered from the study, without training.
    code, again = run(*SMALL, output=tmp_path)
    assert code == 0
    assert "trial 0:" not in again
    assert f"depth {shape[0]}, width {shape[1]}" in again


def test_search_for_the_smallest_and_resume(tmp_path: Path) -> None:
    question = [*SMALL, "--goal", "size", "--constraint", "accuracy >= 11 %"]
    code, text = run(*question, "--trials", "2", output=tmp_path)
    assert "run it again to go on" in text
    code, text = run(*question, output=tmp_path)
    assert code in (0, EXIT_NO_ANSWER)
    assert "Stopped:" in text


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--constraint", "latency <= 2"], EXIT_BAD_INPUT, "has no unit"),
        (["--constraint", "speed <= 2 ms"], EXIT_BAD_INPUT, "Unknown property"),
        (["--goal", "latency"], EXIT_BAD_INPUT, "needs an accuracy constraint"),
        (["--goal", "beauty"], EXIT_BAD_INPUT, "Unknown goal"),
        (["--family", "alexnet"], EXIT_BAD_INPUT, "Unknown family 'alexnet'"),
        (["--data", "imagenet"], EXIT_BAD_INPUT, "Unknown data set 'imagenet'"),
        (["--depth", "one"], EXIT_BAD_INPUT, "write it like 1-6"),
        (["--depth", "0-2"], EXIT_BAD_INPUT, "every value must be 1 or more"),
        (["--device", "cuda:99"], EXIT_BAD_INPUT, "cuda"),
        (["--constraint", "size <= 1 B"], EXIT_NO_ANSWER, "The nearest, (1, 4)"),
        (["--epochs", "0"], EXIT_BAD_INPUT, "--epochs"),
    ],
)
def test_bad_input_is_told_in_a_line(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    got, text = run(*SMALL, *arguments, output=tmp_path)
    assert said in text
    assert got == code
    assert "Traceback" not in text
