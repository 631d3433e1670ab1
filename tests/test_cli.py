from __future__ import annotations

import re
from pathlib import Path

import optuna
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from optuna_shape import DesignSpace
from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape import TableMeter
from optuna_shape.cli import EXIT_BAD_INPUT
from optuna_shape.cli import EXIT_INTERRUPTED
from optuna_shape.cli import EXIT_NO_ANSWER
from optuna_shape.cli import _objective
from optuna_shape.cli import app
from optuna_shape.families import resnet
from optuna_shape.records import StudyRecords
from optuna_shape.report.live import SearchDisplay
from optuna_shape.train.checkpoint import load_checkpoint
from optuna_shape.train.data import digits
from optuna_shape.train.trainer import train

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


def test_an_interrupted_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    question = [*SMALL, "--depth", "1", "--width", "4", "--epochs", "3"]
    question += ["--constraint", "latency <= 1000 s"]

    def interrupt(display: SearchDisplay, trial: optuna.Trial, epoch: int, _: float) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(SearchDisplay, "epoch", interrupt)
    assert run(*question, output=tmp_path)[0] == EXIT_INTERRUPTED
    (kept,) = tmp_path.glob("*/progress-1x4-0.safetensors")
    content = kept.read_bytes()
    reports: list[tuple[int, bool]] = []

    def watch(display: SearchDisplay, trial: optuna.Trial, epoch: int, _: float) -> None:
        reports.append((epoch, kept.read_bytes() == content))

    monkeypatch.setattr(SearchDisplay, "epoch", watch)
    assert run(*question, output=tmp_path)[0] == 0
    # A training begun anew would have written the file before its first report.
    assert reports == [(1, True), (2, True), (3, True)]
    assert not kept.exists()
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert [len(trial.intermediate_values) for trial in study.trials] == [1, 3]


def test_a_replicate_has_weights_and_an_order_of_its_own(tmp_path: Path) -> None:
    space = resnet([1], [4], input_shape=(1, 12, 12), classes=10)
    problem = ShapeProblem(space, "accuracy", epochs=1)
    study = optuna.create_study(direction=problem.direction)
    display = SearchDisplay(problem, study, Console(quiet=True))
    problem.screen(study)
    objective = _objective(problem, display, digits(), tmp_path, torch.device("cpu"), seed=5)
    for number in range(2):
        trial = study.ask()
        # As ShapeSampler does when it repeats a shape on purpose.
        assert StudyRecords(study).claim(trial._trial_id, Shape(1, 4), replicate=True) is None
        study.tell(trial, objective(trial))
        torch.manual_seed(5 + number)
        expected = space.build(Shape(1, 4))
        train(expected, digits(), epochs=1, seed=5 + number)
        saved, _ = load_checkpoint(tmp_path / f"trial-{number}")
        weights = expected.state_dict()
        assert all(torch.equal(t, weights[name]) for name, t in saved.state_dict().items())


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


# Networks of the first tests, measured alone.
GRID = ["--depth", "1-2", "--width", "4,8", "--max-noise", "100"]


def measure(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["measure", *GRID, *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, re.sub(r"\s+", " ", result.output)


def test_measure_writes_a_table_that_a_search_can_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "shapes.csv"
    code, text = measure("--output", str(path))
    assert code == 0
    assert f"Written: {path} for TableMeter" in text
    assert "verdict" not in text
    assert path.with_suffix(".html").is_file()
    space = DesignSpace([1, 2], [4, 8])
    for quantity in ("latency", "size", "parameters", "flops"):
        measured = TableMeter(path).measure(space, space.shapes, quantity)
        assert all(0 <= m.low <= m.value <= m.high for m in measured.values())


def test_measure_judges(tmp_path: Path) -> None:
    path = tmp_path / "shapes.csv"
    limits = ["--constraint", "size <= 50 kB", "--constraint", "latency <= 1 h"]
    code, text = measure(*limits[:2], "--mode", "exhaustive", "--output", str(path))
    assert code == 0
    assert "2 of 4 shapes are within every limit." in text
    assert "over: size" in text
    assert len(TableMeter(path).measure(DesignSpace([1, 2], [8]), [Shape(2, 8)], "latency")) == 1
    assert measure(*limits, "--output", str(path))[0] == EXIT_BAD_INPUT


def test_measure_says_that_an_estimate_is_one(tmp_path: Path) -> None:
    path = tmp_path / "shapes.csv"
    code, text = measure("--energy", "--watts", "45", "--output", str(path))
    assert code == 0
    assert "(estimate)" in text
    assert "energy estimated at 45 W" in path.read_text()
    small = Shape(1, 8)
    table = TableMeter(path)
    space = DesignSpace([1, 2], [8])
    seconds = table.measure(space, [small], "latency")[small].value
    joules = table.measure(space, [small], "energy")[small].value
    assert 0 < joules < 45 * 100 * seconds


def test_measure_repeats_in_processes_of_their_own() -> None:
    code, text = measure("--repeat", "2", "--depth", "1")
    assert code == 0
    for said in ("session 1", "session 2", "90th percentile", "--guard 0."):
        assert said in text, said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--input-shape", "1;12;12"], "write it like 3x32x32"),
        (["--input-shape", "0x12x12"], "no shape of one input"),
        (["--constraint", "accuracy >= 90 %"], "Accuracy is learned by training"),
        (["--constraint", "size <= 1 kB", "--constraint", "size <= 2 kB"], "more than once"),
        (["--mode", "quick"], "Unknown mode 'quick'"),
        (["--repeat", "1"], "--repeat"),
        (["--repeat", "2", "--constraint", "latency <= 1 ms"], "leave --constraint"),
        (["--guard", "7"], "guard"),
        (["--dtype", "int8"], "dtype"),
        (["--classes", "1"], "Give 2 or more"),
        (["--output", "/dev/null/shapes.csv"], "Cannot write"),
        (["--output", "/"], "Cannot write"),
        (["--output", "/tmp/shapes.html"], "let it end in .csv"),
    ],
)
def test_bad_input_of_measure_is_told_in_a_line(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    code, text = measure("--output", str(tmp_path / "shapes.csv"), *arguments)
    assert said in text
    assert code == EXIT_BAD_INPUT
    assert "Traceback" not in text
    assert not list(tmp_path.iterdir())
