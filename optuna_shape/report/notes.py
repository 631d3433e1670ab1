"""What a study has found, in words: Markdown for the dashboard, plain text for the terminal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from collections.abc import Mapping

from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_shape.constraints import UNITS
from optuna_shape.constraints import format_quantity
from optuna_shape.filters import Screening
from optuna_shape.problem import ShapeProblem
from optuna_shape.records import ACCURACY
from optuna_shape.records import PARENT
from optuna_shape.records import REASON
from optuna_shape.records import TEACHER
from optuna_shape.records import StudyRecords
from optuna_shape.records import is_replicate
from optuna_shape.records import shape_of

# What Markdown, and the dashboard's extensions of it (tables, formulas, links), read as marks.
_MARKS = re.compile(r"([\\`*_{}\[\]<>#|~$&!@^]|(?<=www)\.|:(?=//))", re.IGNORECASE)
_HEADING = "## Best shape so far"
_NONE = "No trained shape meets every constraint"
_GAP = "\u2003"
_REMARKS = "*Written by optuna_shape. What you add below this line is kept.*"
_STATES = {
    TrialState.COMPLETE: "trained in full",
    TrialState.PRUNED: "not trained to the end",
    TrialState.FAIL: "failed",
}


def study_note(problem: ShapeProblem, study: Study) -> str:
    """A Markdown note: the answer so far, the stop, the question, and what was removed."""
    screening, best, records = problem.screen(study), problem.best(study), StudyRecords(study)
    history, stop, certainties = records.history(), records.stop(), records.certainties()
    lines = [_HEADING, ""]
    if best is None:
        lines += [f"{_NONE}{' yet' if stop is None else ''}.", ""]
    else:
        text = f"**{_escape(str(best))}**"
        lines += [
            f"{text}, by trial {best.trial.number}.",
            "",
            *_properties(problem, screening, best.properties),
            "",
        ]
    if stop is not None:
        lines += [f"**Stopped**: {_escape(stop['reason'])}.", ""]
    else:
        lines += ["The search goes on.", ""]
        if certainties:
            probability = certainties[max(certainties)]
            lines += [f"Probability of a better shape, by the model: {probability:.2g}.", ""]
    lines += ["## Question", "", *_question(problem, screening), ""]
    lines += [
        "## Shapes",
        "",
        f"{len(screening.feasible)} of {len(problem.space)} shapes may be trained; "
        f"{len(history.accuracies)} have been, {len(history.cuts)} were cut short, "
        f"{len(history.running)} are in training.",
        "",
    ]
    removed = removed_by(screening)
    if removed:
        lines += ["Removed before training:", ""]
        rows = [(_escape(limit), str(count)) for limit, count in removed.items()]
        lines += [*_table(("removed by", "shapes"), rows), "", "Nearest to be allowed:", ""]
        lines += [*(f"* {_escape(text)}" for text in nearest_removed(screening)), ""]
    return "\n".join(lines).rstrip()


def keep_remarks(note: str, before: str) -> str:
    """A note that ends with what a person has added to the one before it."""
    _, ours, remarks = before.partition(_REMARKS)
    if not ours and before and not before.startswith(_HEADING):
        remarks = f"\n\n{before}"
    return f"{note}\n\n---\n\n{_REMARKS}{remarks}"


def study_summary(problem: ShapeProblem, study: Study) -> dict[str, str]:
    """The answer so far and the state of the search, in plain words."""
    best, stop = problem.best(study), StudyRecords(study).stop()
    shape = _NONE
    if best is not None:
        depth, width = best.shape
        figures = problem.screen(study).figures(best.properties)
        told = ", ".join(" ".join(figure) for figure in figures.items())
        shape = f"depth {depth}, width {width}: {told} (trial {best.trial.number})"
    return {"best shape": shape, "search": f"stopped: {stop['reason']}" if stop else "goes on"}


def trial_note(problem: ShapeProblem, study: Study, trial: FrozenTrial) -> str:
    """A Markdown note of one trial: its shape, measured properties, limits and outcome.

    Empty for a trial that never had a shape.
    """
    shape = shape_of(trial)
    if shape is None or not StudyRecords(study).is_screened():
        return ""
    attributes = trial.user_attrs
    state = _STATES.get(trial.state, trial.state.name.lower())
    lines = [f"## Depth {shape.depth}, width {shape.width}: {state}", ""]
    violated = [name for name, excess in trial.constraints.items() if excess > 0]
    if violated:
        lines += [f"**Infeasible**: not within {_escape(', '.join(violated))}.", ""]
    if REASON in attributes:
        lines += [f"Reason: {_escape(str(attributes[REASON]))}.", ""]
    if is_replicate(trial):
        lines += ["The shape was trained again on purpose, with another seed.", ""]
    for key, what in ((PARENT, "It began with weights of"), (TEACHER, "It was taught by")):
        if key in attributes:
            lines += [f"{what} trial {_escape(str(attributes[key]))}.", ""]
    values = {name: float(attributes[name]) for name in UNITS if name in attributes}
    return "\n".join([*lines, *_properties(problem, problem.screen(study), values)])


def removed_by(screening: Screening) -> dict[str, int]:
    """How many shapes each constraint removed before training, most first."""
    counts = Counter(
        verdict.constraint if verdict.status == "over" else f"{verdict.constraint} (undecided)"
        for verdict in screening.verdicts.values()
        if verdict.status != "within"
    )
    return dict(counts.most_common())


def nearest_removed(screening: Screening, count: int = 3) -> list[str]:
    """The removed shapes that came closest to being allowed, with the reason."""
    removed = [
        (verdict.excess, shape, verdict)
        for shape, verdict in screening.verdicts.items()
        if verdict.status != "within"
    ]
    return [f"{shape}: {verdict.reason}" for _, shape, verdict in sorted(removed)[:count]]


def _question(problem: ShapeProblem, screening: Screening) -> list[str]:
    space = problem.space
    goal, *rows = [
        ("goal", f"{'highest' if problem.goal == ACCURACY else 'lowest'} {problem.goal}"),
        ("limits", ", ".join(map(str, problem.constraints)) or "none"),
        ("design space", f"{space.name or 'unnamed'}, {len(space)} shapes"),
        ("depths", ", ".join(map(str, space.depths))),
        ("widths", ", ".join(map(str, space.widths))),
        ("epochs of a full training", str(problem.epochs or "not told")),
        ("measured on", screening.fingerprint),
    ]
    # Markdown knows no table without a heading.
    return _table(goal, [(name, _escape(text)) for name, text in rows])


def _properties(
    problem: ShapeProblem, screening: Screening, values: Mapping[str, float]
) -> list[str]:
    """A table of measured properties beside their limits."""
    limits = {c.property: c for c in problem.constraints}
    rows = []
    for name, value in values.items():
        limit = ""
        if name in limits:
            bound = screening.bounds.get(str(limits[name]), limits[name].bound)
            relation = "at least" if name == ACCURACY else "at most"
            limit = f"{relation} {format_quantity(name, bound)}"
        label = screening.label(name) + (" (goal)" if name == problem.goal else "")
        rows.append((label, format_quantity(name, value), limit))
    return _table(("property", "value", "limit"), rows)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [_apart(header), (":--",) * len(header), *map(_apart, rows)]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _apart(cells: tuple[str, ...]) -> tuple[str, ...]:
    """The dashboard leaves no room between columns."""
    return (cells[0], *(f"{_GAP}{cell}" for cell in cells[1:]))


def _escape(text: str) -> str:
    """Text of others, which is to be shown as it is."""
    return _MARKS.sub(r"\\\1", " ".join(text.split()))
