"""What a study has found, in words: Markdown for the dashboard, plain text for the terminal."""

from __future__ import annotations

from collections import Counter

from optuna.study import Study

from optuna_shape.filters import Screening
from optuna_shape.problem import ShapeProblem
from optuna_shape.records import StudyRecords


def study_note(problem: ShapeProblem, study: Study) -> str:
    """A Markdown note: the question, what was removed, the answer so far, and the stop."""
    screening = problem.screen(study)
    best = problem.best(study)
    stop = StudyRecords(study).stop()
    history = StudyRecords(study).history()
    lines = [
        "## Best shape so far",
        f"**{_escape(str(best))}**" if best else "No trained shape meets every constraint yet.",
        "",
        f"Goal: {problem.goal}. Constraints: "
        f"{_escape(', '.join(str(c) for c in problem.constraints)) or 'none'}.",
        "",
        f"{len(screening.feasible)} of {len(problem.space)} shapes may be trained; "
        f"{len(history.accuracies)} have been, {len(history.cuts)} were cut short, "
        f"{len(history.running)} are in training.",
        "",
        "| removed by | shapes |",
        "| --- | --- |",
        *(f"| {_escape(limit)} | {count} |" for limit, count in removed_by(screening).items()),
        "",
        f"**Stopped**: {_escape(stop['reason'])}." if stop else "The search goes on.",
        "",
        f"Measured on: {_escape(screening.fingerprint)}",
    ]
    return "\n".join(lines)


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


def _escape(text: str) -> str:
    for character in "\\`*_{}[]<>#|":
        text = text.replace(character, f"\\{character}")
    return text
