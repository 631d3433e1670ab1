"""What the sections are written from, and how figures and texts stand in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_shape.constraints import GOAL_COSTS
from optuna_shape.constraints import format_quantity
from optuna_shape.filters import Screening
from optuna_shape.posterior import Belief
from optuna_shape.posterior import believe
from optuna_shape.problem import Answer
from optuna_shape.problem import ShapeProblem
from optuna_shape.records import ACCURACY
from optuna_shape.records import History
from optuna_shape.records import StudyRecords
from optuna_shape.report.comparison import known_accuracies
from optuna_shape.space import Shape

UNKNOWN = "-"
_MOST_CHARACTERS = 300


class Facts:
    """What is known of a study whose shapes have been measured.

    Args:
        problem: What is asked.
        study: Where it is searched.
        checkpoint: Where the answer's trained network is kept, if that is known.
    """

    def __init__(
        self, problem: ShapeProblem, study: Study, checkpoint: str | Path | None = None
    ) -> None:
        self.problem = problem
        self.study = study
        self.checkpoint = checkpoint
        self.screening: Screening = problem.screen(study)
        self.belief: Belief = believe(problem, study)
        self.best: Answer | None = problem.best(study)
        self.history: History = self.belief.history
        self.known = known_accuracies(self.belief)
        records = StudyRecords(study)
        self.stop: dict[str, Any] | None = records.stop()
        self.certainties = records.certainties()
        self.trials: list[FrozenTrial] = records.trials()
        measured = self.screening.measurements
        #: The costs that are known of some shape.
        self.costs = tuple(name for name in GOAL_COSTS if measured.get(name))

    def numbers(self, shape: Shape) -> list[int]:
        """The trials that trained a shape to the end."""
        return [n for n in sorted(self.history.trained) if self.history.shapes[n] == shape]

    def cost(self, name: str, shape: Shape) -> str:
        """A measured cost, in a unit for people."""
        value = self.screening.value(name, shape)
        return UNKNOWN if value is None else format_quantity(name, value)


def percent(value: float) -> str:
    """An accuracy."""
    return format_quantity(ACCURACY, value)


def share(value: float) -> str:
    """A share of something else than images."""
    return f"{100 * value:.1f} %"


def limit(text: str, screening: Screening | None = None) -> str:
    """A limit; one that is relative to a shape with its value here."""
    shown = text.replace("<=", "≤").replace(">=", "≥")
    if screening is None or " of " not in text or text not in screening.bounds:
        return shown
    return f"{shown}, here {format_quantity(text.partition(' ')[0], screening.bounds[text])}"


def shortened(text: str) -> str:
    """A text of anybody's, cut where it is no longer read."""
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]} ..."
