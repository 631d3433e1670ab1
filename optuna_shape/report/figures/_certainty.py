"""How sure the search has become."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from typing import Any

from optuna.study import Study

from optuna_shape.problem import ShapeProblem
from optuna_shape.records import ACCURACY
from optuna_shape.records import StudyRecords
from optuna_shape.report.figures._style import ANSWER
from optuna_shape.report.figures._style import GREY
from optuna_shape.report.figures._style import INK
from optuna_shape.report.figures._style import TRAINED
from optuna_shape.report.figures._style import axis
from optuna_shape.report.figures._style import centred
from optuna_shape.report.figures._style import layout
from optuna_shape.report.figures._style import marker
from optuna_shape.report.figures._style import percent

if TYPE_CHECKING:
    import plotly.graph_objects as go


_UNSTATED = "Not stated: too few shapes were trained, or ShapeTerminator does not watch."


def certainty(problem: ShapeProblem, study: Study) -> go.Figure:
    """Probability, by the model, that a better shape exists, after each training.

    With the largest probability at which the search stops, and where and why it stopped, once it
    has.
    """
    import plotly.graph_objects as go

    records = StudyRecords(study)
    certainties = dict(sorted(records.certainties().items()))
    stop = records.stop() or {}
    delta = stop.get("delta")
    figure = go.Figure()
    annotations = []
    top = max([*certainties.values(), 2 * (delta or 0.05)])
    if certainties:
        figure.add_scatter(
            x=list(certainties),
            y=[percent(value) for value in certainties.values()],
            mode="lines+markers",
            name="probability after the training",
            line={"color": TRAINED, "width": 2},
            marker={"color": TRAINED, "size": 7},
            hovertemplate="trial %{x}: %{y:.2g} %<extra></extra>",
        )
        annotations.append(_unstated(min(certainties)))
    else:
        annotations.append(centred(_UNSTATED))
    if certainties and delta is not None:
        figure.add_scatter(
            x=[-0.5, max(certainties) + 0.5],
            y=[percent(delta)] * 2,
            mode="lines",
            name=f"the search stops at {percent(delta):g} %",
            line={"color": INK, "width": 1.5, "dash": "dash"},
            hoverinfo="skip",
        )
        # Workers end in any order: the last number need not be the one that decided.
        deciders = [n for n, value in certainties.items() if value == stop.get("probability")]
        number = deciders[-1] if deciders else max(certainties)
        figure.add_scatter(
            x=[number],
            y=[percent(certainties[number])],
            mode="markers",
            name="stopped here",
            hovertemplate="trial %{x}: %{y:.2g} %, stopped<extra></extra>",
            marker=marker("star", ANSWER, 16, "white"),
        )
    figure.update_layout(
        **layout(
            "Probability that a better shape exists, by the model",
            f"Better: {_better(problem, stop)}. "
            + (f"Stopped: {stop['reason']}." if stop else "The search has not stopped."),
            annotations=annotations,
            xaxis=axis(
                "trial",
                range=[-0.5, max(certainties, default=9) + 0.5],
                **({"dtick": 1} if max(certainties, default=9) <= 20 else {}),
            ),
            yaxis=axis(
                "probability", ticksuffix=" %", range=[-5 * top, min(103, math.ceil(115 * top))]
            ),
        )
    )
    return figure


def _unstated(first: int) -> dict[str, Any]:
    """Say why nothing stands before the first trial with a probability."""
    return {
        "text": "too few trainings<br>to state it" if first > 2 else "",
        "x": (first - 1) / 2,
        "yref": "paper",
        "y": 0.8,
        "showarrow": False,
        "font": {"color": GREY},
    }


def _better(problem: ShapeProblem, stop: dict[str, object]) -> str:
    epsilon = stop.get("epsilon")
    share = f"{100 * epsilon:g} %" if isinstance(epsilon, float) else "the terminator's epsilon"
    if problem.goal == ACCURACY:
        images = " of all images" if isinstance(epsilon, float) else ""
        return f"more accurate by more than {share}{images}"
    return f"{problem.goal} less by more than {share}, and accurate enough"
