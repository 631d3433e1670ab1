"""What a network's compression led to: its layers as a CSV file, its curve as a figure too."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_shape.compress.measures import Bits
from optuna_shape.compress.search import Compression
from optuna_shape.compress.search import Point
from optuna_shape.compress.search import curve
from optuna_shape.constraints import format_quantity
from optuna_shape.report.figures._style import ANSWER
from optuna_shape.report.figures._style import GREY
from optuna_shape.report.figures._style import PREDICTED
from optuna_shape.report.figures._style import TRAINED
from optuna_shape.report.figures._style import axis
from optuna_shape.report.figures._style import layout
from optuna_shape.report.figures._style import marker
from optuna_shape.report.figures._style import percent
from optuna_shape.report.figures._style import percents
from optuna_shape.report.measured import write_whole

if TYPE_CHECKING:
    import plotly.graph_objects as go

_COLUMNS = (
    "percentile",
    "k",
    "method",
    "rounded",
    "bits",
    "representation_bits",
    "accuracy",
    "on_curve",
    "chosen",
)


@dataclass(frozen=True)
class Layer:
    """How a tensor was packed: in which format, and how large it is."""

    format: str
    bits: Bits

    @property
    def record(self) -> dict[str, object]:
        """Format and sizes by name."""
        return {"format": self.format, **record(self.bits)}


def record(bits: Bits) -> dict[str, object]:
    """Return sizes by name; ``overhead``, which is infinite where there is no entropy, as None."""
    return {
        **asdict(bits),
        "entropy_bits": bits.entropy_bits,
        "representation_bits": bits.representation_bits,
        "overhead": bits.overhead if math.isfinite(bits.overhead) else None,
    }


def layers_csv(layers: Mapping[str, Layer]) -> str:
    """The tensors of a network, one or more, a line each: names, formats, and :func:`record`."""
    text = io.StringIO()
    rows = [{"name": name, **layer.record} for name, layer in layers.items()]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_layers(path: Path, layers: Mapping[str, Layer]) -> None:
    """Write :func:`layers_csv`; :exc:`OSError` if that fails."""
    write_whole(path, layers_csv(layers))


def curve_csv(found: Compression) -> str:
    """All networks that were tried, one line each, in the order of the trials.

    Accuracies are fractions of the validation images. The first line is the network as it was
    trained, whose cells are empty where a setting would stand.
    """
    best = curve(found.points)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for point in found.points:
        setting = point.setting
        cells: list[object] = [""] * 4
        if setting is not None:
            cells = [setting.percentile, setting.k, setting.method, int(setting.rounded)]
        writer.writerow(
            [
                *cells,
                point.bits,
                round(point.representation_bits),
                point.accuracy,
                int(point in best),
                int(point == found.best),
            ]
        )
    return text.getvalue()


def curve_figure(found: Compression, name: str, drop: float) -> go.Figure:
    """Accuracy on the validation images by bits of the packed tensors.

    Args:
        found: What a search has found.
        name: Of the network, for the title.
        drop: The allowed drop of accuracy, a fraction.
    """
    import plotly.graph_objects as go

    best = curve(found.points)
    figure = go.Figure()
    groups = {
        "tried": (
            [point for point in found.points if point not in best],
            {"mode": "markers", "marker": marker("circle", PREDICTED, 8, GREY)},
        ),
        "curve": (
            best,
            {
                "mode": "lines+markers",
                "line": {"color": TRAINED, "width": 2, "shape": "hv"},
                "marker": marker("circle", TRAINED, 9),
            },
        ),
        "as it was trained": (
            [found.trained],
            {"mode": "markers", "marker": marker("diamond", GREY, 12)},
        ),
        "chosen": ([found.best], {"mode": "markers", "marker": marker("star", ANSWER, 16)}),
    }
    for title, (points, look) in groups.items():
        figure.add_scatter(
            name=title,
            x=[point.bits for point in points],
            y=percents(point.accuracy for point in points),
            text=[_told(point) for point in points],
            hoverinfo="text",
            **look,
        )
    least = found.trained.accuracy - drop
    figure.add_hline(percent(least), line={"color": GREY, "width": 1, "dash": "dash"})
    figure.update_layout(
        **layout(
            f"Accuracy against bits: {name}",
            f"{len(found.points) - 1} networks were tried. At least {100 * least:.4g} % of the "
            "validation images were asked for (dashed).",
            xaxis=axis("bits of the packed network", type="log", dtick="D2", tickformat="~s"),
            yaxis=axis("validation accuracy", ticksuffix=" %"),
        )
    )
    return figure


def write_curve(stem: Path, found: Compression, name: str, drop: float) -> tuple[Path, Path]:
    """Write :func:`curve_csv`, and :func:`curve_figure` as an HTML file that works offline.

    Args:
        stem: The files, without their suffixes.
        found: What a search has found.
        name: Of the network, for the title.
        drop: The allowed drop of accuracy, a fraction.

    Raises:
        OSError: They cannot be written.
    """
    table, page = (stem.with_name(stem.name + suffix) for suffix in (".csv", ".html"))
    write_whole(table, curve_csv(found))
    write_whole(page, curve_figure(found, name, drop).to_html(include_plotlyjs=True))
    return table, page


def _told(point: Point) -> str:
    size = format_quantity("size", point.bits / 8)
    said = f"{point.bits} bits ({size}), {100 * point.accuracy:.4g} %"
    setting = point.setting
    if setting is None:
        return f"as it was trained<br>{said}"
    return f"{setting.percentile:g} % pruned, {setting.k} values, {setting.method}<br>{said}"
