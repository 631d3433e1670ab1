"""Storages as the command line names them: one argument, for search, report and dashboard."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import optuna
import pytest
from dashboards import COMMAND
from dashboards import searched
from dashboards import serving
from optuna.storages import JournalStorage
from optuna.storages import RDBStorage
from optuna.storages.journal import JournalFileBackend
from problems import formula_objective
from test_cli import SMALL
from typer.testing import CliRunner

from optuna_shape.cli import EXIT_BAD_INPUT
from optuna_shape.cli import EXIT_INTERRUPTED
from optuna_shape.cli import EXIT_NO_ANSWER
from optuna_shape.cli import app
from optuna_shape.cli._job import Job
from optuna_shape.cli._studies import StudyUnavailable
from optuna_shape.cli._studies import open_storage
from optuna_shape.records import StudyRecords

QUESTION = ["search", *SMALL, "--constraint", "size <= 1 MB", "--study-name", "s"]


@pytest.mark.parametrize("name", ["s.db", "s.sqlite", "s.log", "s.journal", "s.jsonl"])
def test_a_file_is_what_its_name_says_and_stays_what_it_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    kind = RDBStorage if name in ("s.db", "s.sqlite") else JournalStorage
    with pytest.raises(StudyUnavailable, match="There is no file"):
        open_storage(str(path), create=False)
    assert not path.exists()
    storage = open_storage(str(path), create=True)
    assert isinstance(storage, kind)
    optuna.create_study(study_name="s", storage=storage)
    for other in (name, "other", "other.db", "other.log"):
        copy = tmp_path / other
        copy.write_bytes(path.read_bytes())
        for create in (False, True):
            again = open_storage(str(copy), create=create)
            assert optuna.get_all_study_names(again) == ["s"], (other, create)


def test_a_journal_serves_workers_the_report_and_the_dashboard(tmp_path: Path) -> None:
    path, output = str(tmp_path / "shared.log"), tmp_path / "out"
    question = [*QUESTION, "--storage", path, "--output", str(output)]
    result = CliRunner().invoke(app, [*question, "--workers", "2", "--trials", "4"])
    assert result.exit_code == 0, result.output
    assert not list(output.glob("*.db"))
    journal = JournalStorage(JournalFileBackend(path))
    study = optuna.load_study(study_name="s", storage=journal)
    history = StudyRecords(study).history()
    assert len(set(history.shapes.values())) == len(history.trained) == 4
    claims = [str(trial.system_attrs) for trial in study.trials]
    workers = {re.search(r"'worker': '([^']+)'", claim)[1] for claim in claims}  # type: ignore[index]
    assert len(workers) == 2
    result = CliRunner().invoke(app, ["report", path, "--output", str(tmp_path / "page.html")])
    assert result.exit_code == 0, result.output
    with serving(path) as (url, _):
        assert url.endswith(f"/{study._study_id}")


def test_the_output_of_a_search_is_a_storage_like_any_other(tmp_path: Path) -> None:
    first = [*QUESTION, "--trials", "1"]
    assert CliRunner().invoke(app, [*first, "--output", str(tmp_path / "a")]).exit_code == 0
    joined = [*first, "--output", str(tmp_path / "b"), "--storage", str(tmp_path / "a")]
    assert CliRunner().invoke(app, joined).exit_code == 0
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 'a' / 'study.db'}")
    assert len(study.trials) == 2


def test_a_journal_that_cannot_be_written_to_is_a_storage_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "s.log"
    storage = open_storage(str(path), create=True)
    study = optuna.create_study(study_name="s", storage=storage)
    path.unlink()
    path.mkdir()
    for act in (lambda: study.trials, lambda: study.set_user_attr("a", 1)):
        with pytest.raises(optuna.exceptions.StorageInternalError, match="Is a directory"):
            act()


def join(storage: Path, *arguments: str, output: Path) -> tuple[int, str]:
    wait = ["--train-only", "--wait", "0.02", "--storage", str(storage), "--output", str(output)]
    result = CliRunner().invoke(app, [*QUESTION, *wait, *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.stdout == ""
    return result.exit_code, result.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["s.db", "s.log", "folder"])
def test_who_waits_for_nothing_ends_and_makes_nothing(tmp_path: Path, name: str) -> None:
    code, line = join(tmp_path / name, output=tmp_path / "out")
    assert code == EXIT_BAD_INPUT
    assert f"the shapes of 's'. There is no file {tmp_path / name} yet. Check" in line
    assert "For 0.02 minutes nobody has measured" in line
    assert "Check that --storage and --study-name are" in line
    assert list(tmp_path.iterdir()) == []


def test_who_waits_is_told_which_studies_there_are(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    storage = open_storage(str(path), create=True)
    assert "holds no study yet." in join(path, output=tmp_path / "out")[1]
    optuna.create_study(study_name="shapes", storage=storage)
    assert "no study 's'. There is 'shapes'." in join(path, output=tmp_path / "out")[1]
    optuna.create_study(study_name="s", storage=storage)
    assert "Its shapes are not all measured yet." in join(path, output=tmp_path / "out")[1]
    assert sorted(optuna.get_all_study_names(storage)) == ["s", "shapes"]
    assert not (tmp_path / "out").exists()


def test_who_waits_does_not_say_that_data_are_loaded(tmp_path: Path) -> None:
    job = Job(
        train_only=True,
        wait=0,
        storage=str(tmp_path / "s.db"),
        study_name="s",
        output=tmp_path / "out",
    )
    said: list[str] = []
    with pytest.raises(StudyUnavailable):
        job.open(said.append)
    assert said == ["Waiting for the shapes to be measured ..."]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_waits_ends_as_any_other_that_is_interrupted(
    tmp_path: Path, number: signal.Signals
) -> None:
    waiting = ["--train-only", "--storage", str(tmp_path / "s.db"), "--json"]
    question = [*QUESTION, *waiting, "--output", str(tmp_path / "out")]
    process = subprocess.Popen(
        [*COMMAND, *question], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while "Waiting for a worker" not in (line := process.stderr.readline()):
        assert line, "it ended"
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == EXIT_INTERRUPTED
    assert json.loads(out)["error"]["kind"] == "Interrupted"
    *_, go_on, command = err.splitlines()
    assert go_on.endswith("Go on with:")
    assert command.endswith(shlex.join(question))


def test_who_waits_is_told_that_no_shape_fits(tmp_path: Path) -> None:
    path, limit = str(tmp_path / "s.db"), ["--constraint", "parameters <= 1"]
    measuring = ["--storage", path, "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*QUESTION, *limit, *measuring])
    assert result.exit_code == EXIT_NO_ANSWER
    told = result.stderr.splitlines()[-1]
    assert "None of the 6 shapes is within the constraints" in told
    code, line = join(tmp_path / "s.db", *limit, output=tmp_path / "other")
    assert (code, line) == (EXIT_NO_ANSWER, told)
    assert not (tmp_path / "other").exists()


def test_pages_follow_again_once_the_storage_is_back(tmp_path: Path) -> None:
    path = tmp_path / "running.log"
    problem, study = searched(JournalStorage(JournalFileBackend(str(path))))
    records = StudyRecords(study)
    with serving(str(path)) as (_, process):
        assert process.stdout is not None
        before = records.drawn().finished
        records.clear_stop()
        os.rename(path, tmp_path / "away.log")
        line = process.stdout.readline()
        assert "Warning: What the search finds cannot be read (" in line
        time.sleep(12)  # Another two looks, which say nothing.
        os.rename(tmp_path / "away.log", path)
        study.enqueue_trial({"depth": 6, "width": 24})
        study.optimize(formula_objective(problem), n_trials=1)
        deadline = time.monotonic() + 120
        while records.drawn().finished == before:
            assert time.monotonic() < deadline, "it no longer follows"
            time.sleep(0.5)
        process.terminate()
        assert process.stdout.read() == ""
