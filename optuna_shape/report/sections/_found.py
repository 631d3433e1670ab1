"""What was trained, the answer beside other shapes, and what the search cost."""

from __future__ import annotations

import math
from collections.abc import Iterator

from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_shape.constraints import GOAL_COSTS
from optuna_shape.records import ACCURACY
from optuna_shape.records import REASON
from optuna_shape.records import shape_of
from optuna_shape.report.comparison import KnownAccuracy
from optuna_shape.report.comparison import base_width
from optuna_shape.report.comparison import depth_scaled
from optuna_shape.report.comparison import largest
from optuna_shape.report.comparison import training_cost
from optuna_shape.report.markup import Html
from optuna_shape.report.markup import element
from optuna_shape.report.markup import joined
from optuna_shape.report.markup import table
from optuna_shape.report.predicted import CONFIDENCE
from optuna_shape.report.sections._facts import UNKNOWN
from optuna_shape.report.sections._facts import Facts
from optuna_shape.report.sections._facts import percent
from optuna_shape.report.sections._facts import share
from optuna_shape.report.sections._facts import shortened
from optuna_shape.space import Shape

_SHAPE = "(depth, width)"
_ANSWER = "the answer"


def trained(facts: Facts) -> Iterator[Html]:
    """The trained shapes, best first, and the trainings that gave no result."""
    yield element("h2", "The trained shapes")
    accuracies = facts.history.accuracies
    if accuracies:
        shapes = sorted(accuracies, key=lambda shape: _rank(facts, shape))
        costs = map(facts.screening.label, facts.costs)
        yield table(
            (_SHAPE, "epochs", "accuracy", *costs, "trial", "repeats"),
            [_trained_row(facts, shape) for shape in shapes],
            marked=0 if facts.best is not None else None,
        )
        unknown = [name for name in GOAL_COSTS if name not in facts.costs]
        yield element(
            "p",
            "Accuracy on the validation images, as the trainings told it; where a shape was "
            "trained again on purpose, the mean."
            + (f" Not measured: {', '.join(unknown)}." if unknown else ""),
            kind="soft",
        )
    else:
        yield element("p", "No shape has been trained to the end.")
    yield from _without_result(facts)


def comparison(facts: Facts) -> Iterator[Html]:
    """The answer beside what scaling depth alone leads to, and beside the largest."""
    best = facts.best
    yield element("h2", "The answer beside other shapes")
    if best is None:
        yield element("p", "There is no answer yet that others could be compared with.")
        return
    problem, width = facts.problem, base_width(facts.problem.space)
    wanted = None if problem.goal == ACCURACY else problem.accuracy_bound
    scaled = depth_scaled(facts.known, width, wanted)
    contenders = [
        (_ANSWER, best.shape),
        ("scaled in depth alone", scaled),
        ("the largest within the limits", largest(facts.screening)),
    ]
    yield table(
        ("", _SHAPE, "accuracy", *map(facts.screening.label, facts.costs)),
        [_contender(facts, name, s, best.shape) for name, s in contenders if s is not None],
        texts=("",),
        marked=0,
    )
    if wanted is None:
        chosen = "the deepest shape within the limits"
    else:
        chosen = f"the shallowest shape that reaches {percent(wanted)}, measured or else predicted"
    outcome = ""
    if scaled is None:
        outcome = " No shape of that width is within the limits."
    elif wanted is not None and facts.known[scaled].value < wanted:
        lack = 100 * (wanted - facts.known[scaled].value)
        outcome = (
            f" None does; the deepest within the limits is shown, which lacks {lack:.1f} "
            "percentage points."
        )
    yield element(
        "p",
        "Scaled in depth alone: what one gets who only makes a network deeper. Its width is kept "
        f"at {width}, the middle one of the space, since nothing tells a usual width better; it "
        f"is {chosen}.{outcome}",
    )
    greatest = "greatest size" if "size" in facts.costs else "greatest depth"
    yield element(
        "p",
        f"The largest is that of the {greatest}. Under each cost stands how many times that of "
        f"the answer it is. Predicted accuracies have their {CONFIDENCE} interval by the model.",
    )


def spending(facts: Facts) -> Iterator[Html]:
    """What the search trained, as a share of training everything."""
    problem, screening = facts.problem, facts.screening
    yield element("h2", "What it cost to train")
    cost = training_cost(problem, screening, facts.trials)
    kept = len(screening.feasible)
    count = sum(shape in facts.belief.index for shape in facts.history.accuracies)
    in_epochs = problem.epochs or any(trial.intermediate_values for trial in facts.trials)
    if problem.training_cost is not None:
        model = "what the problem's own training_cost says"
    elif len(set(problem.costs(screening).values())) == 1:
        model = "the same for all shapes"
    else:
        model = "the FLOPs of its shape"
    yield element(
        "p",
        f"{count} of {kept} shapes were trained to the end, in all {cost.epochs} "
        f"{'epochs' if in_epochs else 'trainings'}: ",
        element("b", f"{share(cost.share)} of the cost of training all {kept}"),
        f". The cost of a training is {model}{', times its epochs' if in_epochs else ''}. "
        "Trainings that were repeated, cut short or failed count, too.",
    )
    if cost.seconds >= 1:
        took = _duration(cost.seconds)
        yield element("p", f"The trainings that ended by themselves took {took} in all.")
    if cost.uncounted:
        yield element(
            "p",
            f"{cost.uncounted} trainings are left out, of shapes that are not within the limits "
            "as they are measured now.",
        )


def _trained_row(facts: Facts, shape: Shape) -> tuple[str, ...]:
    values, numbers = facts.history.accuracies[shape], facts.numbers(shape)
    accuracy: str = percent(sum(values) / len(values))
    if len(values) > 1:
        accuracy = joined([accuracy, element("small", ", ".join(map(percent, values)))])
    by_number = {trial.number: trial for trial in facts.trials}
    epochs = [_epochs(by_number[n], facts.problem.epochs) for n in numbers]
    standing = _standing(facts, shape)
    return (
        joined([str(shape), element("small", standing)]) if standing else str(shape),
        ", ".join(epochs),
        accuracy,
        *(facts.cost(name, shape) for name in facts.costs),
        ", ".join(map(str, numbers)),
        str(len(values) - 1) if len(values) > 1 else "",
    )


def _without_result(facts: Facts) -> Iterator[Html]:
    """Trainings that were cut short, failed or still run; and trials that never trained."""
    history = facts.history
    rows: list[tuple[str, ...]] = []
    refused: list[str] = []
    for trial in facts.trials:
        shape = shape_of(trial)
        if shape is None or trial.number in history.trained:
            continue
        reason = shortened(str(trial.user_attrs.get(REASON, "")))
        if trial.number in history.running:
            outcome = "in training"
        elif trial.number in history.cuts:
            outcome = "cut short"
        elif trial.state == TrialState.PRUNED and not trial.intermediate_values:
            refused.append(reason)
            continue
        else:
            outcome = "failed" if trial.state == TrialState.FAIL else "without a result"
        last = trial.intermediate_values.get(trial.last_step or 0, math.nan)
        accuracy = UNKNOWN if math.isnan(last) else percent(last)
        epochs = str(len(trial.intermediate_values))
        rows.append((str(trial.number), str(shape), outcome, epochs, accuracy, reason))
    if rows:
        yield element("h3", "Without a result")
        headings = ("trial", _SHAPE, "outcome", "epochs", "last accuracy", "reason")
        columns = len(headings) if any(row[-1] for row in rows) else len(headings) - 1
        shown = [row[:columns] for row in rows]
        yield table(headings[:columns], shown, texts=("outcome", "reason"))
    if refused:
        yield element(
            "p", f"Trials that ended before any training: {len(refused)}. The last: {refused[-1]}."
        )


def _epochs(trial: FrozenTrial, full: int | None) -> str:
    return str(len(trial.intermediate_values) or full or UNKNOWN)


def _standing(facts: Facts, shape: Shape) -> str:
    """What a trained shape is to the question, in words; empty if it only comes after others."""
    if facts.best is not None and shape == facts.best.shape:
        return _ANSWER
    if shape not in facts.screening.feasible:
        return "not within the limits"
    values = facts.history.accuracies[shape]
    missed = sum(values) / len(values) < (facts.problem.accuracy_bound or 0.0)
    return "misses the accuracy" if missed else ""


def _rank(facts: Facts, shape: Shape) -> tuple[int, float, float]:
    """Sorts trained shapes: the answer, those that meet every constraint, others; best first."""
    values, goal = facts.history.accuracies[shape], facts.problem.goal
    accuracy = -sum(values) / len(values)
    group = {_ANSWER: 0, "": 1}.get(_standing(facts, shape), 2)
    value = None if goal == ACCURACY else facts.screening.value(goal, shape)
    return group, accuracy if value is None else value, accuracy


def _contender(facts: Facts, name: str, shape: Shape, answer: Shape) -> tuple[str, ...]:
    cells: list[str] = []
    for cost in facts.costs:
        value, own = (facts.screening.value(cost, s) for s in (shape, answer))
        cell: str = facts.cost(cost, shape)
        if value and own and shape != answer:
            cell = joined([cell, element("small", f"{value / own:.3g} times")])
        cells.append(cell)
    itself = shape == answer and name != _ANSWER
    said = joined([name, element("small", "the answer itself")]) if itself else name
    return said, str(shape), _accuracy(facts.known.get(shape)), *cells


def _accuracy(known: KnownAccuracy | None) -> str:
    if known is None:
        return UNKNOWN
    how = "measured"
    if not known.trainings:
        how = f"predicted, {percent(known.low)} to {percent(known.high)}"
    return joined([percent(known.value), element("small", how)])


def _duration(seconds: float) -> str:
    """A duration in words.

    Example:
        >>> _duration(42), _duration(3900)
        ('42 s', '1 h 5 min')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
