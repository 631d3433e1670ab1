"""Whole searches where accuracies are odd: the end is reached, and what is said of it is right."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from problems import formula_objective
from problems import surface

from optuna_shape import DesignSpace
from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape import ShapePruner
from optuna_shape import ShapeSampler
from optuna_shape import ShapeTerminator
from optuna_shape import StudyMismatch
from optuna_shape.records import StudyRecords

MakeProblem = Callable[..., ShapeProblem]
EPOCHS = 10


def search(
    problem: ShapeProblem,
    accuracy: Callable[[Shape], float],
    *,
    trials: int | None = None,
    objective: Callable[[optuna.Trial], float] | None = None,
) -> optuna.Study:
    study = optuna.create_study(
        direction=problem.direction,
        sampler=ShapeSampler(problem, seed=0),
        pruner=ShapePruner(problem),
    )
    study.optimize(
        objective or formula_objective(problem, accuracy, problem.epochs or 0),
        n_trials=trials,
        callbacks=[ShapeTerminator(problem)],
    )
    return study


def stop_of(study: optuna.Study) -> dict[str, object]:
    stop = StudyRecords(study).stop()
    assert stop is not None
    return stop


def trained(study: optuna.Study) -> int:
    return sum(trial.state == TrialState.COMPLETE for trial in study.trials)


@pytest.mark.parametrize("level", [0.0, 0.5, 0.9, 1.0])
def test_constant_accuracies(make_problem: MakeProblem, level: float) -> None:
    problem = make_problem(epochs=EPOCHS)
    study = search(problem, lambda shape: level)
    # Near 1 half a percent of accuracy is much of the error, and soon out of reach.
    if level >= 0.9:
        assert stop_of(study)["kind"] == "certain"
        assert trained(study) < len(problem.space) / 3
    best = problem.best(study)
    assert best is not None
    assert best.accuracy == level


@pytest.mark.parametrize("goal", ["accuracy", "latency"])
def test_one_shape(make_problem: MakeProblem, goal: str) -> None:
    constraints = () if goal == "accuracy" else ("accuracy >= 50 %",)
    problem = make_problem(goal, constraints, depth=[3], width=[8])
    study = search(problem, surface)
    assert stop_of(study)["kind"] == "exhausted"
    best = problem.best(study)
    assert best is not None
    assert best.shape == Shape(3, 8)


def test_accuracies_of_exactly_0_and_1_mix_with_others(make_problem: MakeProblem) -> None:
    problem = make_problem(epochs=EPOCHS)

    def steps(shape: Shape) -> float:
        return 0.0 if shape.depth < 2 else 1.0 if shape.width >= 16 else surface(shape)

    study = search(problem, steps)
    best = problem.best(study)
    assert best is not None
    assert best.accuracy == 1.0
    assert stop_of(study)["kind"] == "certain", "nothing is better than 1"


def test_diverged_trainings_are_left_alone(make_problem: MakeProblem) -> None:
    problem = make_problem(epochs=EPOCHS)

    def diverging(shape: Shape) -> float:
        return math.nan if shape.depth >= 5 else surface(shape)

    study = search(problem, diverging)
    best = problem.best(study)
    assert best is not None
    assert best.shape.depth == 4
    failed = [t for t in study.trials if t.state == TrialState.FAIL]
    assert failed
    assert all("diverged" in t.user_attrs["reason"] for t in failed)
    counts = [sum(t.params == other.params for t in failed) for other in failed]
    assert max(counts) <= 2
    diverging_shapes = sum(shape.depth >= 5 for shape in problem.space.shapes)
    assert len({tuple(t.params.items()) for t in failed}) <= diverging_shapes / 2


@pytest.mark.parametrize("goal", ["latency", "size"])
def test_a_threshold_that_everything_reaches_needs_few_trainings(
    make_problem: MakeProblem, goal: str
) -> None:
    problem = make_problem(goal, ("accuracy >= 10 %",), depth=range(1, 10))
    study = search(problem, surface)
    best = problem.best(study)
    assert best is not None
    assert best.shape == Shape(1, 4), "the cheapest of all, the first that is trained"
    assert trained(study) <= 6


def test_a_threshold_that_nothing_reaches_is_said_early(make_problem: MakeProblem) -> None:
    problem = make_problem("size", ("accuracy >= 99.9 %",), depth=range(1, 10))
    study = search(problem, surface)
    assert stop_of(study)["kind"] == "hopeless"
    assert trained(study) < len(problem.space) / 2


def test_a_space_of_5000_shapes() -> None:
    space = DesignSpace(range(1, 51), range(4, 404, 4))
    problem = ShapeProblem(space, "accuracy", training_cost=lambda s: s.depth * s.width**2)
    study = search(problem, surface, trials=9)
    shapes = {Shape(t.params["depth"], t.params["width"]) for t in study.trials}
    assert len(space) == 5000
    assert len(shapes) == len(study.trials) == 9
    late = [t.value or 0.0 for t in study.trials[5:]]
    assert max(late) > max(t.value or 0.0 for t in study.trials[:5])


def test_other_epochs_are_another_problem(make_problem: MakeProblem) -> None:
    problem = make_problem(epochs=EPOCHS)
    study = search(problem, surface, trials=2)
    longer = make_problem(epochs=2 * EPOCHS)
    study.sampler = ShapeSampler(longer)
    with pytest.raises(StudyMismatch, match="epochs 10 in the study, 20 here"):
        study.optimize(formula_objective(longer), n_trials=1)
    assert trained(study) == 2


def test_a_spoilt_second_training_is_not_asked_for_again(make_problem: MakeProblem) -> None:
    for ending in (float("nan"), None):
        problem = make_problem("latency", ("accuracy >= 78.3 %",))
        seen: set[Shape] = set()

        def objective(
            trial: optuna.Trial,
            problem: ShapeProblem = problem,
            seen: set[Shape] = seen,
            ending: float | None = ending,
        ) -> float:
            shape = problem.suggest(trial)
            if shape not in seen:
                seen.add(shape)
                # All near the threshold, so that second trainings are wanted.
                return problem.record(trial, 0.783 + 0.002 * math.sin(7 * shape.width))
            if ending is None:
                raise optuna.TrialPruned
            return problem.record(trial, ending)

        study = search(problem, surface, objective=objective, trials=80)
        again = [t for t in study.trials if t.state in (TrialState.FAIL, TrialState.PRUNED)]
        shapes = [Shape(t.params["depth"], t.params["width"]) for t in again]
        assert shapes, "no second training was wanted, so nothing is tested"
        assert len(shapes) == len(set(shapes))
        assert StudyRecords(study).stop() is not None


def test_what_a_foreign_pruner_keeps_cutting_stays_in_the_regret(
    make_problem: MakeProblem,
) -> None:
    problem = make_problem(epochs=EPOCHS, depth=range(1, 8))

    class CutWide(optuna.pruners.BasePruner):
        def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
            return trial.params["width"] >= 16 and trial.last_step == 2

    study = optuna.create_study(
        direction="maximize", sampler=ShapeSampler(problem, seed=0), pruner=CutWide()
    )
    study.optimize(
        formula_objective(problem, surface, EPOCHS), callbacks=[ShapeTerminator(problem)]
    )
    stop = stop_of(study)
    assert stop["kind"] == "exhausted", "the best shapes were never trained"
    assert "cut repeatedly" in str(stop["reason"])


def test_a_threshold_that_was_just_missed_is_not_hopeless(make_problem: MakeProblem) -> None:
    problem = make_problem("latency", (f"accuracy >= {surface(Shape(6, 24)) - 0.001}",))
    times: Counter[Shape] = Counter()

    def unlucky(shape: Shape) -> float:
        times[shape] += 1
        return surface(shape) - (0.002 if times[shape] == 1 else -0.004)

    study = search(problem, unlucky)
    assert times[Shape(6, 24)] == 2, "one training of it was below the threshold"
    best = problem.best(study)
    assert best is not None
    assert best.shape == Shape(6, 24)


def test_a_thread_that_asks_ahead_does_not_wait_for_itself(make_problem: MakeProblem) -> None:
    problem = make_problem(depth=[1], width=[4, 8])
    study = optuna.create_study(direction="maximize", sampler=ShapeSampler(problem, seed=0))
    shapes = {problem.suggest(study.ask()) for _ in range(2)}
    assert shapes == set(problem.space.shapes)
    with pytest.raises(optuna.TrialPruned, match="2 shapes are in training"):
        problem.suggest(study.ask())


def curves(problem: ShapeProblem, jitter: float, dip: float) -> Callable[[optuna.Trial], float]:
    """Trainings whose curves scatter by ``jitter`` and fall by ``dip`` half-way."""
    chance = np.random.default_rng(0)

    def objective(trial: optuna.Trial) -> float:
        shape = problem.suggest(trial)
        final = surface(shape) + 0.002 * chance.standard_normal()
        for epoch in range(1, EPOCHS):
            mean = final * (1 - 0.4 * math.exp(-4 * epoch / EPOCHS)) - dip * (4 <= epoch <= 7)
            trial.report(float(np.clip(mean + jitter * chance.standard_normal(), 0, 1)), epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        trial.report(final, EPOCHS)
        return problem.record(trial, final)

    return objective


@pytest.mark.parametrize(("jitter", "dip"), [(0.08, 0.0), (0.0, 0.3), (0.03, 0.2)])
def test_jittery_and_falling_curves_lose_no_answer(
    make_problem: MakeProblem, jitter: float, dip: float
) -> None:
    problem = make_problem(epochs=EPOCHS, depth=range(1, 8))
    study = optuna.create_study(
        direction="maximize", sampler=ShapeSampler(problem, seed=0), pruner=ShapePruner(problem)
    )
    study.optimize(curves(problem, jitter, dip), n_trials=25)  # Past the terminator's stop.
    cut = {t.params["width"] for t in study.trials if t.state == TrialState.PRUNED}
    if jitter == 0.0:
        assert cut, "smooth curves say enough"
    best = problem.best(study)
    assert best is not None
    assert surface(best.shape) >= max(map(surface, problem.space.shapes)) - 0.01
