"""Why the search stopped, how far to trust that, and how to build the answer again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

from optuna_shape import families
from optuna_shape.callbacks import MIN_TRAININGS
from optuna_shape.records import ACCURACY
from optuna_shape.report.markup import Html
from optuna_shape.report.markup import element
from optuna_shape.report.markup import listed
from optuna_shape.report.sections._facts import Facts
from optuna_shape.report.sections._facts import share

_GUARANTEE = (
    "The probability is that of a Gaussian process, which takes log error to vary smoothly with "
    "the logarithms of depth and width. It says something of this model, given these trainings; "
    "it is no fact about the networks. Where accuracy falls off a cliff, it is too sure of "
    "itself."
)
_UNSTOPPED = (
    "The search has not stopped by itself: it still runs, or was ended before, by a number of "
    "trials, a time or by hand. Then nothing is guaranteed; the answer is the best so far."
)
_UNSTATED = (
    "No probability of a better shape is stated: too few shapes were trained, or ShapeTerminator "
    "does not watch."
)


def trust(facts: Facts) -> Iterator[Html]:
    """The stop, how the guarantee is to be read, and the checks behind it."""
    yield element("h2", "Why it stopped, and how far to trust it")
    if facts.stop is not None:
        yield element("p", f"Stopped: {facts.stop['reason']}.")
    yield element("p", _guaranteed(facts))
    yield element("p", "What was checked, of the model and of what was measured:")
    yield listed(_checks(facts))


def rebuilding(facts: Facts) -> Iterator[Html]:
    """Code that makes the answer's network, and reads the study."""
    if facts.best is None:
        return
    shape, space = facts.best.shape, facts.problem.space
    yield element("h2", "How to build the answer again")
    described = families.describe(space)
    if described is None:
        lines = [
            "from optuna_shape import Shape",
            "",
            f"space = ...  # your own: {space.name or 'DesignSpace(..., build=...)'}",
            f"model = space.build(Shape({shape.depth}, {shape.width}))  # not trained",
        ]
    else:
        options = "".join(f", {name}={value!r}" for name, value in described["options"].items())
        lines = [
            f"from optuna_shape.families import {described['family']}",
            "",
            f"space = {described['family']}([{shape.depth}], [{shape.width}]{options})",
            "model = space.build(space.shapes[0])  # not trained",
        ]
    yield _code(lines)
    if facts.checkpoint is None:
        where = "OUTPUT/STUDY/answer"
        yield element("p", "The trained network, if optuna-shape search kept it in its --output:")
    else:
        where = str(facts.checkpoint)
        yield element("p", "The trained network:")
    given = ", space" if described is None else ""
    yield _code(
        [
            "from optuna_shape.train.checkpoint import load_checkpoint",
            "",
            f"model, info = load_checkpoint({where!r}{given})",
        ]
    )
    yield element("p", "The study:")
    yield _code(
        [
            "import optuna",
            "from optuna_shape import ShapeProblem",
            "",
            # Not the storage itself: its URL may hold a password.
            f"study = optuna.load_study(study_name={facts.study.study_name!r}, storage=...)",
            "problem = ShapeProblem.from_study(study)",
            "print(problem.best(study))",
        ]
    )


def _guaranteed(facts: Facts) -> str:
    """What the end of the search, or its want, says of the answer."""
    kind = None if facts.stop is None else facts.stop["kind"]
    if kind == "exhausted":
        retired = len(facts.history.retired.intersection(facts.screening.feasible))
        others = f" Of the {retired} without a result it says nothing." if retired else ""
        return (
            "No shape was left to train, so that this rests on no model and no probability: the "
            "answer, if there is one, is the best shape as accuracies were measured. Shapes that "
            f"lie close together may come in another order with another seed.{others}"
        )
    if kind is not None:
        unlikely = " So a shape that reaches the accuracy is unlikely, not impossible."
        return _GUARANTEE + (unlikely if kind == "hopeless" else "")
    if not facts.certainties:
        return f"{_UNSTOPPED} {_UNSTATED}"
    number = max(facts.certainties)
    latest = f"After trial {number}, the probability of a better shape was"
    return f"{_UNSTOPPED} {latest} {facts.certainties[number]:.2g}. {_GUARANTEE}"


def _checks(facts: Facts) -> Iterator[str]:
    belief, history = facts.belief, facts.history
    count, repeats = len(belief.means), len(history.trained) - len(history.accuracies)
    yield f"Shapes trained to the end: {count}. Trainings that repeated one of them: {repeats}."
    exhausted = facts.stop is not None and facts.stop["kind"] == "exhausted"
    if count >= MIN_TRAININGS and not exhausted:  # Else no stop rests on it.
        yield (
            "Leave-one-out: trained shapes lie "
            f"{belief.surprise():.2f} standard deviations from what the model predicts of each "
            "from the others (root mean square). It is about 1 if the model is honest; above 3, "
            "the search does not stop."
        )
    if count > 1:
        yield (
            "A training that is repeated with another seed is taken to scatter by "
            f"{share(belief.surrogate.repeat_noise)} of its error (standard deviation, as the "
            "model has learned it)."
        )
    if facts.problem.goal != ACCURACY and facts.best is not None:
        yield (
            "The answer reaches the accuracy, without the luck of its trainings, with probability "
            f"{belief.answer_reaches:.2g}."
        )
    for name in ("latency", "energy"):
        halves = [
            (m.high - m.low) / (2 * m.value)
            for m in facts.screening.measurements.get(name, {}).values()
            if m.samples > 1 and math.isfinite(m.high) and not m.is_estimate
        ]
        if halves:
            yield (
                f"Measuring noise: {name} is known to ±{share(median(halves))} (the median of "
                f"{len(halves)} shapes). What lies too close to a limit to be sure counts as over."
            )


def _code(lines: list[str]) -> Html:
    return element("pre", "\n".join(lines))
