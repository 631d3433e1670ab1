from __future__ import annotations

from collections.abc import Callable

import optuna
from optuna.trial import TrialState

from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape.report.comparison import training_cost


def test_epochs_reported_again_on_resuming_count_once(
    make_problem: Callable[..., ShapeProblem],
) -> None:
    problem = make_problem(depth=[1, 2], width=[4], epochs=4)
    study = optuna.create_study(direction="maximize")
    screening = problem.screen(study)

    def train(shape: Shape, curve: list[float], state: TrialState) -> None:
        study.enqueue_trial({"depth": shape.depth, "width": shape.width})
        trial = study.ask()
        assert problem.suggest(trial) == shape
        for epoch, accuracy in enumerate(curve, start=1):
            trial.report(accuracy, epoch)
        study.tell(
            trial, problem.record(trial, curve[-1]) if state.name == "COMPLETE" else None, state
        )

    train(Shape(1, 4), [0.5, 0.6, 0.7], TrialState.FAIL)
    train(Shape(1, 4), [0.5, 0.6, 0.7, 0.8], TrialState.COMPLETE)
    cost = training_cost(problem, screening, study.trials)
    # (2, 4) costs twice as much.
    assert (cost.epochs, cost.share) == (4, 1 / 3)
    # Another seed is another training.
    train(Shape(2, 4), [0.4, 0.5], TrialState.FAIL)
    train(Shape(2, 4), [0.41, 0.5, 0.6, 0.7], TrialState.COMPLETE)
    assert training_cost(problem, screening, study.trials).epochs == 4 + 2 + 4 - 1
