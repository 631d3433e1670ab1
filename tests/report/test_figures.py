from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import optuna
import plotly.graph_objects as go
import pytest
from problems import formula_objective
from problems import latency
from problems import surface

from optuna_shape import InvalidProblem
from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape import ShapeSampler
from optuna_shape import ShapeTerminator
from optuna_shape.records import StudyRecords
from optuna_shape.report import certainty
from optuna_shape.report import learning_curves
from optuna_shape.report import shape_map
from optuna_shape.report import tradeoff
from optuna_shape.report.figures._style import plain
from optuna_shape.report.figures._tradeoff import pareto_front
from optuna_shape.report.grid_map import grid_map

MakeProblem = Callable[..., ShapeProblem]
EVIL = "<b>x</b><a href=y>%{meta}</a>"
FIGURES = [shape_map, tradeoff, learning_curves, certainty]


def searched(problem: ShapeProblem, trials: int, **options: Any) -> optuna.Study:
    study = optuna.create_study(direction=problem.direction, sampler=ShapeSampler(problem, seed=0))
    objective = formula_objective(problem, **options)
    study.optimize(objective, n_trials=trials, callbacks=[ShapeTerminator(problem)])
    return study


def named(figure: go.Figure) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data if trace.name}


def place(text: str) -> Shape:
    depth, width = text.strip("()").split(",")
    return Shape(int(depth), int(width))


def cut(problem: ShapeProblem, study: optuna.Study, shape: Shape, epochs: int, *, of: int) -> None:
    """Train a shape for a few epochs, and let the user end it."""
    study.enqueue_trial(dict(zip(("depth", "width"), shape)))

    def objective(trial: optuna.Trial) -> float:
        final = surface(problem.suggest(trial))
        for epoch in range(1, epochs + 1):
            trial.report(final * (1 - 0.5 * math.exp(-3 * epoch / of)), epoch)
        raise optuna.TrialPruned

    study.optimize(objective, n_trials=1)


def test_the_map_shows_what_is_known_of_every_shape(make_problem: MakeProblem) -> None:
    problem = make_problem("accuracy", ("latency <= 1 ms", "size <= 500 kB"))
    study = searched(problem, 7)
    figure = shape_map(problem, study)
    traces = named(figure)

    def marked(name: str) -> set[Shape]:
        return {Shape(int(y), int(x)) for x, y in zip(traces[name].x, traces[name].y)}

    removed = {s for name in traces if name.startswith("removed: ") for s in marked(name)}
    assert removed == set(problem.space.shapes) - set(problem.feasible(study))
    best = problem.best(study)
    assert best is not None
    assert marked("answer") == {best.shape}
    shapes = {Shape(t.params["depth"], t.params["width"]) for t in study.trials}
    assert marked("trained") == shapes - {best.shape}
    heat = figure.data[0]
    for row, depth in enumerate(problem.space.depths):
        for column, width in enumerate(problem.space.widths):
            value = heat.z[row][column]
            assert (value is None) == (Shape(depth, width) in removed)
            assert value is None or 0 <= value <= 100
    assert "trained: accuracy" in traces["trained"].hovertext[0]
    assert "predicted accuracy" in heat.hovertemplate
    assert not heat.showscale, "numbers stand in the cells"


def test_the_map_before_any_training_has_no_answer(make_problem: MakeProblem) -> None:
    problem = make_problem()
    figure = shape_map(problem, searched(problem, 0))
    assert "answer" not in named(figure)
    heat = figure.data[0]
    assert not heat.showscale
    assert heat.texttemplate is None
    assert "predicted" not in heat.hovertemplate, "nothing is known to predict from"


def test_before_any_training_nothing_is_predicted_of_a_cost(make_problem: MakeProblem) -> None:
    problem = make_problem("accuracy", ("latency <= 1 ms",))
    figure = tradeoff(problem, searched(problem, 0))
    assert not figure.data
    assert "No shape has been trained yet." in [a.text for a in figure.layout.annotations]


def test_the_map_shows_what_is_in_training(make_problem: MakeProblem) -> None:
    problem = make_problem()
    study = searched(problem, 3)
    shape = problem.suggest(study.ask())
    (x,), (y,) = (named(shape_map(problem, study))["in training"][axis] for axis in "xy")
    assert (int(y), int(x)) == shape


@pytest.mark.parametrize("property", ["latency", "energy", "size"])
def test_the_tradeoff_tells_measured_from_predicted(
    make_problem: MakeProblem, property: str
) -> None:
    limits = ("accuracy >= 60 %", "latency <= 0.8 ms", "energy <= 20 mJ", "size <= 1 MB")
    problem = make_problem("accuracy", limits)
    study = searched(problem, 8)
    figure = tradeoff(problem, study, property)
    traces = named(figure)
    best = problem.best(study)
    assert best is not None
    assert [place(text) for text in traces["answer"].text] == [best.shape]
    shown = {
        place(text): y
        for text, y in zip(traces["trained: measured"].text, traces["trained: measured"].y)
    }
    assert set(shown) == {Shape(t.params["depth"], t.params["width"]) for t in study.trials}
    assert all(abs(y / 100 - surface(shape)) < 1e-3 for shape, y in shown.items())
    (predicted,) = (trace for name, trace in traces.items() if "predicted" in name)
    others = {place(text.partition(":")[0]) for text in predicted.text}
    assert others == set(problem.feasible(study)) - set(shown)
    assert min(predicted.error_y.array) >= 0
    assert "predicted" in predicted.hovertemplate
    assert len(figure.layout.shapes) == 2  # A line for each limit that has an axis here.


def test_costs_are_in_the_unit_of_the_axis(make_problem: MakeProblem) -> None:
    problem = make_problem("accuracy", ("latency <= 0.8 ms",))
    figure = tradeoff(problem, searched(problem, 6))
    measured = named(figure)["trained: measured"]
    size = {"us": 1e-6, "ms": 1e-3}[figure.layout.xaxis.title.text.removeprefix("latency, ")]
    for text, x in zip(measured.text, measured.x):
        assert x * size == pytest.approx(latency(place(text)), rel=1e-3)
    (line,) = figure.layout.shapes
    assert line.x0 * size == pytest.approx(0.8e-3)


def test_what_was_not_measured_is_no_tradeoff(make_problem: MakeProblem) -> None:
    problem = make_problem("accuracy", ("latency <= 0.8 ms",))
    study = searched(problem, 1)
    with pytest.raises(InvalidProblem, match="There is latency"):
        tradeoff(problem, study, "size")


def test_no_other_point_beats_one_of_the_front() -> None:
    points = {0: (1.0, 0.5), 1: (2.0, 0.5), 2: (2.0, 0.9), 3: (3.0, 0.8), 4: (0.5, 0.1)}
    assert pareto_front(points) == [4, 0, 2]
    assert pareto_front({}) == []


def test_curves_show_what_became_of_each_training(make_problem: MakeProblem) -> None:
    problem = make_problem(epochs=8)
    study = searched(problem, 6, epochs=8)
    cut(problem, study, Shape(6, 24), 4, of=8)
    cut(problem, study, Shape(6, 16), 1, of=8)
    figure = learning_curves(problem, study)
    kinds = [trace.name for trace in figure.data]
    best = problem.best(study)
    assert best is not None
    assert kinds.count("trained to the end") == 5
    assert kinds.count("the answer") == 1
    assert kinds.count("cut short") == 2
    # After one epoch nothing says how much a single one scatters; it does here after three.
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    assert all("predicted" in band.name for band in bands)
    (band,) = (band for band in bands if band.x[0] == 4)
    assert band.x == (4, 8, 8)
    assert band.y[2] <= 100 * surface(Shape(6, 24)) <= band.y[1]
    curve = next(t for t in figure.data if t.name == "cut short" and len(t.x) == 4)
    assert "predicted end" in curve.hovertemplate
    assert "(6, 24), trial 6" in curve.hovertemplate


def test_of_many_long_curves_those_are_drawn_that_tell_most(make_problem: MakeProblem) -> None:
    problem = make_problem(depth=range(1, 9), width=range(4, 44, 4), epochs=250)
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())
    for shape in reversed(problem.space.shapes):
        study.enqueue_trial(shape._asdict())
    study.optimize(formula_objective(problem, epochs=250), n_trials=79)
    running = study.ask()
    problem.suggest(running)
    running.report(0.3, 1)
    figure = learning_curves(problem, study)
    curves = [trace for trace in figure.data if trace.hovertemplate]
    assert len(curves) == 60
    assert "80 trainings reported, 0 of them were cut short. 20 are left out" in (
        figure.layout.title.subtitle.text.replace("<br>", " ")
    )
    numbers = {int(re.findall(r"trial (\d+)", trace.hovertemplate)[0]) for trace in curves}
    best = problem.best(study)
    assert best is not None
    ranked = sorted(study.trials[:79], key=lambda trial: -trial.values[0])
    assert {best.trial.number, 79, *(trial.number for trial in ranked[:20])} <= numbers
    assert max(b - a for a, b in pairwise(sorted(numbers))) <= 3, "the others lie all over"
    longest = max(curves, key=lambda trace: len(trace.x))
    assert (len(longest.x), longest.x[0], longest.x[-1]) == (100, 1, 250)
    assert len(figure.to_json()) < 130_000


def test_few_curves_predict_nothing(make_problem: MakeProblem) -> None:
    problem = make_problem(epochs=8)
    study = searched(problem, 2, epochs=8)
    cut(problem, study, Shape(6, 24), 4, of=8)
    figure = learning_curves(problem, study)
    assert not [trace for trace in figure.data if trace.fill == "toself"]


def test_certainty_shows_where_the_search_stopped(make_problem: MakeProblem) -> None:
    problem = make_problem("size", ("accuracy >= 80 %",))
    study = searched(problem, 30)
    stop = StudyRecords(study).stop()
    assert stop is not None
    figure = certainty(problem, study)
    traces = named(figure)
    line = traces["probability after the training"]
    assert dict(zip(line.x, line.y)) == {
        number: pytest.approx(100 * value, abs=0.01)
        for number, value in StudyRecords(study).certainties().items()
    }
    assert traces["the search stops at 5 %"].y[0] == 5
    (where,) = traces["stopped here"].x
    assert StudyRecords(study).certainties()[where] == stop["probability"]
    assert "Stopped" in figure.layout.title.subtitle.text


def test_certainty_says_so_where_there_is_none_yet(make_problem: MakeProblem) -> None:
    problem = make_problem()
    figure = certainty(problem, searched(problem, 2))
    assert not figure.data
    assert "too few" in figure.layout.annotations[0].text


@pytest.mark.parametrize("draw", FIGURES)
@pytest.mark.parametrize("trials", [0, 1, 8])
def test_a_dashboard_can_keep_the_figures(
    make_problem: MakeProblem, draw: Callable[..., go.Figure], trials: int
) -> None:
    problem = make_problem("accuracy", ("latency <= 1 ms",), epochs=3)
    text = draw(problem, searched(problem, trials, epochs=3)).to_json()
    assert "NaN" not in text
    assert "bdata" not in text  # How Plotly writes arrays of numpy, which dashboards may not read.
    assert json.loads(text)["layout"].get("template", {}) in ({}, None)
    assert len(text) < 10_000


@pytest.mark.parametrize("draw", FIGURES)
def test_figures_of_large_spaces_stay_small(
    make_problem: MakeProblem, draw: Callable[..., go.Figure]
) -> None:
    problem = make_problem(
        "accuracy", ("latency <= 4 ms",), depth=range(1, 25), width=range(4, 100, 4)
    )
    assert len(draw(problem, searched(problem, 6)).to_json()) < 25_000


def test_marks_in_names_are_shown_as_they_are(make_problem: MakeProblem) -> None:
    def evil(shape: Shape) -> bool:
        return shape != Shape(1, 4)

    evil.__name__ = f"{EVIL}filter"
    limits, widths = ("latency <= 1 ms", "accuracy >= 50 %"), range(4, 84, 4)
    for width in ((4, 8), widths):  # Of wide spaces, reasons stand in templates.
        problem = make_problem("accuracy", limits, width=width, filters=[evil], epochs=3)
        problem.space.name = f"{EVIL}space"
        problem.meter.fingerprint = f"{EVIL}device"  # type: ignore[union-attr]
        study = searched(problem, 2, epochs=3)
        StudyRecords(study).write_certainty(1, 0.5)
        StudyRecords(study).write_stop({"kind": "certain", "reason": f"{EVIL}why", "delta": 0.05})
        drawn = [draw(problem, study) for draw in FIGURES]
        drawn.append(grid_map(problem.space, problem.screen(study)))
        texts = [json.dumps(json.loads(figure.to_json()), ensure_ascii=False) for figure in drawn]
        for text in texts:
            assert "<b>" not in text
            assert "<a href" not in text
            assert "%{meta}" not in text
        shown = plain(EVIL)
        for what, where in (("filter", 0), ("space", 0), ("why", 3), ("space", 4), ("device", 4)):
            assert f"{shown}{what}" in texts[where].replace("<br>", " "), what
