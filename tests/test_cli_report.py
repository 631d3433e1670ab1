from __future__ import annotations

import csv
import json
import sqlite3
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from problems import formula_objective
from problems import table
from typer.testing import CliRunner

from optuna_shape import DesignSpace
from optuna_shape import NoFeasibleShape
from optuna_shape import ShapeProblem
from optuna_shape import ShapeSampler
from optuna_shape.cli import EXIT_BAD_INPUT
from optuna_shape.cli import app
from optuna_shape.cli._studies import StudyUnavailable
from optuna_shape.cli._studies import open_study
from optuna_shape.report.notes import study_note
from optuna_shape.report.notes import study_summary


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["report", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def make_study(storage: str | BaseStorage, name: str = "digits", trials: int = 2) -> optuna.Study:
    space = DesignSpace(range(1, 4), (4, 8))
    problem = ShapeProblem(space, "accuracy", ["latency <= 1 ms"], meter=table(space))
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        direction=problem.direction,
        sampler=ShapeSampler(problem, seed=0),
    )
    study.optimize(formula_objective(problem), n_trials=trials)
    return study


def database(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    path = tmp_path / "study.db"
    make_study(database(path))
    return path


def error(*arguments: object) -> str:
    """The message of a command that has failed, which is one line."""
    code, text = run(*arguments)
    assert code == EXIT_BAD_INPUT
    (line,) = text.strip().splitlines()
    return line


@pytest.mark.parametrize("form", ["url", "file", "folder"])
def test_a_report_is_written_of_what_a_user_has(storage: Path, tmp_path: Path, form: str) -> None:
    given = {"url": database(storage), "file": storage, "folder": tmp_path}[form]
    page = tmp_path / "out" / "page.html"
    code, text = run(given, "--output", page)
    assert code == 0
    assert text.strip() == f"Written: {page}, and all shapes to {page.with_suffix('.csv')}."
    assert "depth 3, width 8" in page.read_text() or "depth 1, width 4" in page.read_text()


def test_a_journal_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    make_study(JournalStorage(JournalFileBackend(str(path))))
    assert run(path, "--output", tmp_path)[0] == 0
    assert (tmp_path / "report.html").exists()


def test_by_default_it_lies_in_the_folder_of_the_search(storage: Path, tmp_path: Path) -> None:
    assert run(tmp_path)[0] == 0
    assert (tmp_path / "report.html").exists()
    assert (tmp_path / "report.csv").exists()


def test_what_search_has_made_is_reported_with_its_network(tmp_path: Path) -> None:
    space = ["--depth", "1", "--width", "4,6", "--constraint", "size <= 100 kB"]
    arguments = ["search", *space, "--epochs", "1", "--output", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert run(tmp_path)[0] == 0
    (network,) = tmp_path.glob("*/answer.safetensors")
    text = (tmp_path / "report.html").read_text()
    assert str(network.with_suffix("")) in text
    assert "from optuna_shape.families import resnet" in text
    assert "<th>data</th><td>digits</td>" in text, "how it was trained"
    assert "weight_decay" in text


def test_an_estimate_is_called_one_wherever_it_is_shown(tmp_path: Path) -> None:
    options = ["--constraint", "energy <= 1 kJ", "--watts", "45", "--max-noise", "100"]
    arguments = ["search", "--depth", "1", "--width", "4", *options, "--epochs", "1", "--json"]
    result = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)["answer"]
    (saved,) = tmp_path.glob("*/answer.json")
    for found in (answer, json.loads(saved.read_text())["properties"]):
        assert found["energy"] > 0
        assert found["energy_note"] == "estimate: 45 W x latency"
        assert "energy (estimate)" not in found
    code, said = run(tmp_path, "--json")
    assert code == 0
    assert json.loads(said)["answer"]["energy_note"] == "estimate: 45 W x latency"
    text = (tmp_path / "report.html").read_text()
    assert ", energy (estimate) " in text.partition("The answer: ")[2][:200]
    assert "It is an estimate: 45 W x latency." in text
    (row,) = csv.DictReader((tmp_path / "report.csv").open(newline=""))
    assert row["energy_note"] == "estimate: 45 W x latency"
    study = open_study(str(tmp_path), None)
    problem = ShapeProblem.from_study(study)
    assert "| energy (estimate) |" in study_note(problem, study)
    assert "energy (estimate) " in study_summary(problem, study)["best shape"]


def test_a_study_in_which_nothing_may_be_trained_is_reported(tmp_path: Path) -> None:
    space = DesignSpace([1], [4])
    problem = ShapeProblem(space, "accuracy", ["latency <= 1 ns"], meter=table(space))
    study = optuna.create_study(
        study_name="new", storage=database(tmp_path / "study.db"), direction="maximize"
    )
    with pytest.raises(NoFeasibleShape):
        problem.screen(study)
    code, text = run(tmp_path)
    assert (code, text.strip()) == (0, f"Written: {tmp_path / 'report.html'}.")


@pytest.mark.parametrize("form", ["sqlite:///{}", "{}"])
def test_a_storage_that_is_not_there_is_not_made(tmp_path: Path, form: str) -> None:
    path = tmp_path / "missing.db"
    assert str(path) in error(form.format(path))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_study_is_told(tmp_path: Path) -> None:
    said = f"{tmp_path} holds no study.db; if the search had --storage, give that."
    assert error(tmp_path) == f"StudyUnavailable: {said}"
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE own (x)")
    connection.close()
    before = path.read_bytes()
    assert "no storage of Optuna" in error(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nonsense://", "nonsense"),
        ("://", "no URL"),
        ("sqlite://", "no database"),
        ("mysql+nodriver://user:secret@host/db", "cannot be opened"),
    ],
)
def test_what_is_no_storage_is_told_without_its_password(address: str, said: str) -> None:
    line = error(address)
    assert said in line
    assert "secret" not in line


def test_a_file_of_something_else_is_told(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("notes")
    assert "neither a SQLite database nor a journal" in error(path)


def test_several_studies_need_a_name(storage: Path, tmp_path: Path) -> None:
    make_study(database(storage), "other")
    line = error(storage)
    assert "'digits', 'other'" in line
    assert "--study-name" in line
    assert "There is 'digits', 'other'" in error(storage, "--study-name", "third")
    assert run(storage, "--study-name", "other", "--output", tmp_path)[0] == 0
    assert "Shape search: other" in (tmp_path / "report-other.html").read_text()


def test_studies_of_one_storage_do_not_overwrite_each_other(storage: Path, tmp_path: Path) -> None:
    make_study(database(storage), "a/b")
    for name in ("digits", "a/b"):
        assert run(tmp_path, "--study-name", name)[0] == 0
    for name, file in (("digits", "digits"), ("a/b", "a-b")):
        assert f"Shape search: {name}" in (tmp_path / f"report-{file}.html").read_text()
        assert (tmp_path / f"report-{file}.csv").is_file()


@pytest.mark.parametrize("name", ["x.csv", "x.pdf", "new.v2"])
def test_a_name_of_another_kind_is_refused(storage: Path, tmp_path: Path, name: str) -> None:
    line = error(storage, "--output", tmp_path / name)
    assert f"Give {(tmp_path / name).with_suffix('.html')}, say" in line
    assert not (tmp_path / name).exists()
    # A folder that is there may have any name.
    (tmp_path / name).mkdir()
    assert run(storage, "--output", tmp_path / name)[0] == 0
    assert (tmp_path / name / "report.html").is_file()


def test_a_program_reads_what_a_study_has_found(storage: Path, tmp_path: Path) -> None:
    code, text = run(storage, "--json")
    assert code == 0
    said = json.loads(text)
    study = optuna.load_study(study_name="digits", storage=database(storage))
    assert said["study"] == "digits"
    assert said["constraints"] == ["latency <= 1 ms"]
    assert (said["shapes"], said["feasible"], said["trained"]) == (6, 6, 2)
    answer = said["answer"]
    assert answer["accuracy"] == study.best_value
    assert (answer["depth"], answer["width"]) == tuple(study.best_params.values())
    assert answer["checkpoint"] is None
    assert said["written"] == [str(tmp_path / name) for name in ("report.html", "report.csv")]


def test_a_storage_without_studies_is_told(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    optuna.storages.RDBStorage(database(path))
    assert "holds no study yet" in error(path)


def test_a_study_of_something_else_is_told(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    study = optuna.create_study(study_name="other", storage=database(path))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert "holds no shape problem" in error(path)


def test_a_file_that_cannot_be_written_is_told(storage: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "Cannot write" in error(storage, "--output", blocked / "report.html")
    (tmp_path / "taken.html").mkdir()
    assert "Cannot write" in error(storage, "--output", tmp_path / "taken.html")


def test_many_studies_are_not_all_listed(tmp_path: Path) -> None:
    place = optuna.storages.RDBStorage(database(tmp_path / "study.db"))
    for number in range(25):
        optuna.create_study(study_name=f"study-{number:02}", storage=place)
    with pytest.raises(StudyUnavailable, match="'study-19' and 5 more"):
        open_study(str(tmp_path), None)
