from __future__ import annotations

import math
from collections.abc import Callable

import optuna
import pytest
from optuna.trial import TrialState
from problems import formula_objective
from problems import surface

from optuna_shape import InvalidAccuracy
from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape import ShapePruner
from optuna_shape import ShapeSampler
from optuna_shape.posterior import believe
from optuna_shape.records import StudyRecords

MakeProblem = Callable[..., ShapeProblem]
EPOCHS = 10


def make_study(problem: ShapeProblem, **options: float) -> optuna.Study:
    return optuna.create_study(
        direction=problem.direction,
        sampler=ShapeSampler(problem, seed=0),
        pruner=ShapePruner(problem, **options),
    )


def report_all(
    problem: ShapeProblem, accuracy: Callable[[Shape], float], *, epochs: int = EPOCHS
) -> Callable[[optuna.Trial], float]:
    return formula_objective(problem, accuracy, epochs)


def bad_middle(shape: Shape) -> float:
    """Shapes in the middle of the grid are far worse than the design at its borders."""
    return surface(shape) - (0.3 if shape.width in (8, 12) else 0.0)


def test_cuts_a_hopeless_training_and_says_why(make_problem: MakeProblem) -> None:
    problem = make_problem(epochs=EPOCHS)
    study = make_study(problem)
    enough = ((1, 4), (6, 4), (1, 24), (3, 16), (6, 24), (4, 16), (5, 4), (3, 24))
    for depth, width in enough:
        study.enqueue_trial({"depth": depth, "width": width})
    study.enqueue_trial({"depth": 2, "width": 8})
    study.optimize(report_all(problem, bad_middle), n_trials=9)
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.COMPLETE] * 8 + [TrialState.PRUNED]
    cut = study.trials[8]
    assert 2 <= len(cut.intermediate_values) < EPOCHS
    assert "the probability of ending above" in cut.user_attrs["reason"]
    history = StudyRecords(study).history()
    assert history.cuts[8].shape == Shape(2, 8)
    assert Shape(2, 8) not in history.accuracies, "a cut shape is not a trained one"


class CutAt(optuna.pruners.BasePruner):
    """Somebody else's pruner: it cuts one trial at one epoch."""

    def __init__(self, number: int, epoch: int) -> None:
        self._where = number, epoch

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return (trial.number, trial.last_step) == self._where


def test_what_any_pruner_cuts_informs_the_model(make_problem: MakeProblem) -> None:
    problem = make_problem(epochs=EPOCHS)
    shapes = ((1, 4), (6, 4), (1, 24), (3, 16), (6, 24), (4, 16), (2, 8))
    believed = {}
    for level in (0.0, 0.1):

        def accuracy(shape: Shape, level: float = level) -> float:
            return surface(shape) - (level if shape == Shape(2, 8) else 0.0)

        study = optuna.create_study(
            direction="maximize",
            sampler=ShapeSampler(problem, seed=0),
            pruner=CutAt(len(shapes) - 1, 6),
        )
        for depth, width in shapes:
            study.enqueue_trial({"depth": depth, "width": width})
        study.optimize(report_all(problem, accuracy), n_trials=len(shapes))
        assert study.trials[-1].state == TrialState.PRUNED
        belief = believe(problem, study)
        mean, _ = belief.latent.marginal()
        position = belief.index[Shape(2, 8)]
        believed[level] = 1 - math.exp(-mean[position])
        assert position in belief.untrained
    assert believed[0.0] > believed[0.1] + 0.02


def test_a_cut_shape_that_is_chosen_again_is_trained_in_full(make_problem: MakeProblem) -> None:
    problem = make_problem(epochs=EPOCHS)
    study = make_study(problem)
    study.optimize(report_all(problem, bad_middle))
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    shapes = sorted(Shape(t.params["depth"], t.params["width"]) for t in complete)
    assert shapes == sorted(problem.space.shapes), "without a stop rule all are trained in the end"
    assert any(t.state == TrialState.PRUNED for t in study.trials)


def test_the_best_shape_is_not_cut(make_problem: MakeProblem) -> None:
    problem = make_problem(epochs=EPOCHS)
    study = make_study(problem)
    study.optimize(report_all(problem, surface), n_trials=12)
    best = max(problem.space.shapes, key=surface)
    cut = [t for t in study.trials if t.state == TrialState.PRUNED]
    assert best not in {Shape(t.params["depth"], t.params["width"]) for t in cut}


def test_nothing_is_cut_before_enough_trainings_or_without_epochs(
    make_problem: MakeProblem,
) -> None:
    for epochs, trials in ((EPOCHS, 8), (None, 12)):
        problem = make_problem(epochs=epochs)
        study = make_study(problem)
        study.optimize(report_all(problem, bad_middle), n_trials=trials)
        assert all(trial.state == TrialState.COMPLETE for trial in study.trials)


def test_in_a_cost_goal_only_what_can_no_longer_win_is_cut(make_problem: MakeProblem) -> None:
    problem = make_problem("latency", ("accuracy >= 80 %",), epochs=EPOCHS)
    study = make_study(problem)
    study.enqueue_trial({"depth": 3, "width": 16})
    study.enqueue_trial({"depth": 6, "width": 24})
    study.enqueue_trial({"depth": 1, "width": 8})
    study.optimize(report_all(problem, surface), n_trials=3)
    first, dearer, cheaper = study.trials
    assert first.state == TrialState.COMPLETE
    assert dearer.state == TrialState.PRUNED
    assert "(3, 16) has reached the accuracy" in dearer.user_attrs["reason"]
    assert cheaper.state == TrialState.COMPLETE, "inaccurate, but it could have won"


def test_an_accuracy_in_percent_is_told_at_the_first_report(make_problem: MakeProblem) -> None:
    problem = make_problem(epochs=EPOCHS)
    study = make_study(problem)
    with pytest.raises(InvalidAccuracy, match=r"report\(90.* such as 0.90"):
        study.optimize(report_all(problem, lambda shape: 93.0, epochs=1), n_trials=1)


def test_a_reported_nan_is_not_judged(make_problem: MakeProblem) -> None:
    problem = make_problem(epochs=EPOCHS)
    study = make_study(problem)
    study.optimize(report_all(problem, surface), n_trials=6)
    study.optimize(report_all(problem, lambda shape: math.nan), n_trials=1)
    assert study.trials[-1].state == TrialState.FAIL


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1])
def test_delta_is_a_probability(make_problem: MakeProblem, delta: float) -> None:
    with pytest.raises(ValueError, match="probability between 0 and 1"):
        ShapePruner(make_problem(), delta=delta)
