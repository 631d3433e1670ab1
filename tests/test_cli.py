from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from typer.testing import CliRunner

from optuna_shape import DesignSpace
from optuna_shape import InvalidCheckpoint
from optuna_shape import InvalidSpace
from optuna_shape import Shape
from optuna_shape import ShapeTerminator
from optuna_shape import TableMeter
from optuna_shape.cli import EXIT_BAD_INPUT
from optuna_shape.cli import EXIT_FAILED
from optuna_shape.cli import EXIT_INTERRUPTED
from optuna_shape.cli import EXIT_NO_ANSWER
from optuna_shape.cli import EXIT_TOO_NOISY
from optuna_shape.cli import app
from optuna_shape.cli._job import Job
from optuna_shape.cli._space import make_space
from optuna_shape.cli._space import options_of_family
from optuna_shape.cli._workers import threads_of
from optuna_shape.families import FAMILIES
from optuna_shape.families import mlp
from optuna_shape.families import nasnet
from optuna_shape.families import resnet
from optuna_shape.families import vit
from optuna_shape.records import StudyRecords
from optuna_shape.train.checkpoint import load_checkpoint
from optuna_shape.train.data import digits
from optuna_shape.train.recipe import Recipe
from optuna_shape.train.trainer import train

# Other processes may keep this machine busy; that is not what is tested here.
SMALL = ["--depth", "1-2", "--width", "4,6,8", "--epochs", "1", "--max-noise", "100"]


def run(*arguments: str, output: Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["search", *arguments, "--output", str(output)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, re.sub(r"\s+", " ", result.output)


def studies(output: Path) -> list[optuna.Study]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{output / 'study.db'}")
    names = optuna.get_all_study_names(storage)
    return [optuna.load_study(study_name=name, storage=storage) for name in names]


def test_search_prints_the_way_to_the_answer_and_saves_it(tmp_path: Path) -> None:
    # Of four depths, half the latency of the largest leaves some, however busy the machine is.
    question = [*SMALL, "--depth", "1-4"]
    code, text = run(*question, output=tmp_path)
    assert code == 0, text
    for said in (
        "space resnet: 12 shapes",
        "goal maximize accuracy",
        "latency <= 50 % of (4, 8)",
        "removed by",
        "trial 0: shape (",
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

    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.db'}")
    complete = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    assert len(complete) == len(study.trials), "nothing is cut short unless --prune is given"

    # The same question again is answered from the study, without training.
    code, again = run(*question, output=tmp_path)
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


@pytest.mark.parametrize("after", [2, 3])
def test_an_interrupted_training_goes_on(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = [*SMALL, "--depth", "1", "--width", "4", "--epochs", "3"]
    question += ["--constraint", "latency <= 1000 s"]

    report = optuna.Trial.report

    def interrupt(trial: optuna.Trial, accuracy: float, epoch: int) -> None:
        report(trial, accuracy, epoch)
        if epoch == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(optuna.Trial, "report", interrupt)
    arguments = ["search", *question, "--json", "--output", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == EXIT_INTERRUPTED
    assert json.loads(result.stdout)["error"]["kind"] == "Interrupted"
    assert "Go on with:" in result.stderr
    (kept,) = tmp_path.glob("*/progress-1x4-0.safetensors")
    content = kept.read_bytes()
    reports: list[tuple[int, bool]] = []

    def watch(trial: optuna.Trial, accuracy: float, epoch: int) -> None:
        report(trial, accuracy, epoch)
        reports.append((epoch, kept.read_bytes() == content))

    monkeypatch.setattr(optuna.Trial, "report", watch)
    assert run(*question, output=tmp_path)[0] == 0
    # A training begun anew would have written the file before its first report.
    assert reports == [(epoch, epoch <= after) for epoch in (1, 2, 3)]
    assert not kept.exists()
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert [len(trial.intermediate_values) for trial in study.trials] == [after, 3]


def job(output: Path, **changes: Any) -> Job:
    """The search for the most accurate network of one shape."""
    settings: dict[str, Any] = {
        "family": "resnet",
        "family_options": (),
        "data": "digits",
        "data_root": None,
        "depth": (1,),
        "width": (4,),
        "goal": "accuracy",
        "constraints": ("size <= 1 GB",),
        "epochs": 1,
        "recipe": Recipe(),
        "transfer": False,
        "prune": False,
        "device": "cpu",
        "batch_size": 1,
        "threads": 1,
        "max_noise": 100.0,
        "watts": None,
        "seed": 5,
        "output": output,
        "storage": None,
        "study_name": "a study",
    }
    return Job(**{**settings, **changes})


def test_a_replicate_has_weights_and_an_order_of_its_own(tmp_path: Path) -> None:
    search = job(tmp_path, recipe=Recipe(head="llr")).open()
    # One whose sampler does not end the search after its only shape.
    search = replace(search, study=optuna.create_study(direction="maximize"))
    study, objective = search.study, search.objective()
    search.problem.screen(study)
    for number in range(2):
        trial = study.ask()
        # As ShapeSampler does when it repeats a shape on purpose.
        assert StudyRecords(study).claim(trial._trial_id, Shape(1, 4), replicate=True) is None
        study.tell(trial, objective(trial))
        torch.manual_seed(5 + number)
        expected = search.problem.space.build(Shape(1, 4))
        train(expected, digits(), epochs=1, seed=5 + number, recipe=Recipe(head="llr"))
        saved, _ = load_checkpoint(search.folder / f"trial-{number}")
        weights = expected.state_dict()
        assert all(torch.equal(t, weights[name]) for name, t in saved.state_dict().items())


def test_a_training_that_diverged_is_tried_again_otherwise(tmp_path: Path) -> None:
    # Without normalisation, this learning rate leads to NaN.
    search = job(tmp_path, family="mlp", recipe=Recipe(learning_rate=1e30)).open()
    search.problem.screen(search.study)
    seeds = []
    objective = search.objective()

    def watched(trial: optuna.Trial) -> float:
        try:
            return objective(trial)
        finally:
            seeds.append(torch.initial_seed())

    search.study.optimize(watched, n_trials=5, callbacks=[ShapeTerminator(search.problem)])
    first, second = search.study.trials[:2]
    assert first.state == second.state == optuna.trial.TrialState.FAIL
    assert seeds[:2] == [5, 6]
    assert "nan" in str(first.user_attrs).lower()
    assert list(search.folder.glob("trial-*")) == []


def test_a_search_allows_for_what_differs_between_sessions(tmp_path: Path) -> None:
    question = [*SMALL, "--constraint", "latency <= 1 s", "--trials", "1", "--guard", "0.12"]
    assert run(*question, output=tmp_path)[0] == 0
    (study,) = studies(tmp_path)
    screening = StudyRecords(study).screening()
    assert screening is not None
    assert "guard 12.00%" in screening["fingerprint"]


def test_transfer_makes_heirs_which_train_for_less(tmp_path: Path) -> None:
    question = ["--depth", "1", "--width", "6,8,16", "--epochs", "3", "--max-noise", "100"]
    question += ["--constraint", "size <= 1 MB", "--transfer"]
    assert run(*question, output=tmp_path)[0] == 0
    (study,) = studies(tmp_path)
    parents = {t.params["width"]: t.user_attrs.get("parent") for t in study.trials}
    assert len(parents) == 3
    # Of the near two one inherits from the other; the third has too many parameters.
    assert sorted(parents[width] is None for width in (6, 8)) == [False, True]
    assert parents[16] is None
    for trial in study.trials:
        heir = "parent" in trial.user_attrs
        assert len(trial.intermediate_values) == (2 if heir else 3)
        assert (tmp_path / study.study_name / f"trial-{trial.number}.safetensors").exists()
    assert list(tmp_path.glob("*/progress-*")) == []
    assert list(tmp_path.glob("*/answer.safetensors"))


def test_a_script_reads_json(tmp_path: Path) -> None:
    question = [*SMALL, "--constraint", "size <= 1 MB", "--trials", "2", "--json"]
    result = CliRunner().invoke(app, ["search", *question, "--output", str(tmp_path)])
    assert result.exit_code == 0
    said = json.loads(result.stdout)
    (study,) = studies(tmp_path)
    best = study.best_trial
    assert said["study"] == study.study_name
    assert said["constraints"] == ["size <= 1 MB"]
    assert (said["shapes"], said["feasible"], said["trained"], said["stop"]) == (6, 6, 2, None)
    answer = said["answer"]
    assert answer["accuracy"] == best.value
    assert (answer["depth"], answer["width"]) == (best.params["depth"], best.params["width"])
    assert answer["size"] == best.user_attrs["size"]
    assert answer["energy"] is None
    assert 0 <= answer["test_accuracy"] <= 1
    assert Path(answer["checkpoint"]).exists()
    weights, described = map(Path, said["written"])
    assert weights == Path(answer["checkpoint"])
    assert described == weights.with_suffix(".json")
    assert described.exists()

    unmet = [*question, "--goal", "size", "--constraint", "accuracy >= 100 %"]
    result = CliRunner().invoke(app, ["search", *unmet, "--output", str(tmp_path)])
    assert result.exit_code == EXIT_NO_ANSWER
    said = json.loads(result.stdout)
    assert (said["answer"], said["written"]) == (None, [])

    result = CliRunner().invoke(app, ["search", *question, "--goal", "beauty"])
    assert result.exit_code == EXIT_BAD_INPUT
    (error,) = json.loads(result.stdout).values()
    assert error["kind"] == "InvalidProblem"
    assert error["message"].startswith("Unknown goal 'beauty'")
    assert f"InvalidProblem: {error['message']}" in result.stderr.replace("\n", " ")


def test_an_output_that_is_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, text = run(*SMALL, "--constraint", "size <= 1 MB", output=tmp_path / "file")
    assert code == EXIT_BAD_INPUT
    assert f"Cannot write {tmp_path / 'file'}: File exists." in text


def test_quiet_says_the_answer_only(tmp_path: Path) -> None:
    question = [*SMALL, "--constraint", "size <= 1 MB", "--trials", "2", "--quiet"]
    code, text = run(*question, output=tmp_path)
    assert code == 0
    assert text.startswith("The answer shape depth")
    assert "Stopped" not in text


def test_several_workers_share_a_search(tmp_path: Path) -> None:
    question = [*SMALL, "--constraint", "size <= 1 MB"]
    code, text = run(*question, "--workers", "2", "--trials", "5", output=tmp_path)
    assert code == 0
    (study,) = studies(tmp_path)
    assert len(study.trials) == 5
    shapes = [(t.params["depth"], t.params["width"]) for t in study.trials]
    assert len(set(shapes)) == 5
    for number, shape in enumerate(shapes):
        assert f"trial {number}: shape {Shape(*shape)}: accuracy" in text
    # Each process is a worker of its own.
    claims = [str(t.system_attrs) for t in study.trials]
    workers = {re.search(r"'worker': '([^']+)'", claim)[1] for claim in claims}  # type: ignore[index]
    assert len(workers) == 2
    # Alone, it goes on where they left it.
    code, text = run(*question, output=tmp_path)
    assert code == 0
    assert "Stopped:" in text


@pytest.mark.parametrize(
    ("number", "to_all"),
    [
        (signal.SIGINT, True),
        pytest.param(signal.SIGTERM, False, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, True, marks=pytest.mark.slow),
    ],
)
def test_an_interruption_ends_all_workers_and_keeps_what_they_have(
    number: signal.Signals, to_all: bool, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", "from optuna_shape.cli import main; main()", "search"]
    command += [*SMALL, "--constraint", "size <= 1 MB", "--epochs", "200"]
    command += ["--workers", "2", "--output", str(tmp_path)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        for _ in range(600):
            if len(list(tmp_path.glob("*/progress-*.safetensors"))) == 2:
                break
            time.sleep(0.2)
            assert process.poll() is None, process.communicate()
        if to_all:  # As a terminal does.
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == EXIT_INTERRUPTED
    assert "Interrupted" in errors
    assert "Traceback" not in errors
    (study,) = studies(tmp_path)
    assert [t.user_attrs["reason"] for t in study.trials] == ["interrupted", "interrupted"]
    assert len(list(tmp_path.glob("*/progress-*.safetensors"))) == 2


@pytest.mark.parametrize(
    ("threads", "workers", "each"), [(1, 1, 1), (1, 4, 1), (1000, 1, None), (8, 1000, 1)]
)
def test_workers_divide_the_cores(threads: int, workers: int, each: int | None) -> None:
    cores = len(os.sched_getaffinity(0))
    assert threads_of(threads, workers) == (cores if each is None else each)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--constraint", "latency <= 2"], EXIT_BAD_INPUT, "has no unit"),
        (["--constraint", "speed <= 2 ms"], EXIT_BAD_INPUT, "Unknown property"),
        (["--goal", "latency"], EXIT_BAD_INPUT, "needs an accuracy constraint"),
        (["--goal", "beauty"], EXIT_BAD_INPUT, "Unknown goal"),
        (["--family", "alexnet"], EXIT_BAD_INPUT, "Unknown family 'alexnet'"),
        (["--family-option", "block=wide"], EXIT_BAD_INPUT, "It has: variant=plain|bottleneck|"),
        (["--family-option", "variant=thin"], EXIT_BAD_INPUT, "Give: plain|bottleneck|wide."),
        (["--family-option", "variant"], EXIT_BAD_INPUT, "Write name=value."),
        (["--family", "mlp", "--family-option", "x=1"], EXIT_BAD_INPUT, "It has none."),
        (["--data", "imagenet"], EXIT_BAD_INPUT, "Unknown data set 'imagenet'"),
        (["--depth", "one"], EXIT_BAD_INPUT, "write it like 1-6"),
        (["--depth", "0-2"], EXIT_BAD_INPUT, "every value must be 1 or more"),
        (["--device", "cuda:99"], EXIT_BAD_INPUT, "cuda"),
        (["--constraint", "size <= 1 B"], EXIT_NO_ANSWER, "The nearest, (1, 4)"),
        (["--epochs", "0"], EXIT_BAD_INPUT, "--epochs"),
        (["--recipe", "optimiser=sgd"], EXIT_BAD_INPUT, "It has: optimizer=adamw|sgd, batch_size"),
        (["--recipe", "optimizer=lion"], EXIT_BAD_INPUT, "Give: adamw|sgd."),
        (["--recipe", "learning_rate=fast"], EXIT_BAD_INPUT, "Give: number."),
        (["--recipe", "learning_rate=-1"], EXIT_BAD_INPUT, "Give a number above 0."),
        (["--recipe", "sgd"], EXIT_BAD_INPUT, "Write name=value."),
        (["--transfer", "--prune"], EXIT_BAD_INPUT, "Leave one of them out."),
        (["--workers", "0"], EXIT_BAD_INPUT, "--workers"),
        (["--wait", "1"], EXIT_BAD_INPUT, "leave --wait out"),
        (["--train-only"], EXIT_BAD_INPUT, "Give the --storage and --study-name"),
        (["--seed", "-1"], EXIT_BAD_INPUT, "--seed"),
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
    one = ["--depth", "1", "--width", "8"]
    code, text = measure(*one, "--energy", "--watts", "45", "--output", str(path))
    assert code == 0
    assert "(estimate)" in text
    assert "energy estimated at 45 W" in path.read_text()
    small = Shape(1, 8)
    table = TableMeter(path)
    space = DesignSpace([1], [8])
    seconds = table.measure(space, [small], "latency")[small].value
    joules = table.measure(space, [small], "energy")[small].value
    assert 0 < joules < 45 * 100 * seconds
    arguments = ["--energy", "--watts", "45", "--json", "--output", str(path)]
    result = CliRunner().invoke(app, ["measure", *GRID, *one, *arguments])
    for row in json.loads(result.stdout)["rows"]:
        assert row["energy"] > 0
        assert row["energy_note"] == "estimate: 45 W x latency"
        assert "latency_note" not in row


def test_measure_repeats_in_processes_of_their_own() -> None:
    code, text = measure("--repeat", "2", "--depth", "1")
    assert code == 0
    for said in ("session 1", "session 2", "90th percentile"):
        assert said in text, said
    # A machine may be too busy for any guard.
    assert "Suggested guard: " in text or "No guard allows for that" in text


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
        (["--output", "/"], "let it end in .csv"),
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


def test_a_program_reads_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "shapes.csv"
    limit = ["--constraint", "size <= 50 kB", "--output", str(path)]
    result = CliRunner().invoke(app, ["measure", *GRID, *limit, "--json"])
    assert result.exit_code == 0
    said = json.loads(result.stdout)
    assert said["written"] == [str(path), str(path.with_suffix(".html"))]
    assert said["constraints"] == ["size <= 50 kB"]
    assert (said["feasible"], len(said["rows"])) == (2, 4)
    space = DesignSpace([1, 2], [4, 8])
    sizes = TableMeter(path).measure(space, space.shapes, "size")
    for row, shape in zip(said["rows"], space.shapes):
        assert (row["depth"], row["width"]) == shape
        assert row["size"] == sizes[shape].value
        assert (row["verdict"] == "within") == (row["size"] <= 50e3)
    measured = TableMeter(path).measure(space, [Shape(1, 4)], "latency")[Shape(1, 4)]
    first = said["rows"][0]
    ends = (measured.value, measured.low, measured.high)
    assert (first["latency"], first["latency_low"], first["latency_high"]) == ends

    quiet = CliRunner().invoke(app, ["measure", *GRID, *limit, "--quiet"])
    assert quiet.stdout.splitlines() == [
        "2 of 4 shapes are within every limit.",
        f"Written: {path} for TableMeter, {path.with_suffix('.html')} as a picture.",
    ]


def test_a_program_reads_how_far_sessions_lie_apart() -> None:
    result = CliRunner().invoke(app, ["measure", *GRID, "--repeat", "2", "--depth", "1", "--json"])
    assert result.exit_code == 0
    said = json.loads(result.stdout)
    assert said["sessions"] == 2
    assert [(row["depth"], row["width"]) for row in said["rows"]] == [(1, 4), (1, 8)]
    assert all(len(row["latencies"]) == 2 for row in said["rows"])
    # None is the answer of a machine that is too busy to measure on.
    assert said["sigma"] >= 0
    assert said["guard"] == (None if said["sigma"] > 0.45 else max(0.02, 2 * said["sigma"]))


def families(**environment: str) -> list[str]:
    result = CliRunner().invoke(app, ["families"], env=environment)
    assert result.exit_code == 0
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in result.output.splitlines()]


def test_families_are_listed_a_line_each_where_programs_read() -> None:
    lines = families()
    for name, function in FAMILIES.items():
        (line,) = [line for line in lines if line.startswith(f"{name}: ")]
        assert (function.__doc__ or "").splitlines()[0] in line
        assert "--depth 1" in line
        assert "--width " in line
    assert any("5.01 k to 1.26 M parameters; variant=plain|bottleneck|wide; " in x for x in lines)
    assert any("patch_size=none|integer; head_size=64" in line for line in lines)
    assert "--family module:function" in lines[-1]


@pytest.mark.parametrize("columns", [80, 120])
def test_families_fit_into_a_terminal(columns: int) -> None:
    lines = families(FORCE_COLOR="1", COLUMNS=str(columns))
    assert max(map(len, lines)) <= columns
    text = "\n".join(lines)
    for whole in ("variant=plain|bottleneck|wide", "--width 8,16,32,64,128,256", "drop_path=0.4"):
        assert whole in text
    assert "\u2026" not in text  # Where rich cuts a word short.


OWN = """
from __future__ import annotations

import math
from typing import TYPE_CHECKING
from typing import Literal

from torch import nn

from optuna_shape import DesignSpace
from optuna_shape.families import resnet

if TYPE_CHECKING:
    from elsewhere import Unknown


class Net(nn.Module):
    def __init__(self, shape, inputs, classes):
        super().__init__()
        layer = nn.Linear(shape.width, shape.width)
        self.first = nn.Linear(inputs, shape.width)
        self.body = nn.ModuleList([layer] * shape.depth)  # Tied weights.
        self.last = nn.Linear(shape.width, classes)

    def forward(self, x):
        x = self.first(x.flatten(1))
        for layer in self.body:
            x = layer(x).relu()
        return self.last(x)


def tied(depth, width, *, input_shape, classes, factor: int = 1):
    def build(shape):
        return Net(shape._replace(width=factor * shape.width), math.prod(input_shape), classes)

    return DesignSpace(depth, width, build, input_shape=input_shape)


def options(
    depth, width, input_shape, classes, *, a: bool = False, b: float = 0.5, c: int | None = None,
    d: Literal["x", "y"] = "x", e="text", f=2, g: tuple[int, ...] = (1,),
):
    options.got = [a, b, c, d, e, f]
    return tied(depth, width, input_shape=input_shape, classes=classes)


def unknown(depth, width, input_shape, classes, c: int | None = None, h: Unknown = 0.5):
    unknown.got = [c, h]
    return tied(depth, width, input_shape=input_shape, classes=classes)


def wide(width=(4, 8), depth=(1, 2), **common):
    return resnet(depth, width, variant="wide", **common)


number = 3


def few(depth, width):
    pass


def more(depth, width, input_shape, classes, kernel):
    pass


def listed(depth, width, input_shape, classes):
    return [depth, width]


def raises(depth, width, input_shape, classes):
    return 1 + "[bold] :one:"


def no_resnet(depth, width, input_shape, classes):
    return resnet(depth, width, input_shape=input_shape, classes=classes, stem="imagenet")


def forgets(depth, width, input_shape, classes):
    return DesignSpace(depth, width, lambda shape: nn.Linear(1, 1))


def unbuilt(depth, width, input_shape, classes):
    return DesignSpace(depth, width, lambda shape: nn.Linear("a", 1), input_shape=input_shape)


def unfit(depth, width, input_shape, classes):
    return DesignSpace(depth, width, lambda shape: nn.Linear(1, 1), input_shape=input_shape)


def one(depth, width, input_shape, classes):
    return tied(depth, width, input_shape=input_shape, classes=classes + 1)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in that holds modules of the user's own."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "own_nets.py").write_text(OWN)
    (folder / "own_broken.py").write_text("import not_installed")
    (folder / "own_wrong.py").write_text("def f(:")
    (folder / "own_script.py").write_text("raise SystemExit(0)")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


DEADLY = """
import os
import sys
from multiprocessing import parent_process

from torch import nn

from optuna_shape import DesignSpace


class Net(nn.Sequential):
    def forward(self, x):
        if self.training and parent_process():
            print("a last word", file=sys.stderr, flush=True)
            os._exit(7)
        return super().forward(x)


def deadly(depth, width, input_shape, classes):
    def build(shape):
        return Net(nn.Flatten(), nn.Linear(144, shape.width), nn.Linear(shape.width, classes))

    return DesignSpace(depth, width, build, input_shape=input_shape)
"""


def test_a_worker_that_dies_is_told(own: Path, tmp_path: Path) -> None:
    (own / "own_deadly.py").write_text(DEADLY)
    question = [*SMALL, "--family", "own_deadly:deadly", "--constraint", "size <= 1 GB"]
    code, text = run(*question, "--workers", "2", "--trials", "4", output=tmp_path)
    for number in range(2):
        (log,) = tmp_path.glob(f"*/worker-*-{number}.log")
        assert f"exit code 7. What it trained before is kept. {log}: a last word" in text
    assert code == EXIT_FAILED


def test_workers_that_all_fail_are_no_success(own: Path, tmp_path: Path) -> None:
    (own / "own_deadly.py").write_text(DEADLY)
    question = [*SMALL, "--family", "own_deadly:deadly", "--constraint", "size <= 1 GB"]
    # Alone, a process of no command trains.
    assert run(*question, "--trials", "1", output=tmp_path)[0] == 0
    code, text = run(*question, "--workers", "2", "--trials", "2", output=tmp_path)
    assert "a last word" in text
    assert code == EXIT_FAILED


NOISY = """
from multiprocessing import parent_process

from torch import nn

from optuna_shape import DesignSpace
from optuna_shape import NoisyMachine


class Net(nn.Sequential):
    def forward(self, x):
        if self.training and parent_process():
            raise NoisyMachine("too much else runs here")
        return super().forward(x)


def noisy(depth, width, input_shape, classes):
    def build(shape):
        return Net(nn.Flatten(), nn.Linear(144, shape.width), nn.Linear(shape.width, classes))

    return DesignSpace(depth, width, build, input_shape=input_shape)
"""


def test_workers_that_find_the_machine_too_noisy_say_so(own: Path, tmp_path: Path) -> None:
    (own / "own_noisy.py").write_text(NOISY)
    question = [*SMALL, "--family", "own_noisy:noisy", "--constraint", "size <= 1 GB"]
    code, text = run(*question, "--workers", "2", "--trials", "2", output=tmp_path)
    assert code == EXIT_TOO_NOISY
    assert "NoisyMachine: too much else runs here" in text
    assert "NoisyMachine: None of 2 workers has ended as it should." in text


@pytest.mark.parametrize("storage", ["sqlite://", "sqlite:///:memory:"])
def test_workers_need_a_storage_that_they_share(storage: str, tmp_path: Path) -> None:
    question = [*SMALL, "--constraint", "size <= 1 MB", "--storage", storage]
    code, text = run(*question, "--workers", "2", output=tmp_path)
    assert code == EXIT_BAD_INPUT
    assert "Leave --storage out, or give a .db or .sqlite file" in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seed", "1"], "seed is 0 there and 1 here"),
        (["--transfer"], "transfer is False there and True here"),
        (["--recipe", "head=llr"], "recipe head is 'softmax' there and 'llr' here"),
    ],
)
def test_a_study_trains_all_its_networks_alike(
    options: list[str], said: str, tmp_path: Path
) -> None:
    question = [*SMALL, "--constraint", "size <= 1 MB", "--study-name", "mine", "--trials", "1"]
    assert run(*question, output=tmp_path)[0] == 0
    code, text = run(*question, *options, output=tmp_path)
    assert code == EXIT_BAD_INPUT
    assert said in text
    # By default it is another study.
    question[question.index("--study-name") :] = ["--trials", "1"]
    assert run(*question, output=tmp_path)[0] == 0
    assert run(*question, *options, output=tmp_path)[0] == 0
    assert len(studies(tmp_path)) == 3


def test_a_search_among_networks_of_ones_own(own: Path, tmp_path: Path) -> None:
    question = [*SMALL, "--family", "own_nets:tied", "--constraint", "size <= 1 MB"]
    question += ["--family-option", "factor=2"]
    code, text = run(*question, "--trials", "2", output=tmp_path / "out")
    assert code == 0
    assert "space own_nets:tied(factor=2): 6 shapes" in text
    (answer,) = (tmp_path / "out").glob("own_nets-tied-factor-2-digits-*/answer.json")
    with pytest.raises(InvalidCheckpoint, match="load_checkpoint\\(path, space\\)"):
        load_checkpoint(answer)
    space = make_space(
        "own_nets:tied", ["factor=2"], depth=[1, 2], width=[4, 6, 8], input_shape=(1, 12, 12),
        classes=10,
    )  # fmt: skip
    model, info = load_checkpoint(answer, space)
    assert info.family is None
    assert f"depth {info.shape.depth}, width {info.shape.width}" in text
    assert model(torch.zeros(3, 1, 12, 12)).shape == (3, 10)

    # It goes on where it ended, and does not take another family's study for its own.
    code, text = run(*question, "--trials", "1", output=tmp_path / "out")
    assert code == 0
    assert "trial 2:" in text
    question += ["--study-name", answer.parent.name, "--family-option", "factor=1"]
    code, text = run(*question, output=tmp_path / "out")
    assert code == EXIT_BAD_INPUT
    assert "is about the family own_nets:tied(factor=2), not own_nets:tied(factor=1)" in text


def test_a_function_of_ones_own_may_return_a_builtin_family(own: Path, tmp_path: Path) -> None:
    options = ["--epochs", "1", "--max-noise", "100", "--constraint", "size <= 1 MB"]
    code, text = run(*options, "--family", "own_nets:wide", "--trials", "1", output=tmp_path)
    assert code == 0
    assert "depth 1, 2, width 4, 8" in text  # Its own defaults.
    (answer,) = tmp_path.glob("*/answer.json")
    _, info = load_checkpoint(answer)
    assert info.family is not None
    assert info.family["options"]["variant"] == "wide"


def test_a_network_that_no_longer_fits_is_told(
    own: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    question = [*SMALL, "--depth", "1", "--width", "4", "--constraint", "size <= 1 MB"]
    question += ["--family", "own_nets:tied"]
    assert run(*question, output=tmp_path / "out")[0] == 0
    (own / "own_nets.py").write_text(OWN.replace("self.last", "self.head"))
    del sys.modules["own_nets"]
    optuna.logging.enable_propagation()
    try:
        code, text = run(*question, output=tmp_path / "out")
    finally:
        optuna.logging.disable_propagation()
    assert code == 0
    assert "trial 0 made it" in text
    assert "do not fit own_nets:tied" in caplog.text


def test_networks_of_ones_own_are_measured(own: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "shapes.csv")
    code, text = measure("--family", "own_nets:tied", "--output", path)
    assert code == 0
    assert f"Written: {path}" in text
    assert measure("--family", "own_nets:one", "--output", path)[0] == EXIT_BAD_INPUT


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("own_gone:f", "there is no module 'own_gone'"),
        ("own_nets.py:tied", "without .py"),
        ("own_nets.gone:f", "there is no module 'own_nets.gone'"),
        ("work/own_nets:tied", "is no module:function"),
        ("own_nets:", "is no module:function"),
        (":tied", "is no module:function"),
        ("own_nets:gone", "has no function 'gone'"),
        ("own_nets:number", "own_nets:number is of type int, not a function"),
        ("own_nets:few", "unexpected keyword argument 'input_shape'. It must accept depth,"),
        ("own_nets:more", "missing a required argument: 'kernel'. It must accept depth,"),
        ("builtins:dict", "builtins:dict does not tell its arguments"),
        ("own_nets:listed", "own_nets:listed returned list, not a DesignSpace"),
        (
            "own_nets:raises",
            "own_nets:raises raised TypeError: unsupported operand type(s) for +: 'int' and 'str' "
            "(own_nets.py, line ",
        ),
        ("own_nets:no_resnet", "own_nets:no_resnet raised InvalidSpace: input_shape=(1, 12, 12)"),
        ("own_nets:forgets", "input_shape=None, but the inputs are (1, 12, 12)"),
        ("own_nets:unbuilt", "own_nets:unbuilt: the network of shape (1, 4) does not run"),
        ("own_nets:unfit", "own_nets:unfit: the network of shape (1, 4) does not run"),
        ("own_nets:one", "own_nets:one: for 2 inputs of (1, 12, 12), the network of shape (1, 4)"),
        ("own_broken:f", "importing own_broken raised ModuleNotFoundError: No module named 'not_"),
        ("own_wrong:f", "importing own_wrong raised SyntaxError: invalid syntax (own_wrong.py,"),
        ("own_script:f", "importing own_script raised SystemExit"),
    ],
)
def test_what_is_wrong_with_ones_own_is_told_in_a_line(
    own: Path, tmp_path: Path, family: str, said: str
) -> None:
    arguments = ["search", *SMALL, "--family", family, "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert said in result.output
    assert len(result.output.splitlines()) == 1
    assert result.exit_code == EXIT_BAD_INPUT
    assert not (tmp_path / "out").exists()


def test_a_family_without_default_shapes_asks_for_them(own: Path, tmp_path: Path) -> None:
    code, text = run("--family", "own_nets:tied", "--depth", "1", output=tmp_path / "out")
    assert "own_nets:tied has no default width. Give --width" in text
    assert code == EXIT_BAD_INPUT


COMMON = {"depth": [1], "width": [192], "input_shape": (3, 32, 32), "classes": 10}


def test_options_are_read_as_the_function_declares_them(own: Path) -> None:
    def got(function: str, *options: str) -> list[object]:
        make_space(f"own_nets:{function}", options, **COMMON)  # type: ignore[arg-type]
        result: list[object] = getattr(sys.modules["own_nets"], function).got
        return result

    given = got("options", "a=true", "b=1", "c=3", "d=y", "e=a=b", "f=-1")
    assert given == [True, 1.0, 3, "y", "a=b", -1]
    assert [type(value) for value in given] == [bool, float, int, str, str, int]
    assert got("options", "c=none")[2] is None
    assert got("unknown", "c=3", "h=2.5") == [3, 2.5]  # Annotations that Python cannot tell.
    for wrong, said in [
        ("a=1", "Give: true|false."),
        ("b=x", "Give: number."),
        ("c=2.5", "Give: none|integer."),
        ("d=z", "Give: x|y."),
        ("g=1", "of a type that no text can give"),
        ("depth=3", "has no option 'depth'. It has: a=false, b=0.5, c=none|integer, d=x|y, "),
    ]:
        with pytest.raises(InvalidSpace, match=re.escape(said)):
            got("options", wrong)


def test_options_of_builtin_families() -> None:
    for family, options, expected in [
        ("resnet", ["variant=bottleneck", "stem=imagenet"], resnet),
        ("nasnet", ["stem_filters=5", "drop_path=0"], nasnet),
        ("vit", ["patch_size=none", "head_size=32"], vit),
        ("mlp", [], mlp),
    ]:
        space = make_space(family, options, **COMMON)  # type: ignore[arg-type]
        values = {
            name: options_of_family(expected)[name].read(text)
            for name, _, text in (option.partition("=") for option in options)
        }
        assert space.builder == expected(**COMMON, **values).builder  # type: ignore[arg-type]
        assert space.name == family
