"""What holds of every search, whatever is asked, by however many workers, in whatever order."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from dataclasses import field
from typing import Any

import numpy as np
import optuna
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from optuna_shape import DesignSpace
from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape import ShapeSampler
from optuna_shape import ShapeTerminator
from optuna_shape import TableMeter
from optuna_shape.problem import OUTSIDE
from optuna_shape.records import StudyRecords
from optuna_shape.records import is_replicate
from optuna_shape.records import shape_of


@dataclass(frozen=True)
class Question:
    """A random problem: accuracies and costs of each shape, and what is asked of them."""

    space: DesignSpace
    goal: str
    latencies: dict[Shape, float]
    accuracies: dict[Shape, float]
    bound: float

    def problem(self) -> ShapeProblem:
        meter = TableMeter({s: {"latency": value} for s, value in self.latencies.items()})
        accuracy = [] if self.goal == "accuracy" else ["accuracy >= 40 %"]
        constraints = [f"latency <= {self.bound:.12g} s", *accuracy]
        # A table need not grow with depth, as boundaries suppose.
        return ShapeProblem(
            self.space, self.goal, constraints, meter=meter, filter_mode="exhaustive"
        )

    @property
    def feasible(self) -> set[Shape]:
        return {shape for shape, value in self.latencies.items() if value <= self.bound}


@st.composite
def questions(draw: st.DrawFn) -> Question:
    depths = draw(st.sets(st.integers(1, 6), min_size=1, max_size=3))
    widths = draw(st.sets(st.sampled_from([4, 6, 8, 12, 16, 24]), min_size=1, max_size=3))
    space = DesignSpace(depths, widths)
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    noise = draw(st.sampled_from([0.0, 0.01, 0.2]))
    accuracies = {
        s: float(np.clip(0.9 - 0.5 / s.depth - 1 / s.width + noise * random.normal(), 0, 1))
        for s in space.shapes
    }
    # Of six digits, as the text of a constraint keeps them all.
    latencies = {s: float(f"{random.uniform(1e-4, 1e-2):.6g}") for s in space.shapes}
    bound = draw(st.sampled_from(sorted(latencies.values())))
    goal = draw(st.sampled_from(["accuracy", "latency"]))
    return Question(space, goal, latencies, accuracies, bound)


def enqueued(space: DesignSpace) -> st.SearchStrategy[list[dict[str, int]]]:
    """What a user may enqueue: whole and half shapes, infeasible, outside and twice."""
    depth = st.integers(min(space.depths), max(space.depths))
    width = st.integers(min(space.widths), max(space.widths))
    listed = st.sampled_from(space.shapes).map(lambda s: s._asdict())
    whole = st.fixed_dictionaries({"depth": depth, "width": width})
    half = st.one_of(depth.map(lambda d: {"depth": d}), width.map(lambda w: {"width": w}))
    return st.lists(st.one_of(listed, whole, half), max_size=5).map(lambda some: some + some[:1])


@dataclass
class Worker:
    """A process as the study sees it: a problem and a sampler of its own."""

    question: Question
    study: optuna.Study
    seed: int
    trial: optuna.Trial | None = None
    asked: int | None = None
    trained: list[Shape] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.problem = self.question.problem()
        self.study = copy.copy(self.study)
        self.study.sampler = ShapeSampler(self.problem, seed=self.seed)

    def step(self, ending: str = "complete") -> bool:
        """Ask for a shape, or end its training; False if there was none to be had."""
        if self.trial is None:
            trial = self.study.ask()
            self.asked = trial.number
            try:
                self.problem.suggest(trial)
            except optuna.TrialPruned:
                self.study.tell(trial, state=TrialState.PRUNED)
                return False
            self.trial = trial
            return True
        trial, self.trial = self.trial, None
        shape = Shape(**trial.params)
        if ending == "fail":
            self.study.tell(trial, state=TrialState.FAIL)
            return True
        self.trained.append(shape)
        self.study.tell(trial, self.problem.record(trial, self.question.accuracies[shape]))
        ShapeTerminator(self.problem)(self.study, self.study.trials[trial.number])
        return True


def next_shape(question: Question, study: optuna.Study, seed: int) -> Shape | None:
    """What a worker that begins now would train, found on a copy of the study."""
    storage = optuna.storages.InMemoryStorage()
    optuna.copy_study(
        from_study_name=study.study_name, from_storage=study._storage, to_storage=storage
    )
    twin = optuna.load_study(study_name=study.study_name, storage=storage)
    worker = Worker(question, twin, seed)
    return Shape(**worker.trial.params) if worker.step() and worker.trial else None


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_the_rules_hold_of_any_search(data: st.DataObject) -> None:
    question = data.draw(questions())
    problem = question.problem()
    study = optuna.create_study(direction=problem.direction)
    workers = [Worker(question, study, seed) for seed in range(data.draw(st.integers(1, 3)))]
    for parameters in data.draw(enqueued(question.space)):
        study.enqueue_trial(parameters)
    endings = st.sampled_from(["complete"] * 5 + ["fail"])
    steps: list[Any] = data.draw(
        st.lists(st.tuples(st.sampled_from(workers), endings), max_size=25)
    )
    for worker, ending in steps:
        worker.step(ending)
    for worker in workers:
        if worker.trial is not None:
            worker.step()
    # Same observations, same suggestion, whoever asks.
    suggested = {next_shape(question, study, seed) for seed in (5, 6)}
    assert len(suggested) == 1
    for _ in range(100):
        if StudyRecords(study).stop() is not None:
            break
        workers[-1].step()
        if workers[-1].trial is not None:
            workers[-1].step()
    check(question, study, workers)


def check(question: Question, study: optuna.Study, workers: list[Worker]) -> None:
    problem, stop = question.problem(), StudyRecords(study).stop()
    assert stop is not None, "every search ends"
    trials = study.trials
    trained = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    by_workers = Counter(shape for worker in workers for shape in worker.trained)
    # Hard means hard, and nothing is trained again but on purpose.
    assert set(by_workers) <= question.feasible
    assert by_workers == Counter(shape_of(trial) for trial in trained)
    once = Counter(shape_of(trial) for trial in trained if not is_replicate(trial))
    assert set(once.values()) <= {1}
    # What was enqueued may still wait when the search ends.
    for trial in [trial for trial in trials if trial.state != TrialState.WAITING]:
        shape = Shape(**trial.params) if len(trial.params) == 2 else None
        assert trial.state.is_finished()
        if trial.state == TrialState.PRUNED:
            assert trial.user_attrs["reason"]
        if shape is None:
            assert trial.state == TrialState.PRUNED
            continue
        assert set(trial.constraints) >= (
            {str(c) for c in problem.hard_constraints} if shape in question.space else {OUTSIDE}
        )
        allowed = all(
            excess <= 0 for name, excess in trial.constraints.items() if "acc" not in name
        )
        assert allowed == (shape in question.feasible)
    # The answer is the best trained shape that reaches the accuracy, or there is none.
    least = problem.accuracy_bound or 0.0
    reaching = [shape for shape in by_workers if question.accuracies[shape] >= least]
    best = problem.best(study)
    assert (best is None) == (not reaching)
    if best is not None and question.goal == "accuracy":
        assert best.accuracy == max(question.accuracies[shape] for shape in reaching)
    elif best is not None:
        assert best.latency == min(question.latencies[shape] for shape in reaching)
    # The stop is honoured by whoever comes.
    newcomer = Worker(question, study, 9)
    assert not newcomer.step()
    assert newcomer.asked is not None
    assert "the search has stopped" in study.trials[newcomer.asked].user_attrs["reason"]
