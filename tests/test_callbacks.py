from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from problems import formula_objective
from problems import surface

from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape import ShapeSampler
from optuna_shape import ShapeTerminator
from optuna_shape.records import StudyRecords
from optuna_shape.records import is_replicate

MakeProblem = Callable[..., ShapeProblem]


def make_study(problem: ShapeProblem, **options: object) -> optuna.Study:
    sampler = ShapeSampler(problem, seed=0)
    return optuna.create_study(direction=problem.direction, sampler=sampler, **options)  # type: ignore[arg-type]


def trained(study: optuna.Study) -> int:
    return sum(trial.state == TrialState.COMPLETE for trial in study.trials)


@pytest.mark.parametrize(
    ("goal", "constraints"),
    [("accuracy", ()), ("accuracy", ("latency <= 1 ms",)), ("latency", ("accuracy >= 85 %",))],
)
def test_stops_early_with_a_good_answer_and_says_why(
    make_problem: MakeProblem, goal: str, constraints: tuple[str, ...]
) -> None:
    problem = make_problem(goal, constraints, depth=range(1, 10), width=range(4, 33, 4))
    study = make_study(problem)
    study.optimize(formula_objective(problem), callbacks=[ShapeTerminator(problem)])
    feasible = problem.feasible(study)
    assert 6 <= trained(study) < len(feasible) / 2
    stop = StudyRecords(study).stop()
    assert stop is not None
    assert stop["kind"] == "certain"
    assert stop["probability"] <= stop["delta"]
    assert StudyRecords(study).certainties()[study.trials[-1].number] == stop["probability"]
    best = problem.best(study)
    assert best is not None
    if goal == "accuracy":
        assert surface(best.shape) >= max(surface(s) for s in feasible) - 0.006
    else:
        reaching = [s for s in feasible if surface(s) >= 0.85]
        screening = problem.screen(study)
        cheapest = min(screening.value("latency", s) or 0 for s in reaching)
        assert best.latency is not None
        assert best.latency <= 1.06 * cheapest


def test_says_early_that_nothing_reaches_the_accuracy(make_problem: MakeProblem) -> None:
    problem = make_problem("latency", ("accuracy >= 99.9 %",), depth=range(1, 10))
    study = make_study(problem)
    study.optimize(formula_objective(problem), callbacks=[ShapeTerminator(problem)])
    stop = StudyRecords(study).stop()
    assert stop is not None
    assert stop["kind"] == "hopeless"
    assert trained(study) < len(problem.space) / 2
    assert problem.best(study) is None


def test_the_stop_is_a_stored_fact_for_every_worker(
    make_problem: MakeProblem, tmp_path: Path
) -> None:
    storage = f"sqlite:///{tmp_path / 's.db'}"
    problem = make_problem("latency", ("accuracy >= 85 %",), depth=range(1, 10))
    study = make_study(problem, storage=storage, study_name="s")
    study.optimize(formula_objective(problem), callbacks=[ShapeTerminator(problem)])
    before = trained(study)
    other = make_problem("latency", ("accuracy >= 85 %",), depth=range(1, 10))
    again = optuna.load_study(study_name="s", storage=storage, sampler=ShapeSampler(other))
    again.optimize(formula_objective(other))
    assert trained(again) == before


def test_it_waits_for_enough_trainings(make_problem: MakeProblem) -> None:
    problem = make_problem(depth=range(1, 4))
    study = make_study(problem)
    study.optimize(
        formula_objective(problem, lambda shape: 0.9), callbacks=[ShapeTerminator(problem)]
    )
    assert trained(study) >= 6


def wide(shape: Shape) -> float:
    """An accuracy that grows with width above all."""
    return 0.95 - 0.3 * shape.depth**-0.2 * (shape.width / 4) ** -0.5


def lucky(lucky_shape: Shape) -> Callable[[Shape], float]:
    """The same, but the first training of one shape is lucky."""
    times: Counter[Shape] = Counter()

    def accuracy(shape: Shape) -> float:
        times[shape] += 1
        return wide(shape) + (0.006 if shape == lucky_shape and times[shape] == 1 else 0.0)

    return accuracy


def test_a_lucky_answer_to_a_cost_goal_is_trained_again(make_problem: MakeProblem) -> None:
    candidate = Shape(2, 8)
    bound = wide(candidate) + 0.0035  # Between what it shows at first and what it is worth.
    problem = make_problem("size", (f"accuracy >= {bound}",))
    study = make_study(problem)
    cheaper = [*((depth, 4) for depth in range(1, 7)), (1, 8)]
    for depth, width in (*cheaper, candidate):
        study.enqueue_trial({"depth": depth, "width": width})
    objective, records = formula_objective(problem, lucky(candidate)), StudyRecords(study)
    study.optimize(objective, n_trials=len(cheaper) + 1, callbacks=[ShapeTerminator(problem)])
    best = problem.best(study)
    assert best is not None
    assert best.shape == candidate
    assert records.stop() is None, "nothing cheaper is left, but the answer may have been lucky"
    study.optimize(objective, n_trials=1, callbacks=[ShapeTerminator(problem)])
    assert len(records.history().accuracies[candidate]) == 2
    assert [is_replicate(t) for t in study.trials] == [False] * (len(cheaper) + 1) + [True]
    study.optimize(objective, callbacks=[ShapeTerminator(problem)])
    stop, best = records.stop(), problem.best(study)
    assert stop is not None
    assert best is not None
    assert best.shape != candidate, "the mean of two trainings is below the bound"
    assert f"study.best_trial is shape {candidate}, but over all its trainings" in best.note
    assert stop["reaches"] >= 0.95 or len(records.history().accuracies[best.shape]) == 2


def test_no_probability_is_stated_before_the_model_knows_enough(
    make_problem: MakeProblem,
) -> None:
    problem = make_problem()
    study = make_study(problem)
    study.optimize(
        formula_objective(problem), n_trials=7, callbacks=[ShapeTerminator(problem, delta=1e-6)]
    )
    assert sorted(StudyRecords(study).certainties()) == [5, 6]


@pytest.mark.parametrize("options", [{"epsilon": -0.1}, {"epsilon": 1.0}, {"delta": 0.0}])
def test_options_are_checked(make_problem: MakeProblem, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="fraction|probability"):
        ShapeTerminator(make_problem(), **options)


def test_terminator_survives_a_study_where_all_failed(make_problem: MakeProblem) -> None:
    problem = make_problem(depth=[1], width=[4, 8])
    study = make_study(problem)
    study.optimize(
        formula_objective(problem, lambda shape: float("nan")),
        callbacks=[ShapeTerminator(problem)],
    )
    assert trained(study) == 0
    assert problem.best(study) is None
    assert problem.screen(study).feasible == (Shape(1, 4), Shape(1, 8))
