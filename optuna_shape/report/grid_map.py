"""The picture of a measured design space: latency of each shape, and the boundary."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_shape.constraints import format_quantity
from optuna_shape.filters import Screening
from optuna_shape.report.figures._style import plain
from optuna_shape.report.measured import figure_text
from optuna_shape.report.measured import interval_text
from optuna_shape.report.measured import write_whole
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape

if TYPE_CHECKING:
    import plotly.graph_objects as go

Line = list[float | None]

_INK = "#202124"
_GREY = "#80868b"
_VEIL = "rgba(241, 243, 244, 0.7)"
# Light throughout: figures are written on it.
_SCALE = ("#fff7d6", "#c7e9b4", "#7fcdbb", "#5ab4d6")
_WIDE = 8.0  # from there on, the scale is logarithmic
_CELL = (56, 34)  # pixels, wide enough for "12.3 ms"
_LEAST = (420, 200)
_MARGIN = {"l": 70, "r": 130, "t": 110, "b": 130}
_HATCH = 3  # lines per cell


def grid_map(space: DesignSpace, screening: Screening) -> go.Figure:
    """Latency of each shape, depth by width, with the boundary of what is within.

    Shapes over a bound are veiled, those whose latency was not measured hatched; the line runs
    between shapes that are within every bound and shapes that are not. Everything that is known
    of a shape is told on hover.
    """
    import plotly.graph_objects as go

    columns = {width: i for i, width in enumerate(space.widths)}
    rows = {depth: i for i, depth in enumerate(space.depths)}
    latencies = {
        shape: measurement.value
        for shape, measurement in screening.measurements.get("latency", {}).items()
        if shape in space
    }
    finite = [value for value in latencies.values() if math.isfinite(value)]
    low, high = min(finite, default=1.0), max(finite, default=1.0)
    wide = high / low > _WIDE
    # Before they are judged, shapes are not known to be over.
    out = {s for s, verdict in screening.verdicts.items() if verdict.status != "within"}

    def colour(shape: Shape) -> float | None:
        value = latencies.get(shape, math.inf)
        if math.isinf(value):
            return None
        return math.log10(value) if wide else value

    shown = {"x": list(range(len(columns))), "y": list(range(len(rows))), "xgap": 1, "ygap": 1}
    figure = go.Figure()
    figure.add_heatmap(
        **shown,
        z=[[colour(Shape(d, w)) for w in columns] for d in rows],
        colorscale=_SCALE,
        colorbar=_colorbar(low, high, wide) if finite else None,
        showscale=bool(finite),
        hoverinfo="skip",
    )
    figure.add_heatmap(
        **shown,
        z=[[float(Shape(d, w) in out) for w in columns] for d in rows],
        zmin=0,
        zmax=1,
        colorscale=[[0, "rgba(0, 0, 0, 0)"], [1, _VEIL]],
        showscale=False,
        text=[[_hover(screening, Shape(d, w)) for w in columns] for d in rows],
        hoverinfo="text",
    )
    unmeasured = [Shape(d, w) for d in rows for w in columns if Shape(d, w) not in latencies]
    places = [(columns[shape.width], rows[shape.depth]) for shape in unmeasured]
    _add_line(figure, "latency not measured", _hatching(places), width=1, colour=_GREY)
    within = {(columns[s.width], rows[s.depth]) for s in space.shapes if s not in out}
    edges = _edges(within, len(columns), len(rows))
    _add_line(figure, "boundary of what is within", edges, width=4, colour=_INK)
    _add_texts(figure, screening, latencies, columns, rows, out)
    plot = [
        max(least, n * size) for n, size, least in zip((len(columns), len(rows)), _CELL, _LEAST)
    ]
    figure.update_layout(
        template=None,
        width=plot[0] + _MARGIN["l"] + _MARGIN["r"],
        height=plot[1] + _MARGIN["t"] + _MARGIN["b"],
        margin=_MARGIN,
        title=_title(space, screening, out, characters=plot[0] // 6),
        xaxis=_axis("width", columns),
        yaxis=_axis("depth", rows),
        legend={"orientation": "h", "yref": "container", "y": 0.02, "x": 0},
        plot_bgcolor="white",
        font={"color": _INK},
    )
    return figure


def write_map(path: Path, space: DesignSpace, screening: Screening) -> None:
    """Write :func:`grid_map` as an HTML file that needs nothing from the network.

    Raises:
        OSError: It cannot be written.
    """
    html = grid_map(space, screening).to_html(include_plotlyjs=True)
    write_whole(path, html)


def _add_texts(
    figure: go.Figure,
    screening: Screening,
    latencies: Mapping[Shape, float],
    columns: Mapping[int, int],
    rows: Mapping[int, int],
    out: set[Shape],
) -> None:
    shapes = sorted(latencies)
    undecided = {s for s, verdict in screening.verdicts.items() if verdict.status == "undecided"}
    figure.add_scatter(
        x=[columns[shape.width] for shape in shapes],
        y=[rows[shape.depth] for shape in shapes],
        mode="text",
        text=[
            figure_text("latency", latencies[shape]).replace("cannot ", "cannot<br>")
            + (" ?" if shape in undecided else "")
            for shape in shapes
        ],
        textfont={"size": 11, "color": [_GREY if shape in out else _INK for shape in shapes]},
        hoverinfo="skip",
        showlegend=False,
    )


def _add_line(
    figure: go.Figure, name: str, line: tuple[Line, Line], *, width: int, colour: str
) -> None:
    x, y = line
    if x:
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            name=name,
            line={"width": width, "color": colour},
            hoverinfo="skip",
        )


def _hatching(places: Sequence[tuple[int, int]]) -> tuple[Line, Line]:
    """Diagonals of cells, as one line with gaps."""
    x: Line = []
    y: Line = []
    for column, row in places:
        for i in range(1, 2 * _HATCH):
            # Where the diagonal x + y = offset enters and leaves the unit square.
            offset = i / _HATCH
            start, end = max(0.0, offset - 1), min(1.0, offset)
            x += [column - 0.5 + start, column - 0.5 + end, None]
            y += [row - 0.5 + offset - start, row - 0.5 + offset - end, None]
    return x, y


def _edges(within: set[tuple[int, int]], columns: int, rows: int) -> tuple[Line, Line]:
    """The edges between cells within and cells not within, as one line with gaps."""
    x: Line = []
    y: Line = []
    for column in range(columns):
        for row in range(rows):
            here = (column, row) in within
            if column + 1 < columns and ((column + 1, row) in within) != here:
                x += [column + 0.5, column + 0.5, None]
                y += [row - 0.5, row + 0.5, None]
            if row + 1 < rows and ((column, row + 1) in within) != here:
                x += [column - 0.5, column + 0.5, None]
                y += [row + 0.5, row + 0.5, None]
    return x, y


def _hover(screening: Screening, shape: Shape) -> str:
    lines = [f"depth {shape.depth}, width {shape.width}"]
    for name, measurements in screening.measurements.items():
        if shape in measurements:
            measurement = measurements[shape]
            line = f"{screening.label(name)} {figure_text(name, measurement.value)}"
            if measurement.low < measurement.high:
                line += f" ({interval_text(name, measurement)})"
            lines.append(line)
    verdict = screening.verdicts.get(shape)
    if verdict is not None:
        reason = f"{verdict.status}: {verdict.reason}".rstrip(": ")
        lines += map(plain, textwrap.wrap(reason, 70))
    return "<br>".join(lines)


def _colorbar(low: float, high: float, wide: bool) -> dict[str, object]:
    steps = [i / 4 for i in range(5)] if high > low else [0.0]
    values = [low * (high / low) ** i if wide else low + (high - low) * i for i in steps]
    return {
        "tickvals": [math.log10(value) if wide else value for value in values],
        "ticktext": [format_quantity("latency", value) for value in values],
    }


def _title(
    space: DesignSpace, screening: Screening, out: set[Shape], *, characters: int
) -> dict[str, object]:
    limits = ", ".join(screening.bounds)
    counted = f": {len(space) - len(out)} of {len(space)} within {limits}" if limits else ""
    title = textwrap.wrap(f"Latency of {space.name or 'the design space'}{counted}", characters)
    device = map(plain, textwrap.wrap(screening.fingerprint, characters + characters // 4))
    return {
        "text": "<br>".join(map(plain, title)),
        "font": {"size": 16},
        "subtitle": {
            "text": "<br>".join(device),
            "font": {"size": 11, "color": _GREY},
        },
        "x": 0.02,
        "xanchor": "left",
    }


def _axis(name: str, values: Mapping[int, int]) -> dict[str, object]:
    return {
        "title": {"text": name},
        "tickvals": list(values.values()),
        "ticktext": [str(value) for value in values],
        "range": [-0.5, len(values) - 0.5],
        "showgrid": False,
        "zeroline": False,
    }
