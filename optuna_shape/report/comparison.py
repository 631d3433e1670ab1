"""The answer beside other shapes, and the search beside training everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median_low

from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_shape.filters import Screening
from optuna_shape.posterior import Belief
from optuna_shape.problem import ShapeProblem
from optuna_shape.records import shape_of
from optuna_shape.records import training_time
from optuna_shape.report.predicted import accuracy_interval
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape


@dataclass(frozen=True)
class KnownAccuracy:
    """The accuracy of a shape, measured or predicted.

    Attributes:
        value: A fraction: the mean over its trainings, or what the model predicts.
        low: Lower end of the predicted interval; ``value`` where it was measured.
        high: Upper end.
        trainings: How many trainings were measured; 0 if it is predicted.
    """

    value: float
    low: float
    high: float
    trainings: int


def known_accuracies(belief: Belief) -> dict[Shape, KnownAccuracy]:
    """The accuracy of every shape within the limits; of none before the first is trained."""
    if not belief.means:
        return {}
    ends = (end.tolist() for end in accuracy_interval(belief.latent.marginal()))
    result = {
        shape: KnownAccuracy(value, low, high, 0)
        for shape, value, low, high in zip(belief.shapes, *ends)
    }
    for i, value in belief.means.items():
        shape = belief.shapes[i]
        result[shape] = KnownAccuracy(value, value, value, len(belief.history.accuracies[shape]))
    return result


def base_width(space: DesignSpace) -> int:
    """The width that scaling depth alone leaves as it is: the middle one, of two the lower.

    Families of networks that are scaled in depth keep the width that their authors took first. A
    space does not tell that width; who lays one out puts usual widths into the middle.
    """
    return median_low(space.widths)


def depth_scaled(
    known: Mapping[Shape, KnownAccuracy], width: int, wanted: float | None = None
) -> Shape | None:
    """The shape that scaling depth alone would have led to.

    The network of this width is made deeper until its accuracy, measured or else predicted, is at
    least the wanted one, or until a limit or the space ends it.

    Args:
        known: The accuracy of every shape within the limits.
        width: See :func:`base_width`.
        wanted: An accuracy, a fraction; None if as much of it is wanted as there may be.

    Returns:
        None if no shape of that width is within the limits.

    Example:
        >>> known = {Shape(d, 8): KnownAccuracy(d / 10, 0, 1, 0) for d in (1, 2, 3)}
        >>> tuple(depth_scaled(known, 8, 0.15)), tuple(depth_scaled(known, 8))
        ((2, 8), (3, 8))
    """
    column = sorted(shape for shape in known if shape.width == width)
    reaching = [s for s in column if wanted is not None and known[s].value >= wanted]
    return next(iter(reaching or column[-1:]), None)


def largest(screening: Screening) -> Shape:
    """The shape within the limits that takes most memory; if that is unknown, the deepest."""
    return max(screening.feasible, key=lambda s: (screening.value("size", s) or 0.0, s))


@dataclass(frozen=True)
class TrainingCost:
    """What a search trained.

    Attributes:
        epochs: Reported in all, those of trainings cut short or failed included.
        share: Its cost as a share of training every shape within the limits to the end.
        uncounted: Trainings of shapes whose cost is unknown, as they are not within the limits.
        seconds: What those trainings took that ended by themselves; of others nothing tells.
        timed: Their part of the share.
    """

    epochs: int
    share: float
    uncounted: int
    seconds: float
    timed: float


def training_cost(
    problem: ShapeProblem, screening: Screening, trials: list[FrozenTrial]
) -> TrainingCost:
    """The cost of a search: epochs, each weighed by what the problem takes its shape to cost.

    A training that goes on where another ended reports what that had reported again; that counts
    once.
    """
    costs = problem.costs(screening)
    full = problem.epochs or max([1, *(len(t.intermediate_values) for t in trials)])
    spent, epochs, uncounted, seconds, timed = 0.0, 0, 0, 0.0, 0.0
    before: dict[Shape, dict[int, float]] = {}
    for trial in trials:
        shape, count = shape_of(trial), epochs_of(trial, full)
        if shape is None or count == 0:
            continue
        known, curve = before.get(shape, {}), trial.intermediate_values
        count -= sum(known.get(step) == value for step, value in curve.items())
        before[shape] = curve
        if shape not in costs:
            uncounted += 1
            continue
        spent += costs[shape] * count
        epochs += count
        if (duration := training_time(trial)) is not None:
            seconds += duration.total_seconds()
            timed += costs[shape] * count
    total = full * sum(costs.values())
    return TrainingCost(epochs, spent / total, uncounted, seconds, timed / total)


def epochs_of(trial: FrozenTrial, full: int) -> int:
    """The epochs of a trial; a training that reports none has all of them once it is complete."""
    return len(trial.intermediate_values) or (full if trial.state == TrialState.COMPLETE else 0)
