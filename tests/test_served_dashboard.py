from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from dashboards import COMMAND
from dashboards import searched
from dashboards import serving
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from optuna_dashboard import wsgi
from problems import formula_objective
from problems import table

from optuna_shape import DesignSpace
from optuna_shape import ShapeProblem
from optuna_shape import ShapeSampler
from optuna_shape.cli._served import mending
from optuna_shape.records import StudyRecords


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A storage with a study of shapes, and one of something else."""
    path = tmp_path_factory.mktemp("served") / "study.db"
    storage = f"sqlite:///{path}"
    searched(storage)
    other = optuna.create_study(study_name="other", storage=storage, directions=["minimize"] * 2)
    other.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 1.0), n_trials=2)
    return storage


def told(study: optuna.Study) -> dict[str, Any]:
    """What the server tells a page of a study."""
    app = wsgi(study._storage)
    app.install(mending(study._storage))
    environment: dict[str, Any] = {"PATH_INFO": f"/api/studies/{study._study_id}"}
    setup_testing_defaults(environment)
    answer: dict[str, Any] = json.loads(b"".join(app(environment, lambda *_: None)))
    return answer


def test_infeasible_trials_list_their_constraints_only_where_they_are_shown(database: str) -> None:
    study = optuna.load_study(study_name="shapes", storage=database)
    answer = told(study)
    infeasible = 0
    assert len(answer["trials"]) == len(study.trials)
    for stored, trial in zip(study.trials, answer["trials"]):
        assert "constraints" not in stored.system_attrs
        assert trial["constraints"] == list(stored.constraints.values())
        infeasible += trial["state"] == "Complete" and any(x > 0 for x in trial["constraints"])
        if stored.state == TrialState.PRUNED:
            assert "values" not in trial, "an accuracy is no latency"
        else:
            assert trial["values"] == stored.values
    assert infeasible > 0
    cheapest = study._storage.get_best_trial(study._study_id)
    assert any(excess > 0 for excess in cheapest.constraints.values())
    (best,) = answer["best_trials"]
    assert best == answer["trials"][study.best_trial.number]
    assert answer["objective_names"] == ["latency, s"]


def test_without_an_answer_no_trial_is_called_the_best(tmp_path: Path) -> None:
    journal = JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    problem, study = searched(journal, "accuracy >= 99.9 %")
    assert problem.best(study) is None
    answer = told(study)
    assert answer["best_trials"] == []
    assert any(trial["state"] == "Complete" for trial in answer["trials"])


def test_a_study_of_something_else_is_told_as_it_is(database: str) -> None:
    study = optuna.load_study(study_name="other", storage=database)
    answer = told(study)
    assert "objective_names" not in answer
    assert [t["number"] for t in answer["best_trials"]] == [t.number for t in study.best_trials]
    assert all(trial["constraints"] == [] for trial in answer["trials"])


def test_objectives_keep_the_names_that_a_person_gave(tmp_path: Path) -> None:
    _, study = searched(f"sqlite:///{tmp_path / 's.db'}")
    study.set_metric_names(["my latency"])
    assert told(study)["objective_names"] == ["my latency"]


def get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return dict(json.load(answer))


def test_the_command_serves_the_study_and_ends_on_ctrl_c(database: str) -> None:
    study = optuna.load_study(study_name="shapes", storage=database)
    with serving(database, "--study-name", "shapes") as (url, process):
        host, _, path = url.partition("/dashboard")
        assert path == f"/studies/{study._study_id}"
        detail = get(f"{host}/api{path}")
        assert [trial["number"] for trial in detail["best_trials"]] == [study.best_trial.number]
        names = [figure["id"] for figure in detail["plotly_graph_objects"]]
        assert names == sorted(names)
        assert len(names) == 6
        assert detail["note"]["body"].startswith("## Best shape so far")
        # A page of which only a part is there is left out, and comes again.
        key = "dashboard:plot_data:1-shape-map:0"
        before = study._storage.get_study_system_attrs(study._study_id)[key]
        study._storage.set_study_system_attr(study._study_id, key, before[1:])
        detail = get(f"{host}/api{path}")
        assert [figure["id"] for figure in detail["plotly_graph_objects"]] == names[1:]
        study._storage.set_study_system_attr(study._study_id, key, before)
        # A web page that has led its own name here learns nothing, and changes nothing.
        strange = urllib.request.Request(f"{host}/api{path}", headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(strange)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""


def await_drawing(study: optuna.Study) -> None:
    records, deadline = StudyRecords(study), time.monotonic() + 120
    while records.drawn().finished < len(study.trials):
        assert time.monotonic() < deadline, "nothing was drawn"
        time.sleep(0.5)


def test_figures_follow_a_search_that_still_runs(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'running.db'}"
    problem, study = searched(storage)
    with serving(storage) as (url, _):
        records = StudyRecords(study)
        assert records.drawn().finished == len(study.trials)
        records.clear_stop()
        study.enqueue_trial({"depth": 6, "width": 24})
        study.optimize(formula_objective(problem), n_trials=1)
        await_drawing(study)
        detail = get(url.replace("/dashboard/", "/api/"))
    assert "## Depth 6, width 24" in detail["trials"][-1]["note"]["body"]


def refused(*arguments: str, before: str = "") -> str:
    command = [*COMMAND[:-1], before + COMMAND[-1], "dashboard", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    return line


def test_what_is_missing_is_said_in_a_line(database: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = refused(database, "--study-name", "shapes", "--port", port)
    assert f"Port {port} of 127.0.0.1 is taken. Choose another with --port" in line
    assert "holds no shape problem" in refused(database, "--study-name", "other")
    assert "There is no file" in refused(f"sqlite:///{tmp_path / 'none.db'}")
    hidden = "import sys; sys.modules['optuna_dashboard'] = None; "
    line = refused(database, "--study-name", "shapes", before=hidden)
    assert "pip install 'optuna_shape[dashboard]'" in line


def test_a_study_without_measurements_is_served_without_figures_until_there_are_some(
    tmp_path: Path,
) -> None:
    space = DesignSpace([1], [4])
    problem = ShapeProblem(space, "accuracy", meter=table(space))
    storage = f"sqlite:///{tmp_path / 's.db'}"
    study = optuna.create_study(
        study_name="s", storage=storage, direction="maximize", sampler=ShapeSampler(problem)
    )
    StudyRecords(study).write_problem(problem.describe())
    with serving(storage) as (url, _):
        detail = get(url.replace("/dashboard/", "/api/"))
        assert detail["plotly_graph_objects"] == []
        assert detail["note"]["body"] == ""
        study.optimize(formula_objective(problem), n_trials=1)
        await_drawing(study)
        detail = get(url.replace("/dashboard/", "/api/"))
        assert detail["plotly_graph_objects"] != []
        assert detail["note"]["body"].startswith("## Best shape so far")
