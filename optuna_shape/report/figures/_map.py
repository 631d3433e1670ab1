"""The map of the design space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optuna.study import Study

from optuna_shape.constraints import GOAL_COSTS
from optuna_shape.constraints import format_quantity
from optuna_shape.filters import Screening
from optuna_shape.posterior import believe
from optuna_shape.problem import ShapeProblem
from optuna_shape.report.figures._style import ANSWER
from optuna_shape.report.figures._style import CUT
from optuna_shape.report.figures._style import GREY
from optuna_shape.report.figures._style import INK
from optuna_shape.report.figures._style import axis
from optuna_shape.report.figures._style import layout
from optuna_shape.report.figures._style import marker
from optuna_shape.report.figures._style import named
from optuna_shape.report.figures._style import percent
from optuna_shape.report.figures._style import percents
from optuna_shape.report.figures._style import plain
from optuna_shape.report.predicted import CONFIDENCE
from optuna_shape.report.predicted import accuracy_interval
from optuna_shape.space import Shape

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: Figures are written into the cells of grids up to so many columns and rows.
_COLUMNS, _ROWS = 14, 14
_NUMBERS, _COLOURS = "Cells: predicted; discs: measured, in %.", "Colours: predicted."
# Light throughout: figures are written on it.
_SCALE = ("#fff7d6", "#c7e9b4", "#7fcdbb", "#5ab4d6")
_SYMBOLS = ("x-thin", "cross-thin", "asterisk", "hash", "y-up")


def shape_map(problem: ShapeProblem, study: Study) -> go.Figure:
    """Depth by width: predicted accuracy, trained shapes, and the shapes removed beforehand.

    Cells are coloured by the accuracy that the model predicts, once a shape is trained. Discs are
    shapes that were trained, with what was measured. Crosses are shapes that were removed before
    training, with the reason on hover.
    """
    import plotly.graph_objects as go

    belief = believe(problem, study)
    screening = problem.screen(study)
    centre, low, high = map(percents, accuracy_interval(belief.latent.marginal()))
    index = belief.index
    trained = {belief.shapes[i]: value for i, value in belief.means.items()}
    widths, depths = problem.space.widths, problem.space.depths
    # A dashboard keeps the figure in the study, so large grids go without texts.
    told = len(widths) <= _COLUMNS and len(depths) <= _ROWS

    # What is "predicted" before the first training is only what the model begins with.
    informed = bool(trained)

    def cell(shape: Shape) -> str:
        i = index[shape]
        interval = _interval(low[i], high[i]) if informed else ""
        return f"{interval}{_costs(screening, shape)}" if told else ""

    figure = go.Figure()
    grid = [[Shape(depth, width) for width in widths] for depth in depths]
    figure.add_heatmap(
        x=[str(width) for width in widths],
        y=[str(depth) for depth in depths],
        z=[[centre[index[s]] if s in index else None for s in row] for row in grid],
        text=[[cell(s) if s in index else "" for s in row] for row in grid] if told else None,
        texttemplate="%{z:.0f}" if told and informed else None,
        textfont={"size": 11, "color": INK},
        hovertemplate="depth %{y}, width %{x}"
        + ("<br>predicted accuracy %{z:.1f} %" if informed else "")
        + ("%{text}" if told else "")
        + "<extra></extra>",
        hoverongaps=False,
        colorscale=_SCALE,
        showscale=informed and not told,  # Numbers say more, and phones have no room for both.
        colorbar={
            "title": {"text": "predicted<br>accuracy"},
            "ticksuffix": " %",
            "ticks": "outside",
        },
        xgap=1,
        ygap=1,
    )
    removed: dict[str, list[Shape]] = {}
    for shape, verdict in screening.verdicts.items():
        if verdict.status != "within":
            removed.setdefault(verdict.constraint or verdict.status, []).append(shape)
    for i, (limit, shapes) in enumerate(sorted(removed.items())):
        figure.add_scatter(
            **_places(shapes),
            mode="markers",
            name=plain(f"removed: {limit}"),
            text=[plain(_reason(screening, shape)) for shape in shapes] if told else None,
            hovertemplate="depth %{y}, width %{x}<br>"
            + ("%{text}<extra></extra>" if told else f"<extra>{plain(limit)}</extra>"),
            marker=marker(_SYMBOLS[i % len(_SYMBOLS)], GREY, 8, line=GREY),
        )
    best = problem.best(study)
    answers = [] if best is None else [best.shape]
    discs = (
        ("trained", sorted(set(trained) - set(answers)), "white"),
        ("answer", answers, ANSWER),
    )
    for name, shapes, fill in discs:
        if shapes:
            figure.add_scatter(
                **_places(shapes),
                mode="markers+text" if told else "markers",
                name=name,
                text=[f"{percent(trained[shape]):.1f}" for shape in shapes],
                textfont={"size": 11, "color": "white" if fill == ANSWER else "black"},
                hovertext=[_told(screening, shape, trained[shape]) for shape in shapes],
                hoverinfo="text",
                marker=marker("circle", fill, 28 if told else 10),
            )
    running = sorted(belief.history.claimed)
    if running:
        figure.add_scatter(
            **_places(running),
            mode="markers",
            name="in training",
            hovertext=[f"{named(shape)}<br>in training" for shape in running],
            hoverinfo="text",
            marker=marker("diamond", CUT, 12),
        )
    explained = (_NUMBERS if told else _COLOURS) if informed else "Nothing is trained yet."
    figure.update_layout(
        **layout(
            f"Accuracy of the shapes of {problem.space.name or 'the design space'}",
            f"{explained} {len(screening.feasible)} of {len(problem.space)} shapes are within the "
            f"limits{f', {len(trained)} of them were trained' if trained else ''}.",
            height=max(420, 210 + 36 * len(depths)) if told else 600,
            xaxis=axis("width", type="category", showgrid=False),
            yaxis=axis("depth", type="category", showgrid=False),
        )
    )
    return figure


def _places(shapes: Sequence[Shape]) -> dict[str, list[str]]:
    return {
        "x": [str(shape.width) for shape in shapes],
        "y": [str(shape.depth) for shape in shapes],
    }


def _interval(low: float, high: float) -> str:
    return f" ({CONFIDENCE}: {low:.1f} to {high:.1f})"


def _costs(screening: Screening, shape: Shape) -> str:
    known = {name: screening.value(name, shape) for name in GOAL_COSTS}
    return "".join(f"<br>{' '.join(figure)}" for figure in screening.figures(known).items())


def _told(screening: Screening, shape: Shape, accuracy: float) -> str:
    measured = f"trained: accuracy {format_quantity('accuracy', accuracy)}"
    return f"{named(shape)}<br>{measured}{_costs(screening, shape)}"


def _reason(screening: Screening, shape: Shape) -> str:
    verdict = screening.verdicts[shape]
    return f"{verdict.status}: {verdict.reason}".rstrip(": ")
