"""The answer in short, the question, the device, and what remained of the space."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Mapping

from optuna.study import Study

from optuna_shape import families
from optuna_shape.filters import COUNTED_FINGERPRINT
from optuna_shape.filters import Screening
from optuna_shape.problem import ShapeProblem
from optuna_shape.records import ACCURACY
from optuna_shape.records import StudyRecords
from optuna_shape.report.markup import Html
from optuna_shape.report.markup import element
from optuna_shape.report.markup import joined
from optuna_shape.report.markup import listed
from optuna_shape.report.markup import pairs
from optuna_shape.report.markup import table
from optuna_shape.report.notes import nearest_removed
from optuna_shape.report.notes import removed_by
from optuna_shape.report.notes import study_summary
from optuna_shape.report.sections._facts import Facts
from optuna_shape.report.sections._facts import limit
from optuna_shape.report.sections._facts import shortened


def summary(facts: Facts) -> Iterator[Html]:
    """The answer, in a sentence."""
    best = facts.best
    if best is None:
        count = len(facts.belief.means)
        why = "no shape has been trained to the end."
        if count:
            why = f"none of the {count} trained shapes meets every constraint."
        so_far = " yet" if facts.stop is None else ""
        yield element("div", f"No answer{so_far}: {why}", kind="lead")
        return
    figures = facts.screening.figures(best.properties)
    told = ", ".join(" ".join(figure) for figure in figures.items())
    note = [element("small", f"Note: {best.note}.")] if best.note else []
    shape = element("b", f"depth {best.shape.depth}, width {best.shape.width}")
    yield element("div", "The answer: ", shape, f", with {told}.", *note, kind="lead")


def question(problem: ShapeProblem, study: Study, screening: Screening | None) -> Iterator[Html]:
    """What was asked, of which space."""
    space = problem.space
    aim = "the most accurate" if problem.goal == ACCURACY else f"that of least {problem.goal}"
    limits = [limit(str(constraint), screening) for constraint in problem.constraints]
    yield element("h2", "The question")
    where = " within the limits" if limits else ""
    yield element(
        "p", f"Of {len(space)} shapes of {space.name or 'a network'}, which is {aim}{where}?"
    )
    described = families.describe(space)
    if described is None:
        family = f"{space.name or 'without a name'}, a function of the user's own"
    else:
        family = f"{described['family']}: {_options(described['options'])}"
    rows = [
        ("goal", f"{problem.direction} {problem.goal}"),
        ("limits", joined(element("div", text) for text in limits) if limits else "none"),
        ("depth", ", ".join(map(str, space.depths))),
        ("width", ", ".join(map(str, space.widths))),
        ("family", family),
    ]
    if problem.epochs is not None:
        rows.append(("epochs of a full training", str(problem.epochs)))
    for name, value in (StudyRecords(study).training() or {}).items():
        rows.append((name, _options(value) if isinstance(value, dict) else str(value)))
    # What the user noted in the study; what a dashboard shows there stands in this report anyway.
    shown = study_summary(problem, study)
    notes = ((n, str(value)) for n, value in study.user_attrs.items() if n not in shown)
    yield pairs([*rows, *((shortened(name), shortened(value)) for name, value in notes)])


def _options(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def device(facts: Facts) -> Iterator[Html]:
    """What was measured on, and what was only estimated."""
    measurements = [m for values in facts.screening.measurements.values() for m in values.values()]
    yield element("h2", "The device")
    if all(m.fingerprint == COUNTED_FINGERPRINT for m in measurements):
        yield element("p", "Nothing had to be measured on a device: all costs were counted.")
        return
    source = facts.screening.fingerprint
    batch = re.search(r"\bbatch (\d+)", source)  # A table or a function need not tell of any.
    call = f" Latency and energy are those of one call, on a batch of {batch[1]}." if batch else ""
    yield element("p", f"The costs come from: {source}.{call}")
    for note in sorted({m.note for m in measurements if m.is_estimate}):
        yield element("p", f"Energy was not measured. It is an {note}.")


def remaining(facts: Facts) -> Iterator[Html]:
    """What each limit removed before any training, and what it removed only just."""
    screening, problem = facts.screening, facts.problem
    kept, total = len(screening.feasible), len(problem.space)
    yield element("h2", "The shapes that remained")
    removed = removed_by(screening)
    others = " The others were never trained." if removed else ""
    yield element(
        "p",
        f"{kept} of {total} shapes are within every limit that is decided before training."
        + others,
    )
    if not removed:
        return
    rows = [(limit(name), str(count)) for name, count in removed.items()]
    yield table(("limit", "shapes removed"), rows, texts=("limit",))
    verdicts = screening.verdicts.values()
    if any(verdict.status == "undecided" for verdict in verdicts):
        yield element(
            "p",
            "Undecided are shapes whose measurement lies too close to the limit to be sure. They "
            "count as over it.",
        )
    properties = {constraint.property for constraint in problem.hard_constraints}
    inferred = {shape for name in properties for shape in screening.inferred_over(name)}
    if inferred:
        yield element(
            "p",
            "Removed without being measured, as a shallower shape of the same width is over the "
            f"limit: {len(inferred)}.",
        )
    yield element("p", "The removed shapes that came nearest to the limits:")
    yield listed(nearest_removed(screening))
