"""Accuracy against a cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any

from optuna.study import Study

from optuna_shape.constraints import COSTS
from optuna_shape.constraints import UNITS
from optuna_shape.constraints import format_quantity
from optuna_shape.decide.normal import Normal
from optuna_shape.errors import InvalidProblem
from optuna_shape.filters import Screening
from optuna_shape.posterior import believe
from optuna_shape.problem import ShapeProblem
from optuna_shape.records import ACCURACY
from optuna_shape.report.figures._style import ANSWER
from optuna_shape.report.figures._style import INK
from optuna_shape.report.figures._style import PREDICTED
from optuna_shape.report.figures._style import TRAINED
from optuna_shape.report.figures._style import axis
from optuna_shape.report.figures._style import centred
from optuna_shape.report.figures._style import layout
from optuna_shape.report.figures._style import marker
from optuna_shape.report.figures._style import padded
from optuna_shape.report.figures._style import percent
from optuna_shape.report.figures._style import percents
from optuna_shape.report.figures._style import plain
from optuna_shape.report.predicted import CONFIDENCE
from optuna_shape.report.predicted import accuracy_interval
from optuna_shape.space import Shape

if TYPE_CHECKING:
    import plotly.graph_objects as go

_WIDE = 8.0  # from there on, the axis is logarithmic
_WHISKERS = 60  # more of them are a haze
_NEAR = 1.3  # a limit farther beyond the shapes than this is not drawn


def properties_shown(screening: Screening) -> tuple[str, ...]:
    """The costs that were measured of every shape within the limits."""
    return tuple(
        name
        for name in COSTS
        if all(
            math.isfinite(screening.value(name, shape) or math.inf) for shape in screening.feasible
        )
    )


def tradeoff(problem: ShapeProblem, study: Study, property: str = "latency") -> go.Figure:
    """Accuracy against a cost: trained shapes, their Pareto front, predictions and limits.

    Args:
        problem: What is asked.
        study: Where it was searched.
        property: ``"latency"``, ``"energy"``, ``"size"`` or whatever else was measured.

    Raises:
        InvalidProblem: The property was not measured of every shape within the limits.
    """
    import plotly.graph_objects as go

    screening = problem.screen(study)
    shown = properties_shown(screening)
    if property not in shown:
        raise InvalidProblem(
            f"{property!r} was not measured of every shape in this study. "
            f"There is {', '.join(shown) or 'no cost at all'}."
        )
    belief = believe(problem, study)
    shapes = belief.shapes
    unit, size = _unit(property, [_value(screening, property, shape) for shape in shapes])
    costs = [float(f"{_value(screening, property, s) / size:.4g}") for s in shapes]
    trained = {int(i): percent(belief.means[i]) for i in belief.trained}
    # Before the first training, the model has nothing to predict from.
    untrained = [int(i) for i in belief.untrained] if trained else []
    mean, sd = belief.latent.marginal()
    predicted = accuracy_interval(Normal(mean[untrained], sd[untrained]))
    centre, low, high = map(percents, predicted)
    whiskers = len(untrained) <= _WHISKERS
    figure = go.Figure()
    if untrained:
        figure.add_scatter(
            x=[costs[i] for i in untrained],
            y=centre,
            mode="markers",
            name="not trained: predicted" + (f", with {CONFIDENCE} interval" if whiskers else ""),
            text=[f"{shapes[i]}: {a:.1f} to {b:.1f} %" for i, a, b in zip(untrained, low, high)],
            hovertemplate=f"%{{text}}<br>predicted %{{y:.1f}} %, %{{x}} {unit}<extra></extra>",
            marker={"color": PREDICTED, "size": 7, "opacity": 0.6},
            error_y={
                "array": [round(b - a, 2) for a, b in zip(centre, high)],
                "arrayminus": [round(a - b, 2) for a, b in zip(centre, low)],
                "color": "rgba(86, 180, 233, 0.35)",
                "thickness": 1.5,
                "width": 0,
                "visible": whiskers,
            },
        )
    front = pareto_front({i: (costs[i], value) for i, value in trained.items()})
    if front:
        figure.add_scatter(
            x=[costs[i] for i in front],
            y=[trained[i] for i in front],
            mode="lines",
            line={"shape": "hv", "color": TRAINED, "width": 1.5},
            name="Pareto front of the trained",
            hoverinfo="skip",
        )
    best = problem.best(study)
    answer = None if best is None else belief.index.get(best.shape)
    marked: tuple[tuple[str, list[int], Mapping[str, object]], ...] = (
        ("trained: measured", list(trained), marker("circle", TRAINED, 10, "white")),
        ("answer", [] if answer is None else [answer], marker("star", ANSWER, 17, "white")),
    )
    for name, positions, look in marked:
        if positions:
            figure.add_scatter(
                x=[costs[i] for i in positions],
                y=[trained[i] for i in positions],
                mode="markers",
                name=name,
                text=[str(shapes[i]) for i in positions],
                hovertemplate=f"%{{text}}<br>measured %{{y:.1f}} %, %{{x}} {unit}<extra></extra>",
                marker=look,
            )
    label, limits = screening.label(property), _limits(problem, screening)
    logarithmic = max(costs) / min(costs) > _WIDE
    bound = limits.get(property, math.inf) / size
    reached = [*costs, *([bound] if bound <= _NEAR * max(costs) else [])]
    threshold = limits.get(ACCURACY)
    heights = [*trained.values(), *centre, *([] if threshold is None else [percent(threshold)])]
    heights = heights if trained else [0.0, 100.0]
    figure.update_layout(
        **layout(
            f"Accuracy against {label}",
            f"Limits: {', '.join(map(str, problem.constraints)) or 'none'}.",
            xaxis=axis(
                f"{label}, {unit}" if unit else label,
                type="log" if logarithmic else "linear",
                range=padded([math.log10(x) for x in reached] if logarithmic else reached),
                **(_ticks(reached) if logarithmic else {}),
            ),
            yaxis=axis("accuracy", ticksuffix=" %", range=padded(heights, 0.12)),
            **_lines(property, limits, size, logarithmic=logarithmic),
        )
    )
    if not trained:
        figure.add_annotation(centred("No shape has been trained yet."))
    return figure


def pareto_front(points: Mapping[int, tuple[float, float]]) -> list[int]:
    """Which points, ``(cost, accuracy)``, no other equals or beats in both; cheapest first."""
    front: list[int] = []
    best = -math.inf
    for key, (_, value) in sorted(points.items(), key=lambda item: (item[1][0], -item[1][1])):
        if value > best:
            front.append(key)
            best = value
    return front


def _value(screening: Screening, name: str, shape: Shape) -> float:
    value = screening.value(name, shape)
    assert value is not None  # The figure is refused where one is missing.
    return value


def _unit(name: str, values: list[float]) -> tuple[str, float]:
    """The unit of the middle value, and its size in SI."""
    unit = format_quantity(name, sorted(values)[len(values) // 2]).partition(" ")[2]
    return unit, UNITS[name][unit]


def _ticks(values: list[float]) -> dict[str, list[float] | list[str]]:
    """Ticks of a logarithmic axis at 1, 2 and 5, written in full."""
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    ticks = [step * 10.0**power for power in range(first, last + 1) for step in (1, 2, 5)]
    return {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _limits(problem: ShapeProblem, screening: Screening) -> dict[str, float]:
    """Bounds in SI units by property, references resolved."""
    return {c.property: screening.bounds.get(str(c), c.bound) for c in problem.constraints}


def _lines(
    name: str, limits: Mapping[str, float], size: float, *, logarithmic: bool
) -> dict[str, Any]:
    """Limits as lines across the axes, each with its figure."""
    line = {"color": INK, "width": 1.5, "dash": "dash"}
    shapes: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    if name in limits:
        x = limits[name] / size
        shapes.append({"x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": line})
        annotations.append(
            {
                "text": plain(f"at most {format_quantity(name, limits[name])}"),
                # Positions of annotations, unlike those of shapes, are logarithms.
                "x": math.log10(x) if logarithmic else x,
                "xanchor": "right",
                "yref": "paper",
                "y": 0,
                "yanchor": "bottom",
                "textangle": -90,
                "showarrow": False,
            }
        )
    if ACCURACY in limits:
        y = percent(limits[ACCURACY])
        shapes.append({"y0": y, "y1": y, "xref": "paper", "x0": 0, "x1": 1, "line": line})
        annotations.append(
            {
                "text": plain(f"at least {format_quantity(ACCURACY, limits[ACCURACY])}"),
                "y": y,
                "yanchor": "bottom",
                "xref": "paper",
                "x": 0,
                "xanchor": "left",
                "showarrow": False,
            }
        )
    return {"shapes": shapes, "annotations": annotations}
