from __future__ import annotations

import json
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from optuna_dashboard import get_note
from optuna_dashboard import save_note
from problems import formula_objective

from optuna_shape import ShapeDashboard
from optuna_shape import ShapeProblem
from optuna_shape import ShapeSampler
from optuna_shape import ShapeTerminator
from optuna_shape import dashboard as dashboard_module
from optuna_shape import records as records_module
from optuna_shape.dashboard import figures
from optuna_shape.records import StudyRecords

MakeProblem = Callable[..., ShapeProblem]


def make_study(problem: ShapeProblem, **options: object) -> optuna.Study:
    return optuna.create_study(
        direction=problem.direction,
        sampler=ShapeSampler(problem, seed=0),
        pruner=optuna.pruners.NopPruner(),
        **options,  # type: ignore[arg-type]
    )


def drawn_figures(study: optuna.Study) -> dict[str, str]:
    """The figures as optuna-dashboard reads them."""
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

    attributes = study._storage.get_study_system_attrs(study._study_id)
    found: dict[str, str] = get_plotly_graph_objects(attributes)
    return found


def trial_notes(study: optuna.Study) -> list[str]:
    from optuna_dashboard._note import get_note_from_system_attrs

    attributes = study._storage.get_study_system_attrs(study._study_id)
    return [get_note_from_system_attrs(attributes, t._trial_id)["body"] for t in study.trials]


def test_every_page_is_written(make_problem: MakeProblem) -> None:
    limits = ("accuracy >= 80 %", "size <= 60 kB", "energy <= 1 J")
    problem = make_problem("latency", limits, epochs=3)
    study = make_study(problem)
    study.enqueue_trial({"depth": 6, "width": 24})
    study.optimize(
        formula_objective(problem, epochs=3), n_trials=9, callbacks=[ShapeDashboard(problem)]
    )
    best = problem.best(study)
    assert best is not None
    assert f"**shape {best.shape}: accuracy" in get_note(study)
    shown = study.user_attrs["best shape"]
    assert f"depth {best.shape.depth}, width {best.shape.width}: " in shown
    assert f"(trial {best.trial.number})" in shown
    pages = drawn_figures(study)
    assert sorted(pages) == sorted(figures(problem, study))
    assert [name[2:] for name in sorted(pages)] == [
        "shape-map",
        "accuracy-latency",
        "accuracy-energy",
        "accuracy-size",
        "learning-curves",
        "certainty",
    ]
    assert all(json.loads(page)["data"] is not None for page in pages.values())
    rejected, *trained = trial_notes(study)
    assert "## Depth 6, width 24: not trained to the end" in rejected
    assert "**Infeasible**: not within size \\<= 60 kB." in rejected
    assert "Reason: (6, 24) is over" in rejected
    for trial, note in zip(study.trials[1:], trained):
        assert "| accuracy |" in note
        assert ("Infeasible" in note) == (trial.user_attrs["accuracy"] < 0.8)


def test_the_figures_are_those_whose_costs_were_measured(make_problem: MakeProblem) -> None:
    problem = make_problem("accuracy", ("size <= 100 kB",))
    study = make_study(problem)
    problem.screen(study)
    assert [name for name in figures(problem, study) if "accuracy" in name] == ["2-accuracy-size"]


def test_what_was_left_out_is_caught_up_on_at_the_end(make_problem: MakeProblem) -> None:
    problem = make_problem()
    study = make_study(problem)
    records = StudyRecords(study)
    seen = []
    study.optimize(
        formula_objective(problem),
        n_trials=6,
        callbacks=[ShapeDashboard(problem), lambda *_: seen.append(records.drawn().finished)],
    )
    assert seen[0] == 1
    assert seen[-1] < 6, "such quick trainings are not all drawn"
    assert records.drawn().finished == 6
    assert "6 have been" in get_note(study)


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_notebook_that_holds_it_sees_the_last_trials(
    make_problem: MakeProblem, tmp_path: Path, kind: str
) -> None:
    problem = make_problem()
    storage = None if kind == "memory" else f"sqlite:///{tmp_path / 's.db'}"
    study = make_study(problem, storage=storage)
    records, dashboard = StudyRecords(study), ShapeDashboard(problem)
    study.optimize(formula_objective(problem), n_trials=5, callbacks=[dashboard])
    assert records.drawn().finished < 5, "such quick trainings are not all drawn at once"
    wait_until(lambda: records.drawn().finished == 5)
    wait_until(lambda: not records._announced("shape:drawing"))
    assert "5 have been" in get_note(study)
    wait_until(lambda: not any(isinstance(t, threading.Timer) for t in threading.enumerate()))
    assert dashboard is not None


def test_a_training_is_not_disturbed_before_a_drawing_is_due(make_problem: MakeProblem) -> None:
    problem = make_problem()
    study = make_study(problem)
    records, artist = StudyRecords(study), ShapeDashboard(problem)._artist
    study.optimize(formula_objective(problem), n_trials=2)
    artist._due = time.monotonic() + 1000
    trial = study.ask()
    artist._draw_if_idle(study)
    assert records.drawn().finished == 0
    assert artist._timer is not None
    assert artist._timer.interval > 900
    study.tell(trial, problem.record(trial, 0.5 * bool(problem.suggest(trial))))
    artist._draw_if_idle(study)
    assert records.drawn().finished == 3
    artist._timer.cancel()


HELD = """
import sys
import optuna
from problems import formula_objective, table
from optuna_shape import DesignSpace, ShapeDashboard, ShapeProblem, ShapeSampler

space = DesignSpace(range(1, 7), (4, 8, 12, 16, 24))
problem = ShapeProblem(space, "accuracy", meter=table(space))
study = optuna.create_study(
    study_name="s", storage=sys.argv[1], direction="maximize", sampler=ShapeSampler(problem)
)
held = ShapeDashboard(problem)
study.optimize(formula_objective(problem), n_trials=4, callbacks=[held])
"""


def test_a_process_that_ends_has_drawn_all_and_ends(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 's.db'}"
    command = [sys.executable, "-W", "ignore", "-c", HELD, storage]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert result.returncode == 0, result.stderr
    assert "Pages of the dashboard" not in result.stderr
    study = optuna.load_study(study_name="s", storage=storage)
    assert StudyRecords(study).drawn().finished == 4
    assert "4 have been" in get_note(study)


@pytest.mark.parametrize("order", [1, -1])
def test_the_stop_is_shown_whoever_comes_first(make_problem: MakeProblem, order: int) -> None:
    problem = make_problem("latency", ("accuracy >= 99.9 %",))
    study = make_study(problem)
    callbacks = [ShapeDashboard(problem), ShapeTerminator(problem)][::order]
    study.optimize(formula_objective(problem), callbacks=callbacks)
    del callbacks
    stop = StudyRecords(study).stop()
    assert stop is not None
    assert "**Stopped**: no shape is likely to reach" in get_note(study)
    assert study.user_attrs["search"] == f"stopped: {stop['reason']}"
    assert study.user_attrs["best shape"] == "No trained shape meets every constraint"


def test_nothing_is_measured_for_it(make_problem: MakeProblem) -> None:
    problem = make_problem()
    study = make_study(problem)
    ShapeDashboard(problem).refresh(study)
    assert get_note(study) == ""
    assert not StudyRecords(study).is_screened()


def test_a_failure_is_told_once_and_ends_no_search(
    make_problem: MakeProblem, caplog: pytest.LogCaptureFixture
) -> None:
    problem, other = make_problem(), make_problem("accuracy", ("size <= 100 kB",))
    study = make_study(problem)
    optuna.logging.enable_propagation()
    optuna.logging.set_verbosity(logging.WARNING)
    try:
        # Whoever asks about another problem is told so by an error.
        study.optimize(formula_objective(problem), n_trials=4, callbacks=[ShapeDashboard(other)])
    finally:
        optuna.logging.disable_propagation()
    assert len(study.trials) == 4
    # The handler of pytest may hang on two loggers.
    said = {id(r): r.getMessage() for r in caplog.records if "Pages" in r.getMessage()}
    assert len(said) == 1
    assert "StudyMismatch" in said.popitem()[1]


def test_what_people_write_is_kept(make_problem: MakeProblem) -> None:
    problem = make_problem()
    study = make_study(problem)
    save_note(study, "My *own* plan.")
    study.optimize(formula_objective(problem), n_trials=2, callbacks=[ShapeDashboard(problem)])
    assert get_note(study).endswith("\n\nMy *own* plan.")
    save_note(study, get_note(study) + "\n\nMore.")
    study.optimize(formula_objective(problem), n_trials=2, callbacks=[ShapeDashboard(problem)])
    assert get_note(study).endswith("\n\nMy *own* plan.\n\nMore.")
    assert get_note(study).count("What you add below") == 1
    assert "4 have been" in get_note(study)


# One writer.


def announce(study: optuna.Study, worker: str, *, host: str, pid: int, beat: int = 1) -> None:
    lease = {"beat": beat, "worker": worker, "host": host, "pid": pid}
    study._storage.set_study_system_attr(study._study_id, f"shape:drawing:{worker}", lease)


def test_one_worker_draws_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study()
    records = StudyRecords(study)
    heard: records_module.Heard = {}
    assert records.take_drawing(heard)
    with records.drawing_kept():
        pass
    announce(study, "killed", host=records_module._HOST, pid=2**22 + 1)
    assert records.take_drawing(heard), "a killed worker of this machine is known to be"
    announce(study, "elsewhere", host="elsewhere", pid=1)
    assert not records.take_drawing(heard)
    own = f"shape:drawing:{records_module._worker()}"
    attributes = study._storage.get_study_system_attrs(study._study_id)
    assert attributes[own] is None, "who withdraws keeps nobody waiting"
    monkeypatch.setattr(records_module, "DRAWING_TIMEOUT", 0.3)
    time.sleep(0.35)
    announce(study, "elsewhere", host="elsewhere", pid=1, beat=2)
    assert not records.take_drawing(heard), "it has just been heard of"
    time.sleep(0.35)
    assert records.take_drawing(heard), "it has not been heard of for long"


def test_a_worker_that_died_while_it_drew_is_waited_out(
    make_problem: MakeProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dashboard_module._PATIENCE > records_module.DRAWING_TIMEOUT
    assert records_module.DRAWING_TIMEOUT > 2 * records_module._DRAWING_BEAT
    problem = make_problem()
    study = make_study(problem)
    study.optimize(formula_objective(problem), n_trials=2)
    announce(study, "elsewhere", host="elsewhere", pid=1)
    monkeypatch.setattr(records_module, "DRAWING_TIMEOUT", 0.5)
    ShapeDashboard(problem).refresh(study)
    assert StudyRecords(study).drawn().finished == 2


def test_who_loses_patience_says_so(
    make_problem: MakeProblem, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    problem = make_problem()
    study = make_study(problem)
    study.optimize(formula_objective(problem), n_trials=1)
    announce(study, "elsewhere", host="elsewhere", pid=1)
    monkeypatch.setattr(dashboard_module, "_PATIENCE", 0.3)
    optuna.logging.enable_propagation()
    optuna.logging.set_verbosity(logging.WARNING)
    try:
        ShapeDashboard(problem).refresh(study)
    finally:
        optuna.logging.disable_propagation()
    assert StudyRecords(study).drawn().finished == 0
    assert "another worker writes there for more than 0.3 s" in caplog.text


def test_a_long_drawing_keeps_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "_DRAWING_BEAT", 0.02)
    study = optuna.create_study()
    records, own = StudyRecords(study), f"shape:drawing:{records_module._worker()}"

    def beat() -> int:
        attributes = study._storage.get_study_system_attrs(study._study_id)
        return int(attributes[own]["beat"])

    assert records.take_drawing({})
    first = beat()
    with records.drawing_kept():
        wait_until(lambda: beat() > first)
    assert study._storage.get_study_system_attrs(study._study_id)[own] is None


def work(problem: ShapeProblem, storage: str, barrier: object) -> None:
    study = optuna.load_study(
        study_name="s",
        storage=storage,
        sampler=ShapeSampler(problem),
        pruner=optuna.pruners.NopPruner(),
    )
    barrier.wait()  # type: ignore[attr-defined]
    study.optimize(
        formula_objective(problem),
        n_trials=6,
        callbacks=[ShapeTerminator(problem), ShapeDashboard(problem)],
    )


def test_workers_leave_whole_pages_of_the_last_state(tmp_path: Path) -> None:
    from problems import table

    from optuna_shape import DesignSpace

    space = DesignSpace(range(1, 7), [4, 8, 12, 16, 24])
    problem = ShapeProblem(space, "accuracy", ["latency <= 1 ms"], meter=table(space))
    storage = f"sqlite:///{tmp_path / 's.db'}"
    study = make_study(problem, storage=storage, study_name="s")
    problem.screen(study)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    processes = [context.Process(target=work, args=(problem, storage, barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    records = StudyRecords(study)
    assert records.drawn().covers(records.drawable())
    pages = drawn_figures(study)
    assert len(pages) == len(figures(problem, study))
    for page in pages.values():
        json.loads(page)
    best = problem.best(study)
    assert best is not None
    assert f"**shape {best.shape}: accuracy" in get_note(study)
    finished = [t for t in study.trials if t.state == TrialState.COMPLETE]
    assert all("| accuracy (goal) |" in trial_notes(study)[t.number] for t in finished)
    attributes = study._storage.get_study_system_attrs(study._study_id)
    assert not any(v for k, v in attributes.items() if k.startswith("shape:drawing:"))
