from __future__ import annotations

from collections.abc import Callable

import optuna
from problems import formula_objective

from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape import ShapeSampler
from optuna_shape.report.figures import shape_map

MakeProblem = Callable[..., ShapeProblem]


def searched(problem: ShapeProblem, trials: int) -> optuna.Study:
    study = optuna.create_study(direction=problem.direction, sampler=ShapeSampler(problem, seed=0))
    study.optimize(formula_objective(problem), n_trials=trials)
    return study


def test_the_map_shows_what_is_known_of_every_shape(make_problem: MakeProblem) -> None:
    problem = make_problem("accuracy", ("latency <= 1 ms", "size <= 500 kB"))
    study = searched(problem, 7)
    figure = shape_map(problem, study)
    traces = {trace.name: trace for trace in figure.data[1:]}

    def marked(name: str) -> set[Shape]:
        return {Shape(int(y), int(x)) for x, y in zip(traces[name].x, traces[name].y)}

    removed = {s for name in traces if name.startswith("removed: ") for s in marked(name)}
    assert removed == set(problem.space.shapes) - set(problem.feasible(study))
    assert marked("trained") == {Shape(t.params["depth"], t.params["width"]) for t in study.trials}
    best = problem.best(study)
    assert best is not None
    assert marked("answer") == {best.shape}
    heat = figure.data[0]
    for row, depth in enumerate(problem.space.depths):
        for column, width in enumerate(problem.space.widths):
            value = heat.z[row][column]
            assert (value is None) == (Shape(depth, width) in removed)
            assert value is None or 0 <= value <= 100
    assert "trained: accuracy" in traces["trained"].text[0]


def test_the_map_before_any_training_has_no_answer(make_problem: MakeProblem) -> None:
    problem = make_problem()
    figure = shape_map(problem, searched(problem, 0))
    assert "answer" not in {trace.name for trace in figure.data}
