"""The live benchmark: its budget, its points of comparison, and a tiny recording."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from pathlib import Path

import live
import pytest
import replay
import tables
from replay import Grid
from replay import Run
from replay import Step
from replay import Table
from replay import Task

from optuna_shape import Shape
from optuna_shape.families import mlp
from optuna_shape.train.data import load

A, B, C, D = Shape(1, 1), Shape(1, 2), Shape(2, 1), Shape(2, 2)
#: Accuracies that trainings show, of the first and of the second of each shape.
FINALS = {A: (0.5, 0.5), B: (0.9, 0.6), C: (0.8, 0.8), D: (0.7, 0.7)}
# Training all of them takes 4 * (1 + 2 + 2 + 5) = 40.
GRID = Grid(
    "made",
    4,
    {
        "flops": {A: 1.0, B: 2.0, C: 2.0, D: 5.0},
        "latency": {A: 1.0, B: 2.0, C: 4.0, D: 8.0},
        "size": {A: 10.0, B: 20.0, C: 20.0, D: 50.0},
    },
)
ACCURACY = Task("accuracy, limited", "accuracy", {})
LATENCY = Task("latency", "latency", {}, threshold=0.65)


class Made(live.Trainings):
    """Straight curves instead of trainings."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def curve(self, shape: Shape, seed: int) -> tuple[float, ...]:
        final = FINALS[shape][seed >= 1000]
        return tuple(final * (epoch + 1) / 4 for epoch in range(4))


def contest(task: Task, budget: float = 0.5) -> live.Live:
    return live.Live(GRID, task, 3, Made(), budget)


def run(*steps: Step, task: Task = ACCURACY, stop: int | None = None) -> Run:
    method = replay.UNPRUNED if stop else "Random"
    return Run("made", task.name, method, 3, 6.0, steps, stop)


def test_the_training_that_crosses_the_budget_counts_and_is_the_last() -> None:
    steps = [Step(A, 4, True), Step(D, 1, False), Step(B, 4, True), Step(C, 4, True)]
    # Shares of 40: 0.1, 0.225, 0.425, 0.625.
    counts = [live.steps_within(contest(ACCURACY), steps, b) for b in (0.1, 0.2, 0.3, 0.625, 0.63)]
    assert counts == [1, 2, 3, 4, None]
    assert not contest(ACCURACY, 0.5).is_over(steps[:3])
    assert contest(ACCURACY, 0.5).is_over(steps)
    assert not contest(ACCURACY).is_over([])


def test_ours_ends_at_its_stop_whatever_that_costs() -> None:
    one, all_of_it = [Step(A, 4, True)], [Step(D, 4, True)]
    assert contest(ACCURACY).is_done(one, stopped=True)
    assert contest(ACCURACY).is_over(all_of_it)
    assert not contest(ACCURACY).is_done(all_of_it, stopped=False)
    # The answer at a budget is that of the budget all the same.
    steps = [*all_of_it, Step(B, 4, True)]
    rows = list(live.compare(contest(ACCURACY), run(*steps, stop=2), [0.5], None))
    assert [(row.at, row.answer) for row in rows] == [("50%", "2x2"), ("stop", "1x2")]
    assert {row.method for row in rows} == {"ShapeSampler"}


def test_answers_at_each_budget() -> None:
    steps = (Step(A, 4, True), Step(D, 2, False), Step(B, 4, True))
    first, second = live.compare(contest(ACCURACY), run(*steps), [0.1, 0.4], None)
    assert (first.at, first.answer, first.accuracy, first.trainings) == ("10%", "1x1", 0.5, 1)
    assert (second.at, second.answer, second.latency) == ("40%", "1x2", 2.0)
    # What was cut short counts in the cost, and is no answer.
    assert (second.trainings, second.full, second.cost_share) == (3, 2, pytest.approx(22 / 40))
    assert second.seconds_per_training == 2
    assert math.isnan(second.behind)
    assert second.reaches is None


def test_after_its_stop_the_answer_of_ours_and_its_cost_stay() -> None:
    (of_budget, of_stop) = live.compare(
        contest(ACCURACY), run(Step(A, 4, True), stop=1), [0.5], None
    )
    assert (of_budget.at, of_stop.at) == ("50%", "stop")
    assert of_budget.answer == of_stop.answer == "1x1"
    assert of_budget.cost_share == of_stop.cost_share == pytest.approx(0.1)


def test_a_run_to_a_smaller_budget_is_not_taken_for_one_to_a_larger() -> None:
    with pytest.raises(SystemExit, match=r"recorded to 10\.0% .* less than 50%"):
        list(live.compare(contest(ACCURACY), run(Step(A, 4, True)), [0.05, 0.5], None))
    # Nothing is left to train.
    every = [Step(shape, 4, True) for shape in (A, B, C, D)]
    (row,) = live.compare(contest(ACCURACY), run(*every), [1.0], None)
    assert (row.trainings, row.cost_share) == (4, pytest.approx(1))


def test_a_second_training_has_another_seed_and_their_mean_counts() -> None:
    steps = [Step(A, 4, True), Step(B, 4, True), Step(B, 4, True), Step(C, 4, True)]
    rows = list(live.compare(contest(LATENCY), run(*steps), [0.1, 0.3, 0.5], None))
    # The first is below 65 %; 90 % and 60 % are above on average.
    assert [row.answer for row in rows] == ["", "1x2", "1x2"]
    assert [row.accuracy for row in rows[1:]] == [0.9, pytest.approx(0.75)]
    assert math.isnan(rows[0].accuracy)


def recorded() -> Table:
    """With a standard error of the mean that is 0.0408: only D scatters."""
    finals = {
        A: (0.5, 0.5, 0.5),
        B: (0.6, 0.6, 0.6),
        C: (0.7, 0.7, 0.7),
        D: (0.8, 0.9, 0.7),
    }
    curves = {shape: tuple((0.0, f) for f in values) for shape, values in finals.items()}
    return Table("made", 2, GRID.costs, curves)


def test_behind_is_judged_by_the_recorded_seeds() -> None:
    table = recorded()
    assert live.behind(contest(ACCURACY), table, B) == pytest.approx(0.2)
    # The fastest that reaches 65 % on average is C; D is twice as slow.
    assert live.behind(contest(LATENCY), table, D) == pytest.approx(1)
    assert live.behind(contest(LATENCY), table, C) == 0
    for task in (ACCURACY, LATENCY):
        assert live.behind(contest(task), table, None) == math.inf


def test_an_answer_that_misses_the_accuracy_is_none_however_fast() -> None:
    table = recorded()
    error = table.noise / math.sqrt(3)
    assert error == pytest.approx(0.1 / math.sqrt(2) / math.sqrt(3))
    # B lacks 5 points, which two standard errors explain; A lacks 15, and was lucky.
    assert live.reaches(contest(LATENCY), table, B)
    assert live.behind(contest(LATENCY), table, B) == pytest.approx(-0.5)
    assert not live.reaches(contest(LATENCY), table, A)
    assert live.behind(contest(LATENCY), table, A) == math.inf
    # Where accuracy is the goal there is nothing to reach.
    assert live.reaches(contest(ACCURACY), table, A)
    assert not live.reaches(contest(ACCURACY), table, None)


def test_a_seed_without_an_answer_counts_against_the_method() -> None:
    def row(method: str, seed: int, **what: object) -> live.Row:
        values = {"answer": "1x2", "reaches": True, "accuracy": 0.9, "latency": 2.0, "behind": 0.5}
        values |= {"test_accuracy": 0.9, "trainings": 2, "full": 2, "cost_share": 0.1}
        rest = {"task": "latency", "at": "5%", "seconds_per_training": 0.0}
        return live.Row(method=method, seed=seed, **{**rest, **values, **what})

    nothing = {"answer": "", "reaches": False, "accuracy": math.nan, "behind": math.inf}
    missed = {"reaches": False, "behind": math.inf}
    rows = [row("All", seed) for seed in (3, 4, 5)]
    rows += [row("One", 3), row("One", 4, **nothing), row("One", 5, **missed)]
    figures = {figure.name: figure for figure in live.summarise(rows)}
    assert {figure.part for figure in figures.values()} == {"latency, at 5%"}
    assert figures["All: answers found"].detail == "3 of 3"
    assert figures["One: answers found"].detail == "2 of 3"
    assert figures["One: answers that reach the accuracy"].detail == "1 of 3"
    assert figures["All: behind"].value == figures["One: behind"].low == 0.5
    assert figures["One: behind"].value == figures["One: behind"].high == math.inf
    assert figures["All: accuracy"].value == 0.9
    assert "One: accuracy" not in figures
    assert figures["One: cost_share"].value == 0.1


def test_what_all_searches_are_asked() -> None:
    limited, fast = live.make_tasks(GRID, 0.5, 0.9)
    assert limited.bounds == {"latency": 4, "size": 25}
    assert limited.feasible(GRID) == [A, B, C]
    assert (fast.goal, fast.threshold, fast.feasible(GRID)) == ("latency", 0.9, [A, B, C, D])


def test_the_same_shape_and_seed_train_to_the_same(tmp_path: Path) -> None:
    data = load("digits")
    shapes = mlp([1], [4], input_shape=tuple(data.train_x.shape[1:]), classes=data.classes)
    shape = Shape(1, 4)
    grid = Grid("digits-mlp", 2, {n: {shape: 1.0} for n in ("flops", "latency", "size")})
    path = tmp_path / "trainings.csv"
    trainings = live.Trainings(path, shapes, data, grid)
    curve = trainings.curve(shape, 3)
    assert len(curve) == 2
    assert trainings.curve(shape, 4) != curve
    spent = trainings.seconds
    again = live.Trainings(path, shapes, data, grid)
    assert again.curve(shape, 3) == curve
    assert again.seconds == 0 < spent
    # Trained once more, it has to show the same curve.
    assert 0 < again.test_accuracy(shape, 3) < 1
    wrong = [
        t if t.seed == 4 else tables.Training(1, 4, 3, 1, 1, 1, 1, (0.1, 0.2))
        for t in tables.read(path)
    ]
    path.unlink()
    for training in wrong:
        tables.append(path, training)
    with pytest.raises(RuntimeError, match=r"to 0\.2 before"):
        live.Trainings(path, shapes, data, grid).test_accuracy(shape, 3)


@pytest.mark.slow
def test_a_tiny_recording_resumes(tmp_path: Path) -> None:
    out = tmp_path / "out" / "live.csv"
    command = [sys.executable, live.__file__, "--family", "mlp", "--out", str(out)]
    command += ["--depth", "1,2", "--width", "2,4,8", "--epochs", "2", "--threshold", "0.1"]
    command += ["--share", "1", "--methods", f"{replay.UNPRUNED};Random", "--max-noise", "100"]
    command += ["--budgets", "0.2,0.5", "--seeds", "3"]
    first = subprocess.run(command, check=True, timeout=300, capture_output=True, text=True)
    assert "other shapes or epochs" in first.stdout  # Than those of the recorded table.

    runs = {run.key[1:3]: run for run in replay.read_runs(out.with_name("live-runs.csv"))}
    assert set(runs) == {(t, m) for t in live.TASKS for m in (replay.UNPRUNED, "Random")}
    trained = {(t.shape, t.seed): t for t in tables.read(out.with_name("live-trainings.csv"))}
    steps = {step.shape for run in runs.values() for step in run.steps}
    assert {shape for shape, _ in trained} == steps
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["at"] for row in rows} >= {"20%", "50%"}
    assert {row["method"] for row in rows} == {"ShapeSampler", "Random"}
    assert {(row["task"], row["at"]) for row in rows} >= {(task, live.STOP) for task in live.TASKS}
    for row in rows:
        if row["method"] == "Random":
            assert float(row["cost_share"]) >= float(row["at"].rstrip("%")) / 100
        assert 0 < float(row["test_accuracy"]) < 1
        shown = trained[replay.parse_shape(row["answer"]), 3]
        assert float(row["latency"]) == pytest.approx(shown.latency, rel=1e-4)
    summary = out.with_name("live-summary.csv").read_text()
    assert summary.count("Random: test_accuracy") == 4  # Two tasks at two budgets.
    assert out.with_suffix(".json").exists()

    written = {path.name: path.read_bytes() for path in out.parent.iterdir()}
    for more in ([], ["--summary"]):
        again = subprocess.run([*command, *more], check=True, timeout=300, capture_output=True)
        assert b"training," not in again.stdout
        assert {path.name: path.read_bytes() for path in out.parent.iterdir()} == written
