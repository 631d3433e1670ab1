"""Plotly figures of a study, for dashboards, reports and notebooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from optuna.study import Study

from optuna_shape.constraints import format_quantity
from optuna_shape.decide.surrogate import accuracy as accuracy_of
from optuna_shape.filters import Verdict
from optuna_shape.posterior import believe
from optuna_shape.problem import ShapeProblem
from optuna_shape.space import Shape

if TYPE_CHECKING:
    import plotly.graph_objects as go

_GREY = "#9aa0a6"
_INK = "#202124"


def shape_map(problem: ShapeProblem, study: Study) -> go.Figure:
    """Depth by width: predicted accuracy, trained shapes, and the shapes removed beforehand.

    Cells are coloured by the accuracy that the model predicts; trained ones show what was
    measured. Crosses are shapes that were removed before training, with the reason on hover; the
    star is the answer.
    """
    import plotly.graph_objects as go

    belief = believe(problem, study)
    screening = problem.screen(study)
    mean, _ = belief.latent.marginal()
    predicted = dict(zip(belief.shapes, accuracy_of(mean).tolist()))
    trained = {belief.shapes[i]: value for i, value in belief.means.items()}
    widths, depths = problem.space.widths, problem.space.depths

    def hover(shape: Shape) -> str:
        lines = [f"depth {shape.depth}, width {shape.width}"]
        if shape in trained:
            lines.append(f"trained: accuracy {format_quantity('accuracy', trained[shape])}")
        if shape in predicted:
            lines.append(f"predicted: accuracy {format_quantity('accuracy', predicted[shape])}")
        lines += [
            f"{name} {format_quantity(name, value)}"
            for name, value in screening.properties(shape).items()
        ]
        verdict = screening.verdicts[shape]
        if verdict.status != "within":
            lines.append(f"{verdict.status}: {verdict.reason}")
        return "<br>".join(lines)

    figure = go.Figure()
    figure.add_heatmap(
        x=[str(width) for width in widths],
        y=[str(depth) for depth in depths],
        z=[[_percent(predicted.get(Shape(d, w))) for w in widths] for d in depths],
        text=[[hover(Shape(d, w)) for w in widths] for d in depths],
        hoverinfo="text",
        colorscale="Viridis",
        colorbar={"title": {"text": "predicted<br>accuracy, %"}},
        xgap=1,
        ygap=1,
    )
    removed = [
        shape for shape, verdict in screening.verdicts.items() if verdict.status != "within"
    ]
    by_constraint: dict[str, list[Shape]] = {}
    for shape in removed:
        by_constraint.setdefault(_limit(screening.verdicts[shape]), []).append(shape)
    symbols = ("x-thin", "cross-thin", "asterisk", "hash", "y-up")
    for symbol, (limit, shapes) in zip(
        symbols * len(by_constraint), sorted(by_constraint.items())
    ):
        _scatter(figure, f"removed: {limit}", shapes, hover, symbol, size=9, line=_GREY)
    _scatter(figure, "trained", sorted(trained), hover, "circle", size=14, fill="white")
    running = sorted(belief.history.claimed)
    if running:
        _scatter(figure, "in training", running, hover, "diamond", size=12, fill="#fbbc04")
    best = problem.best(study)
    if best is not None:
        _scatter(figure, "answer", [best.shape], hover, "star", size=16, fill="#e8453c")
    figure.update_layout(
        template=None,
        title={"text": f"Shapes of {problem.space.name or 'the design space'}"},
        xaxis={"title": {"text": "width"}, "type": "category"},
        yaxis={"title": {"text": "depth"}, "type": "category"},
        legend={"orientation": "h", "y": -0.2},
        plot_bgcolor="#f1f3f4",
        font={"color": _INK},
    )
    return figure


def _scatter(
    figure: go.Figure,
    name: str,
    shapes: list[Shape],
    hover: Callable[[Shape], str],
    symbol: str,
    *,
    size: int,
    fill: str = "white",
    line: str = _INK,
) -> None:
    figure.add_scatter(
        x=[str(shape.width) for shape in shapes],
        y=[str(shape.depth) for shape in shapes],
        mode="markers",
        name=name,
        text=[hover(shape) for shape in shapes],
        hoverinfo="text",
        marker={
            "symbol": symbol,
            "size": size,
            "color": fill,
            "line": {"width": 1.5, "color": line},
        },
    )


def _limit(verdict: Verdict) -> str:
    return verdict.constraint or verdict.status


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 2)
