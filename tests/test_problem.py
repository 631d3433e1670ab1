from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import TrialState
from problems import formula_objective
from problems import latency
from problems import surface
from problems import table
from torch import nn

from optuna_shape import DesignSpace
from optuna_shape import FunctionMeter
from optuna_shape import InvalidAccuracy
from optuna_shape import InvalidProblem
from optuna_shape import InvalidSpace
from optuna_shape import NoFeasibleShape
from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape import ShapeSampler
from optuna_shape import StudyMismatch
from optuna_shape import families
from optuna_shape.records import StudyRecords

MakeProblem = Callable[..., ShapeProblem]


def make_study(problem: ShapeProblem, **options: object) -> optuna.Study:
    options.setdefault("sampler", ShapeSampler(problem, seed=0))
    return optuna.create_study(direction=problem.direction, **options)  # type: ignore[arg-type]


# What may be asked.


@pytest.mark.parametrize(
    ("goal", "constraints", "said"),
    [
        ("speed", (), "Unknown goal 'speed'"),
        ("latency", (), "needs an accuracy constraint"),
        ("size", ("latency <= 2 ms",), "needs an accuracy constraint"),
        ("accuracy", ("latency <= 2 ms", "latency <= 1 ms"), "more than once"),
    ],
)
def test_impossible_questions(
    make_problem: MakeProblem, goal: str, constraints: tuple[str, ...], said: str
) -> None:
    with pytest.raises(InvalidProblem, match=said):
        make_problem(goal, constraints)


@pytest.mark.parametrize(
    ("goal", "constraints"), [("accuracy", ["latency <= 2 ms"]), ("energy", ["accuracy >= 0.9"])]
)
def test_what_nothing_can_measure_is_told_at_once(goal: str, constraints: list[str]) -> None:
    with pytest.raises(InvalidProblem, match="Nothing here can measure"):
        ShapeProblem(DesignSpace([1], [8]), goal, constraints)


def test_epochs_and_mode_are_checked(make_problem: MakeProblem) -> None:
    with pytest.raises(InvalidProblem, match="epochs is 0"):
        make_problem(epochs=0)
    with pytest.raises(InvalidProblem, match="Unknown filter_mode 'some'"):
        make_problem(filter_mode="some")


@pytest.mark.parametrize("goal", ["accuracy", "latency", "energy", "size"])
def test_all_four_goals_end_with_the_best_shape(make_problem: MakeProblem, goal: str) -> None:
    problem = make_problem(
        goal, ("latency <= 1.2 ms", "energy <= 20 mJ", "size <= 600 kB", "accuracy >= 80 %")
    )
    study = make_study(problem)
    study.optimize(formula_objective(problem), n_trials=60)
    allowed = [
        shape
        for shape in problem.space.shapes
        if latency(shape) <= 1.2e-3
        and 20 * latency(shape) <= 20e-3
        and 400 * shape.depth * shape.width**2 <= 600e3
    ]
    assert set(problem.feasible(study)) == set(allowed)
    reaching = [shape for shape in allowed if surface(shape) >= 0.8]
    costs = {
        "accuracy": lambda s: -surface(s),
        "latency": latency,
        "energy": latency,
        "size": lambda s: s.depth * s.width**2,
    }
    best = problem.best(study)
    assert best is not None
    assert costs[goal](best.shape) == pytest.approx(min(costs[goal](s) for s in reaching))
    assert best.trial.number == study.best_trial.number
    assert best.accuracy == surface(best.shape)
    assert best.latency == pytest.approx(latency(best.shape))
    assert best.size == 400 * best.shape.depth * best.shape.width**2
    assert "accuracy" in str(best)


# Hard filters.


def test_nothing_infeasible_is_ever_trained_and_constraints_are_set(
    make_problem: MakeProblem,
) -> None:
    problem = make_problem("accuracy", ("latency <= 0.8 ms",))
    study = make_study(problem)
    study.optimize(formula_objective(problem), n_trials=100)
    shapes = [(t.params["depth"], t.params["width"]) for t in study.trials]
    assert len(shapes) == len(set(shapes)) == len(problem.feasible(study))
    for trial in study.trials:
        assert trial.state == TrialState.COMPLETE
        measured = latency(Shape(trial.params["depth"], trial.params["width"]))
        assert measured <= 0.8e-3
        assert trial.constraints["latency <= 800 us"] == pytest.approx(measured / 0.8e-3 - 1)
        assert trial.user_attrs["latency"] == pytest.approx(measured)


def test_nothing_feasible_is_told_before_training_with_the_nearest_shape(
    make_problem: MakeProblem,
) -> None:
    problem = make_problem("accuracy", ("latency <= 50 us",))
    study = make_study(problem)
    with pytest.raises(NoFeasibleShape, match=r"nearest, \(1, 4\): latency 125 us > 50 us"):
        study.optimize(formula_objective(problem))
    assert not any(trial.state == TrialState.COMPLETE for trial in study.trials)


def test_that_nothing_is_feasible_is_known_to_who_cannot_measure(
    make_problem: MakeProblem,
) -> None:
    problem = make_problem("accuracy", ("latency <= 50 us",))
    study = make_study(problem)
    with pytest.raises(NoFeasibleShape) as first:
        problem.screen(study)
    assert not StudyRecords(study).is_screened(), "which would let trainings begin"
    with pytest.raises(NoFeasibleShape) as second:
        ShapeProblem.from_study(study).screen(study)
    assert str(first.value) == str(second.value)


def test_that_nothing_is_feasible_is_asked_anew_by_who_can_measure(
    make_problem: MakeProblem,
) -> None:
    study = make_study(make_problem())
    with pytest.raises(NoFeasibleShape):
        make_problem(filters=[lambda shape: False]).screen(study)
    assert StudyRecords(study).unfit() is not None
    assert make_problem(filters=[lambda shape: shape.width < 8]).feasible(study)
    assert StudyRecords(study).unfit() is None


def test_a_relative_constraint_follows_its_reference(make_problem: MakeProblem) -> None:
    problem = make_problem("accuracy", ("latency <= 50 % of (6, 24)",))
    study = make_study(problem)
    limit = latency(Shape(6, 24)) / 2
    assert set(problem.feasible(study)) == {
        shape for shape in problem.space.shapes if latency(shape) <= limit
    }


def test_a_filter_of_the_user_takes_part(make_problem: MakeProblem) -> None:
    def only_multiples_of_eight(shape: Shape) -> bool:
        return shape.width % 8 == 0

    problem = make_problem(filters=[only_multiples_of_eight])
    study = make_study(problem)
    assert {shape.width for shape in problem.feasible(study)} == {8, 16, 24}
    verdict = problem.screen(study).verdicts[Shape(1, 4)]
    assert verdict.status == "over"
    assert "only_multiples_of_eight" in verdict.reason


def test_verdicts_survive_a_restart(tmp_path: Path) -> None:
    asked: list[Shape] = []

    def phone(shape: Shape) -> dict[str, float]:
        asked.append(shape)
        return {"latency": latency(shape)}

    storage = f"sqlite:///{tmp_path / 'shapes.db'}"
    feasible = []
    for _ in range(2):
        space = DesignSpace(range(1, 5), [4, 8, 16])
        meter = FunctionMeter(phone, fingerprint="phone")
        problem = ShapeProblem(space, "accuracy", ["latency <= 0.5 ms"], meter=meter)
        study = make_study(problem, study_name="s", storage=storage, load_if_exists=True)
        feasible.append(problem.feasible(study))
    assert feasible[0] == feasible[1]
    assert len(asked) == len(set(asked))

    meter = FunctionMeter(phone, fingerprint="another phone")
    problem = ShapeProblem(space, "accuracy", ["latency <= 0.5 ms"], meter=meter)
    before = len(asked)
    assert problem.feasible(study) == feasible[0]
    assert len(asked) == before, "another device only trains while the search goes on"


def test_a_shape_whose_build_fails_is_excluded_with_its_reason() -> None:
    def build(shape: Shape) -> nn.Module:
        if shape.width == 8:
            raise ValueError("width must divide 12")
        return nn.Linear(shape.width, 2)

    problem = ShapeProblem(DesignSpace([1, 2], [4, 8, 12], build), "accuracy")
    study = make_study(problem)
    assert {shape.width for shape in problem.feasible(study)} == {4, 12}
    assert "width must divide 12" in problem.screen(study).verdicts[Shape(1, 8)].reason

    hopeless = ShapeProblem(DesignSpace([1], [8], build), "accuracy")
    with pytest.raises(NoFeasibleShape, match="width must divide 12"):
        hopeless.feasible(make_study(hopeless))


# Every trial passes problem.suggest.


@pytest.mark.parametrize(
    ("enqueued", "reason"),
    [
        ({"depth": 6, "width": 24}, "is over: "),
        ({"depth": 1, "width": 5}, "is not in the design space"),
    ],
)
def test_an_enqueued_shape_that_may_not_be_trained_is_pruned_with_its_reason(
    make_problem: MakeProblem, enqueued: dict[str, int], reason: str
) -> None:
    problem = make_problem("accuracy", ("latency <= 0.8 ms",))
    study = make_study(problem)
    study.enqueue_trial(enqueued)
    study.optimize(formula_objective(problem), n_trials=3)
    first = study.trials[0]
    assert first.state == TrialState.PRUNED
    assert reason in first.user_attrs["reason"]
    assert any(value > 0 for value in first.constraints.values())
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials[1:])


def test_enqueued_shapes_are_trained_once_and_half_enqueued_ones_completed(
    make_problem: MakeProblem,
) -> None:
    problem = make_problem()
    study = make_study(problem)
    for params in ({"depth": 2, "width": 8}, {"depth": 2, "width": 8}, {"depth": 5}):
        study.enqueue_trial(params)
    study.optimize(formula_objective(problem), n_trials=3)
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.COMPLETE]
    assert "has been trained by trial 0" in study.trials[1].user_attrs["reason"]
    assert study.trials[2].params["depth"] == 5


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe"])
def test_other_samplers_pay_nothing_for_infeasible_shapes(
    make_problem: MakeProblem, sampler: str
) -> None:
    problem = make_problem("accuracy", ("latency <= 0.8 ms",))
    grid = {"depth": list(problem.space.depths), "width": list(problem.space.widths)}
    samplers = {
        "grid": optuna.samplers.GridSampler(grid, seed=0),
        "random": optuna.samplers.RandomSampler(seed=0),
        "tpe": optuna.samplers.TPESampler(seed=0),
    }
    study = make_study(problem, sampler=samplers[sampler])
    study.optimize(formula_objective(problem), n_trials=len(problem.space))
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    shapes = [Shape(t.params["depth"], t.params["width"]) for t in complete]
    assert len(shapes) == len(set(shapes))
    assert all(latency(shape) <= 0.8e-3 for shape in shapes)
    if sampler == "grid":
        assert set(shapes) == set(problem.feasible(study))


def test_a_fixed_trial_needs_no_study(make_problem: MakeProblem) -> None:
    problem = make_problem()
    trial = optuna.trial.FixedTrial({"depth": 2, "width": 8})
    assert problem.suggest(trial) == Shape(2, 8)
    assert problem.record(trial, 0.9) == 0.9


# What trainings return.


@pytest.mark.parametrize(
    ("reported", "said"), [(93, "Did you mean 0.93"), (-0.1, "fraction"), ("high", "'high'")]
)
def test_an_impossible_accuracy_is_told_and_kept(
    make_problem: MakeProblem, reported: object, said: str
) -> None:
    problem = make_problem()
    study = make_study(problem)

    def objective(trial: optuna.Trial) -> float:
        problem.suggest(trial)
        return problem.record(trial, reported)  # type: ignore[arg-type]

    study.optimize(formula_objective(problem), n_trials=2)
    with pytest.raises(InvalidAccuracy, match=said):
        study.optimize(objective, n_trials=1)
    assert [t.state for t in study.trials[:2]] == [TrialState.COMPLETE] * 2
    assert study.trials[2].state == TrialState.FAIL


def test_a_diverged_training_fails_and_the_search_goes_on(make_problem: MakeProblem) -> None:
    problem = make_problem(depth=[1, 2], width=[4, 8])
    study = make_study(problem)

    def accuracy(shape: Shape) -> float:
        return math.nan if shape == Shape(2, 8) else surface(shape)

    study.optimize(formula_objective(problem, accuracy), n_trials=20)
    failed = [t for t in study.trials if t.state == TrialState.FAIL]
    assert {Shape(t.params["depth"], t.params["width"]) for t in failed} == {Shape(2, 8)}
    assert all("diverged" in t.user_attrs["reason"] for t in failed)
    assert len(failed) == 2, "tried once more, then left alone"
    trained = {t.params["width"] for t in study.trials if t.state == TrialState.COMPLETE}
    assert trained == {4, 8}
    assert len(study.trials) <= 6, "and the search ends"
    assert "1 whose trainings failed" in study.trials[-1].user_attrs["reason"]


def test_a_training_that_raises_fails_with_its_reason() -> None:
    space = DesignSpace([1], [4, 8], build=lambda shape: nn.Linear(shape.width, 2))
    problem = ShapeProblem(space, "accuracy")
    study = make_study(problem)

    def train(model: nn.Module, trial: optuna.Trial) -> float:
        raise RuntimeError("the disk is on fire")

    study.optimize(problem.objective(train), n_trials=10, catch=(RuntimeError,))
    assert all("on fire" in t.user_attrs["reason"] for t in study.trials[:4])
    assert [t.state for t in study.trials[:4]] == [TrialState.FAIL] * 4, "two tries a shape"


def test_interruptions_do_not_count_against_a_shape() -> None:
    space = DesignSpace([1], [4], build=lambda shape: nn.Linear(shape.width, 2))
    problem = ShapeProblem(space, "accuracy")
    study = make_study(problem)
    calls = 0

    def train(model: nn.Module, trial: optuna.Trial) -> float:
        nonlocal calls
        calls += 1
        if calls <= 5:
            raise KeyboardInterrupt
        return 0.5

    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            study.optimize(problem.objective(train))
    study.optimize(problem.objective(train))
    best = problem.best(study)
    assert best is not None
    assert best.accuracy == 0.5


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_what_went_wrong_is_not_hidden_where_another_process_has_ended_the_trial(
    kind: type[BaseException],
) -> None:
    space = DesignSpace([1], [4], build=lambda shape: nn.Linear(shape.width, 2))
    problem = ShapeProblem(space, "accuracy")
    study = make_study(problem)

    def train(model: nn.Module, trial: optuna.Trial) -> float:
        study.tell(trial.number, state=TrialState.FAIL)  # As a heartbeat that was missed does.
        raise kind("the first")

    with pytest.raises(kind, match="the first"):
        problem.objective(train)(study.ask())


# Studies.


def test_the_wrong_direction_is_told(make_problem: MakeProblem) -> None:
    problem = make_problem()
    study = optuna.create_study(direction="minimize", sampler=ShapeSampler(problem))
    with pytest.raises(StudyMismatch, match="direction=problem.direction"):
        study.optimize(formula_objective(problem), n_trials=1)


def test_a_study_of_another_problem_is_told_with_the_difference(
    make_problem: MakeProblem,
) -> None:
    problem = make_problem("accuracy", ("latency <= 0.8 ms",))
    study = make_study(problem)
    study.optimize(formula_objective(problem), n_trials=2)
    other = make_problem("accuracy", ("latency <= 0.9 ms",), epochs=3)
    with pytest.raises(StudyMismatch, match=r"constraints .*800 us.*900 us.*epochs None"):
        other.feasible(study)
    assert len(study.trials) == 2


def test_a_study_with_strange_trials_is_told(make_problem: MakeProblem) -> None:
    problem = make_problem()
    study = make_study(problem, sampler=optuna.samplers.RandomSampler())
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(StudyMismatch, match="not of a shape problem"):
        problem.feasible(study)


def test_nothing_is_best_before_a_shape_meets_every_constraint(
    make_problem: MakeProblem,
) -> None:
    problem = make_problem("latency", ("accuracy >= 99 %",))
    study = make_study(problem)
    assert problem.best(study) is None
    study.optimize(formula_objective(problem), n_trials=3)
    assert problem.best(study) is None


def test_from_study_reads_the_problem_back(tmp_path: Path) -> None:
    space = families.mlp(depth=[1, 2], width=[4, 8], input_shape=(1, 4, 4), classes=3)
    problem = ShapeProblem(space, "accuracy", ["size <= 700 B"])
    storage = f"sqlite:///{tmp_path / 'shapes.db'}"
    study = make_study(problem, study_name="s", storage=storage)

    def train(model: nn.Module, trial: optuna.Trial) -> float:
        return float(torch.sigmoid(model(torch.ones(1, 1, 4, 4)).sum()).item())

    study.optimize(problem.objective(train), n_trials=2)
    again = ShapeProblem.from_study(optuna.load_study(study_name="s", storage=storage))
    assert again.describe() == problem.describe()
    assert again.feasible(study) == problem.feasible(study)
    assert again.best(study) == problem.best(study)
    assert sum(p.numel() for p in again.space.build(Shape(2, 8)).parameters()) == sum(
        p.numel() for p in space.build(Shape(2, 8)).parameters()
    )


def test_from_study_without_a_problem_is_told() -> None:
    with pytest.raises(StudyMismatch, match="holds no shape problem"):
        ShapeProblem.from_study(optuna.create_study())


def test_table_and_build_serve_together() -> None:
    space = DesignSpace([1, 2], [4, 8], build=lambda shape: nn.Linear(shape.width, shape.depth))
    problem = ShapeProblem(space, "accuracy", ["latency <= 1 s"], meter=table(space))
    screening = problem.screen(make_study(problem))
    assert screening.value("size", Shape(2, 8)) == 4 * (8 * 2 + 2), "counted, not looked up"


def test_another_device_measures_afresh_and_the_answer_is_within_its_verdicts(
    tmp_path: Path,
) -> None:
    storage = f"sqlite:///{tmp_path / 'shapes.db'}"
    studies = []
    for speed in (1.0, 3.0):
        meter = FunctionMeter(
            lambda shape, speed=speed: {"latency": speed * latency(shape)},
            fingerprint=f"device {speed}",
        )
        space = DesignSpace(range(1, 5), [4, 8, 16])
        problem = ShapeProblem(space, "accuracy", ["latency <= 0.6 ms"], meter=meter)
        study = make_study(problem, study_name="s", storage=storage, load_if_exists=True)
        if speed == 1.0:
            study.optimize(formula_objective(problem))
        else:
            problem.screen(study)
        studies.append((problem, study))
    (fast, first), (slow, study) = studies
    best = slow.best(study)
    assert best is not None
    assert best.shape in slow.feasible(study)
    assert 3 * latency(best.shape) <= 0.6e-3
    assert "not within the constraints as they are measured now" in best.note
    assert StudyRecords(study).stop() is None, "the stop rested on the other device"
    assert fast.feasible(first) != slow.feasible(study)


def test_a_filter_that_is_new_on_resuming_has_its_say(
    make_problem: MakeProblem, tmp_path: Path
) -> None:
    storage = f"sqlite:///{tmp_path / 'shapes.db'}"
    make_problem().feasible(make_study(make_problem(), study_name="s", storage=storage))
    problem = make_problem(filters=[lambda shape: shape.width < 16])
    study = make_study(problem, study_name="s", storage=storage, load_if_exists=True)
    assert {shape.width for shape in problem.feasible(study)} == {4, 8, 12}


def test_a_fixed_trial_of_a_cost_goal_returns_the_cost(make_problem: MakeProblem) -> None:
    problem = make_problem("latency", ("accuracy >= 80 %",))
    trial = optuna.trial.FixedTrial({"depth": 2, "width": 8})
    assert problem.record(trial, 0.9) == pytest.approx(latency(Shape(2, 8)))
    with pytest.raises(InvalidSpace, match="is not in the design space"):
        problem.suggest(optuna.trial.FixedTrial({"depth": 2, "width": 9}))


def test_an_answer_other_than_that_of_the_stop_is_told(make_problem: MakeProblem) -> None:
    problem = make_problem()
    study = make_study(problem)
    study.optimize(formula_objective(problem), n_trials=8)
    best = problem.best(study)
    assert best is not None
    assert best.note == ""
    stop = {"kind": "certain", "reason": "made up", "answer": list(best.shape)}
    StudyRecords(study).write_stop(stop)
    assert problem.best(study).note == ""  # type: ignore[union-attr]
    StudyRecords(study).clear_stop()
    StudyRecords(study).write_stop({**stop, "answer": [1, 4]})
    told = problem.best(study)
    assert told is not None
    assert told.shape == best.shape == Shape(**study.best_params)
    assert "decided for (1, 4), the best by the model" in told.note
