from __future__ import annotations

import datetime
import math
import multiprocessing
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from optuna_shape import Measurement
from optuna_shape import Shape
from optuna_shape.records import _HOST
from optuna_shape.records import DIVERGED
from optuna_shape.records import INTERRUPTED
from optuna_shape.records import Cut
from optuna_shape.records import StudyRecords
from optuna_shape.records import read_history
from optuna_shape.records import training_time


def ask(study: optuna.Study) -> optuna.Trial:
    return study.ask()


def test_long_values_survive_in_pieces_every_storage_takes(tmp_path: Path) -> None:
    study = optuna.create_study(storage=f"sqlite:///{tmp_path / 's.db'}")
    records = StudyRecords(study)
    assert records.problem() is None
    description = {"widths": list(range(5000)), "name": "naïve \N{SNOWMAN}"}
    records.write_problem(description)
    assert StudyRecords(study).problem() == description
    for value in study._storage.get_study_system_attrs(study._study_id).values():
        assert not isinstance(value, str) or len(value) <= 2045


def test_measurements_are_kept_apart_by_fingerprint() -> None:
    records = StudyRecords(optuna.create_study())
    first = Measurement(0.002, 0.0019, 0.0021, 11, "gpu", "")
    records.write_measurements("latency", {Shape(1, 8): first, Shape(40, 8): first})
    records.write_measurements(
        "latency", {Shape(2, 8): Measurement.impossible("gpu", "out of memory")}
    )
    records.write_measurements("latency", {Shape(1, 8): Measurement.exact(9.0, "cpu")})
    known = records.measurements("gpu")["latency"]
    assert known[Shape(1, 8)] == known[Shape(40, 8)] == first
    assert math.isinf(known[Shape(2, 8)].value)
    assert known[Shape(2, 8)].note == "out of memory"
    assert records.measurements("cpu")["latency"] == {Shape(1, 8): Measurement.exact(9.0, "cpu")}
    assert records.measurements("tpu") == {}


def test_the_first_seed_stays() -> None:
    records = StudyRecords(optuna.create_study())
    assert records.seed() == 0
    records.propose_seed(7)
    records.propose_seed(8)
    assert records.seed() == 7


def test_a_claimed_shape_cannot_be_claimed_again() -> None:
    study = optuna.create_study()
    records = StudyRecords(study)
    first, second = ask(study), ask(study)
    assert records.claim(first._trial_id, Shape(1, 8)) is None
    objection = records.claim(second._trial_id, Shape(1, 8))
    assert objection is not None
    assert not objection.final
    assert records.claim(second._trial_id, Shape(1, 16)) is None
    assert records.history().claimed == {Shape(1, 8), Shape(1, 16)}


def test_a_trained_shape_cannot_be_claimed_but_on_purpose() -> None:
    study = optuna.create_study()
    records = StudyRecords(study)
    first = ask(study)
    records.claim(first._trial_id, Shape(1, 8))
    first.suggest_int("depth", 1, 1)
    first.suggest_int("width", 8, 8)
    first.set_user_attr("accuracy", 0.9)
    study.tell(first, 0.9)
    second = ask(study)
    objection = records.claim(second._trial_id, Shape(1, 8))
    assert objection is not None
    assert objection.final
    assert records.claim(second._trial_id, Shape(1, 8), replicate=True) is None


class _Between(optuna.storages.InMemoryStorage):
    """A storage where something happens right after the trials were read, once."""

    def __init__(self) -> None:
        super().__init__()
        self.then: Callable[[], None] | None = None

    def get_all_trials(self, *args: Any, **options: Any) -> list[optuna.trial.FrozenTrial]:
        trials = super().get_all_trials(*args, **options)
        then, self.then = self.then, None
        if then is not None:
            then()
        return trials


@pytest.mark.parametrize("accuracy", [0.9, math.nan])
def test_a_worker_that_ends_while_another_claims_has_trained_its_shape(accuracy: float) -> None:
    storage = _Between()
    study = optuna.create_study(storage=storage)
    records = StudyRecords(study)
    training, over = threading.Event(), threading.Event()

    def objective(trial: optuna.Trial) -> float:
        records.claim(trial._trial_id, Shape(1, 8))
        trial.suggest_int("depth", 1, 1)
        trial.suggest_int("width", 8, 8)
        training.set()
        over.wait()
        trial.set_user_attr("accuracy", accuracy)
        return accuracy

    worker = threading.Thread(target=study.optimize, args=(objective,), kwargs={"n_trials": 1})
    worker.start()
    training.wait()

    def end() -> None:
        over.set()
        worker.join()

    second = ask(study)
    storage.then = end
    objection = records.claim(second._trial_id, Shape(1, 8))
    if math.isnan(accuracy):
        assert study.trials[0].state == TrialState.FAIL
        assert objection is None
    else:
        assert study.trials[0].state == TrialState.COMPLETE
        assert objection is not None
        assert "has been trained by trial 0" in objection.reason


def _claim_and_die(path: str) -> None:
    study = optuna.load_study(study_name="s", storage=path)
    trial = study.ask()
    StudyRecords(study).claim(trial._trial_id, Shape(1, 8))
    os._exit(9)


def test_the_claim_of_a_killed_worker_is_free_at_once(tmp_path: Path) -> None:
    path = f"sqlite:///{tmp_path / 's.db'}"
    study = optuna.create_study(study_name="s", storage=path)
    worker = multiprocessing.get_context("spawn").Process(target=_claim_and_die, args=(path,))
    worker.start()
    worker.join()
    assert worker.exitcode == 9
    records = StudyRecords(study)
    assert study.trials[0].state == TrialState.RUNNING
    assert records.history().claimed == frozenset()
    assert records.claim(ask(study)._trial_id, Shape(1, 8)) is None
    records.release_dead_claims("accuracy")
    assert study.trials[0].state == TrialState.FAIL
    assert records.history().failures == records.history().losses == {}, (
        "a killed worker says nothing against the shape"
    )
    assert study.trials[1].state == TrialState.RUNNING


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(5)))
def test_history_does_not_depend_on_the_order_of_trials(order: list[int]) -> None:
    study = optuna.create_study()
    records = StudyRecords(study)
    for depth in range(1, 6):
        trial = ask(study)
        trial.suggest_int("depth", depth, depth)
        trial.suggest_int("width", 8, 8)
        trial.report(0.5, 1)
        if depth == 4:
            records.claim(trial._trial_id, Shape(4, 8))
            study.tell(trial, state=TrialState.PRUNED)
        elif depth == 5:
            study.tell(trial, state=TrialState.FAIL)
        else:
            trial.set_user_attr("accuracy", depth / 10)
            study.tell(trial, 0.0)
    trials = records.trials()
    history = read_history([trials[i] for i in order])
    assert history == read_history(trials)
    assert history.accuracies == {Shape(d, 8): [d / 10] for d in (1, 2, 3)}
    assert history.cuts == {3: Cut(Shape(4, 8), {1: 0.5})}
    assert history.losses == {Shape(5, 8): 1}


def test_what_ended_amid_its_epochs_may_be_gone_on_with() -> None:
    study = optuna.create_study()
    records = StudyRecords(study)

    def end(state: TrialState, reason: str | None = None, epochs: int = 1) -> None:
        trial = ask(study)
        trial.suggest_int("depth", 1, 1)
        trial.suggest_int("width", 8, 8)
        for epoch in range(epochs):
            trial.report(0.5, epoch)
        if reason is not None:
            records.write_failure(trial._trial_id, reason)
        study.tell(trial, 0.5 if state == TrialState.COMPLETE else None, state)

    def begun() -> int | None:
        return records.history().begun.get(Shape(1, 8))

    end(TrialState.FAIL, INTERRUPTED, epochs=0)
    assert begun() is None
    end(TrialState.FAIL, INTERRUPTED)
    assert begun() == 1
    end(TrialState.FAIL, "OutOfMemoryError")
    assert begun() == 2
    end(TrialState.PRUNED, epochs=0)  # As of a worker that came second.
    assert begun() == 2
    assert records.history().divergences == {}
    end(TrialState.FAIL, DIVERGED)
    assert begun() is None
    assert records.history().divergences == {Shape(1, 8): 1}
    assert records.history().failures == {Shape(1, 8): 2}
    end(TrialState.PRUNED)
    assert begun() == 5
    end(TrialState.COMPLETE)
    assert begun() is None


def _trial(
    state: TrialState, *, hours: float = 2, system_attrs: dict[str, object] | None = None
) -> optuna.trial.FrozenTrial:
    """A trial that began so many hours ago, and has ended now if it has."""
    trial = optuna.trial.create_trial(
        state=state,
        value=0.5 if state == TrialState.COMPLETE else None,
        params={"depth": 1, "width": 8},
        distributions={
            "depth": optuna.distributions.IntDistribution(1, 4),
            "width": optuna.distributions.IntDistribution(8, 8),
        },
        intermediate_values={1: 0.5},
        user_attrs={"accuracy": 0.5} if state == TrialState.COMPLETE else {},
        system_attrs=system_attrs,
    )
    assert trial.datetime_start is not None
    trial.datetime_start -= datetime.timedelta(hours=hours)
    return trial


@pytest.mark.parametrize("state", [s for s in TrialState if s.name != "WAITING"])
def test_the_time_of_a_training_is_known_if_it_ended_by_itself(state: TrialState) -> None:
    time = training_time(_trial(state))
    if state not in (TrialState.COMPLETE, TrialState.PRUNED):
        assert time is None
    else:
        assert time is not None
        assert time.total_seconds() == pytest.approx(7200, abs=60)


def test_a_training_whose_end_another_has_stored_delays_no_claim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = optuna.create_study()
    records = StudyRecords(study)
    trial = ask(study)
    assert records.claim(trial._trial_id, Shape(1, 8)) is None
    claim = study.trials[0].system_attrs
    study.tell(trial, state=TrialState.FAIL)
    lost = _trial(TrialState.RUNNING, hours=1000, system_attrs=claim)
    lost.system_attrs["shape:claim"]["trial"] = 1
    study.add_trial(lost)
    study._storage.set_trial_user_attr(1, "accuracy", 0.5)
    with monkeypatch.context() as patch:
        patch.setattr("optuna_shape.records._worker_is_alive", lambda identity: False)
        records.release_dead_claims("accuracy")
    found = study.trials[1]
    assert found.state == TrialState.COMPLETE
    assert training_time(found) is None
    monkeypatch.setattr("optuna_shape.records._worker_is_alive", lambda identity: None)
    lost = _trial(TrialState.RUNNING, hours=30, system_attrs=claim)
    lost.system_attrs["shape:claim"]["trial"] = 2
    study.add_trial(lost)
    assert records.history().running == (), "it has been silent for more than a day"


def test_a_pruned_value_is_never_read_as_a_result() -> None:
    study = optuna.create_study()
    trial = ask(study)
    trial.suggest_int("depth", 1, 1)
    trial.suggest_int("width", 8, 8)
    trial.report(0.99, 1)
    study.tell(trial, state=TrialState.PRUNED)
    assert study.trials[0].value == 0.99
    assert StudyRecords(study).history().accuracies == {}


@pytest.mark.parametrize("beat", [1, 5])
def test_leases_of_others_are_seen_and_given_up(beat: int) -> None:
    study = optuna.create_study()
    records = StudyRecords(study)
    lease = {"beat": beat, "worker": "other", "host": "elsewhere", "pid": 1}
    study._storage.set_study_system_attr(study._study_id, "shape:lease:other", lease)
    records.write_lease(2)
    assert records.other_leases() == {"other": beat}
    dead = {**lease, "host": _HOST, "pid": 2**22 + 1}
    study._storage.set_study_system_attr(study._study_id, "shape:lease:killed", dead)
    assert records.other_leases() == {"other": beat}, "a killed worker blocks nobody"
    study._storage.set_study_system_attr(study._study_id, "shape:lease:other", None)
    assert records.other_leases() == {}
