"""Accuracy by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import TypeVar

import numpy as np
from optuna.study import Study

from optuna_shape.decide.normal import Normal
from optuna_shape.posterior import Belief
from optuna_shape.posterior import FinishedCurves
from optuna_shape.posterior import believe
from optuna_shape.problem import ShapeProblem
from optuna_shape.records import StudyRecords
from optuna_shape.records import shape_of
from optuna_shape.report.figures._style import ANSWER
from optuna_shape.report.figures._style import CUT
from optuna_shape.report.figures._style import GREY
from optuna_shape.report.figures._style import RUNNING
from optuna_shape.report.figures._style import TRAINED
from optuna_shape.report.figures._style import axis
from optuna_shape.report.figures._style import centred
from optuna_shape.report.figures._style import layout
from optuna_shape.report.figures._style import padded
from optuna_shape.report.figures._style import percent
from optuna_shape.report.predicted import CONFIDENCE
from optuna_shape.report.predicted import accuracy_interval
from optuna_shape.space import Shape

if TYPE_CHECKING:
    import plotly.graph_objects as go

_T = TypeVar("_T")

#: What became of a training: in the legend, its line, and the mark at its end.
_KINDS: dict[str, tuple[dict[str, object], str | None]] = {
    "trained to the end": ({"color": TRAINED, "width": 1.2}, None),
    "failed or lost": ({"color": GREY, "width": 1.2, "dash": "dot"}, "x-thin"),
    "cut short": ({"color": CUT, "width": 2, "dash": "dash"}, "x"),
    "in training": ({"color": RUNNING, "width": 2}, "circle"),
    "the answer": ({"color": ANSWER, "width": 3}, None),
}
_MOST_BANDS = 6  # more of them hide the curves
# A dashboard keeps the figure in the study.
_MOST_LINES, _MOST_POINTS = 60, 100
_BAND = {CUT: "rgba(230, 159, 0, 0.16)", RUNNING: "rgba(0, 158, 115, 0.16)"}


@dataclass(frozen=True)
class _Line:
    """The curve of one trial."""

    number: int
    shape: Shape
    curve: Mapping[int, float]
    kind: str


def learning_curves(problem: ShapeProblem, study: Study) -> go.Figure:
    """Reported accuracy by epoch of every training, with the predicted end of unfinished ones.

    The end of a training that was cut short, or still runs, is predicted from how much the
    finished ones gained from that epoch on; while these are too few there is no prediction, nor is
    there one of a shape that was trained to the end since. The latest few of them are drawn, the
    others told on hover. Of many trainings, some are drawn: those of the answer, those that run,
    the most accurate, and others from the first to the last.
    """
    import plotly.graph_objects as go

    belief = believe(problem, study)
    best = problem.best(study)
    reported = _lines(study, belief, None if best is None else best.shape)
    lines = _drawn(reported)
    figure = go.Figure()
    first = min((min(line.curve) for line in lines), default=0)
    last = max((max(line.curve) for line in lines), default=1)
    in_legend: set[str] = set()

    def once(name: str) -> dict[str, object]:
        """Many lines of one name share an entry of the legend."""
        first = name not in in_legend
        in_legend.add(name)
        return {"name": name, "legendgroup": name, "showlegend": first}

    predictions = {line.number: _predicted_end(belief, line) for line in lines}
    banded = sorted(number for number, end in predictions.items() if end is not None)
    banded = banded[-_MOST_BANDS:]
    for line in sorted(lines, key=lambda line: (list(_KINDS).index(line.kind), line.number)):
        look, mark = _KINDS[line.kind]
        epochs = list(line.curve)
        marks = [0] * (len(epochs) - 1) + [9 if mark else 0]
        predicted = predictions[line.number]
        if predicted is not None and line.number in banded and epochs[-1] < last:
            _, low, high = predicted
            now = percent(line.curve[epochs[-1]])
            figure.add_scatter(
                x=[epochs[-1], last, last],
                y=[now, high, low],
                mode="lines",
                line={"width": 0},
                fill="toself",
                fillcolor=_BAND[str(look["color"])],
                hoverinfo="skip",
                **once(f"predicted end, {CONFIDENCE} interval"),
            )
        figure.add_scatter(
            x=epochs,
            y=[percent(value) for value in line.curve.values()],
            mode="lines+markers" if mark or len(epochs) == 1 else "lines",
            line=look,
            marker={
                "symbol": mark or "circle",
                "size": marks if mark else 5,
                "color": look["color"],
                "line": {"width": 2 if mark == "x-thin" else 0, "color": look["color"]},
            },
            hovertemplate=f"{line.shape}, trial {line.number}, {line.kind}<br>"
            f"epoch %{{x}}: %{{y:.1f}} %{_told(predicted)}<extra></extra>",
            **once(line.kind),
        )
    told = ""
    if reported:
        cuts = sum(line.kind == "cut short" for line in reported)
        told = f"{len(reported)} trainings reported, {cuts} of them were cut short."
    if len(lines) < len(reported):
        told += (
            f" {len(reported) - len(lines)} are left out here: drawn are the answer, those in "
            "training, the most accurate, and others from the first to the last."
        )
    figure.update_layout(
        **layout(
            "Accuracy by epoch",
            told,
            xaxis=axis(
                "epoch",
                range=padded([first, last], 0.02),
                **({"dtick": 1} if last <= 20 else {}),
            ),
            yaxis=axis(
                "reported accuracy", ticksuffix=" %", **({} if lines else {"range": [0, 100]})
            ),
            annotations=[]
            if lines
            else [centred("No training has reported its accuracy by epoch.")],
        )
    )
    return figure


def _lines(study: Study, belief: Belief, answer: Shape | None) -> list[_Line]:
    """Every trial that reported something, and what became of it."""
    history, lines = belief.history, []
    for trial in StudyRecords(study).trials():
        shape = shape_of(trial)
        points = [p for p in sorted(trial.intermediate_values.items()) if math.isfinite(p[1])]
        curve = dict(_spread(points, _MOST_POINTS))
        if shape is None or not curve:
            continue
        if trial.number in history.trained:
            kind = "the answer" if shape == answer else "trained to the end"
        elif trial.number in history.cuts:
            kind = "cut short"
        elif trial.number in history.running:
            kind = "in training"
        else:
            kind = "failed or lost"
        lines.append(_Line(trial.number, shape, curve, kind))
    return lines


def _drawn(lines: list[_Line]) -> list[_Line]:
    """The lines, or of too many those that tell most."""
    if len(lines) <= _MOST_LINES:
        return lines
    third = _MOST_LINES // 3
    first = [line for kind in ("the answer", "in training") for line in lines if line.kind == kind]
    first = first[:third]
    rest = [line for line in lines if line not in first]
    best = sorted(rest, key=lambda line: -line.curve[max(line.curve)])[:third]
    others = [line for line in rest if line not in best]
    return [*first, *best, *_spread(others, _MOST_LINES - len(first) - len(best))]


def _spread(items: list[_T], count: int) -> list[_T]:
    """So many of them from the first to the last, at even distances; all if they are no more."""
    if len(items) <= count:
        return items
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def _predicted_end(belief: Belief, line: _Line) -> tuple[float, float, float] | None:
    """Accuracy, low and high, in per cent; None where it is known, or too little is."""
    position = belief.index.get(line.shape)
    if line.kind not in ("cut short", "in training") or position is None:
        return None
    if position in belief.means:
        return None
    points = {s: (float(x), float(y)) for s, (x, y) in zip(belief.shapes, belief.points)}
    last = max(line.curve)
    curves = FinishedCurves.of(belief.history, points, last)
    if curves is None or not math.isfinite(curves.jitter):
        return None
    prediction = curves.predict(points[line.shape], line.curve[last], belief.seed)
    if prediction is None:
        return None
    ends = accuracy_interval(Normal(np.array(prediction.mean), np.array(prediction.sd)))
    centre, low, high = (percent(float(end)) for end in ends)
    return centre, low, high


def _told(predicted: tuple[float, float, float] | None) -> str:
    if predicted is None:
        return ""
    centre, low, high = predicted
    return f"<br>predicted end {centre:.1f} % ({CONFIDENCE}: {low:.1f} to {high:.1f})"
