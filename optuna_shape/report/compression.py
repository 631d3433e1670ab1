"""What a network's compression led to: its layers as a CSV file, its curve as a figure too."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from optuna_shape.compress.measures import Bits
from optuna_shape.compress.search import Compression
from optuna_shape.compress.search import Point
from optuna_shape.compress.search import Size
from optuna_shape.compress.search import curve
from optuna_shape.constraints import format_quantity
from optuna_shape.errors import InvalidProblem
from optuna_shape.report.figures._style import ANSWER
from optuna_shape.report.figures._style import CUT
from optuna_shape.report.figures._style import GREY
from optuna_shape.report.figures._style import INK
from optuna_shape.report.figures._style import PREDICTED
from optuna_shape.report.figures._style import RUNNING
from optuna_shape.report.figures._style import TRAINED
from optuna_shape.report.figures._style import axis
from optuna_shape.report.figures._style import layout
from optuna_shape.report.figures._style import marker
from optuna_shape.report.figures._style import percent
from optuna_shape.report.figures._style import percents
from optuna_shape.report.figures._style import plain
from optuna_shape.report.measured import write_whole

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Of networks that are compared.
_COLOURS = (TRAINED, ANSWER, RUNNING, CUT, PREDICTED, INK)
_AXES = {
    "bits": "bits of the packed network",
    "representation_bits": "bits of parameters and connections",
}
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


def curve_figure(
    networks: Mapping[str, Compression], drop: float, *, by: Size = "bits"
) -> go.Figure:
    """Accuracy on the validation images by bits, of one network or of several to compare.

    Args:
        networks: What a search has found, by the name of the network. Of one alone, all networks
            that were tried are shown; of several, their curves and what was chosen.
        drop: The allowed drop of accuracy, a fraction.
        by: The bits of the packed tensors, or those of parameters and connections, which depend
            on no format (:mod:`optuna_shape.compress.measures`).

    Raises:
        InvalidProblem: There is no network.
    """
    import plotly.graph_objects as go

    if not networks:
        raise InvalidProblem("No network is given to show. Name one or more.")
    figure = go.Figure()

    def add(name: str, points: Iterable[Point], **look: Any) -> None:
        points = list(points)
        figure.add_scatter(
            name=plain(name),
            x=[getattr(point, by) for point in points],
            y=percents(point.accuracy for point in points),
            text=[_told(point) for point in points],
            hoverinfo="text" if alone else "text+name",
            **look,
        )

    alone = len(networks) == 1
    for (name, found), colour in zip(networks.items(), cycle(_COLOURS)):
        best = curve(found.points, by)
        group = "" if alone else name
        if alone:
            tried = [point for point in found.points if point not in best]
            add("tried", tried, mode="markers", marker=marker("circle", PREDICTED, 8, GREY))
        add(
            "curve" if alone else name,
            best,
            mode="lines+markers",
            line={"color": colour, "width": 2, "shape": "hv"},
            marker=marker("circle", colour, 9),
            legendgroup=group,
        )
        if alone:
            look = marker("diamond", GREY, 12)
            add("as it was trained", [found.trained], mode="markers", marker=look)
            least = found.trained.accuracy - drop
            figure.add_hline(percent(least), line={"color": GREY, "width": 1, "dash": "dash"})
            said = (
                f"{len(found.points) - 1} networks were tried. At least {100 * least:.4g} % of "
                "the validation images were asked for (dashed)."
            )
        else:
            said = f"Stars: the fewest packed bits within {100 * drop:.4g} points of accuracy."
        add(
            "chosen" if alone else name,
            [found.best],
            mode="markers",
            marker=marker("star", ANSWER if alone else colour, 16),
            legendgroup=group,
            showlegend=alone,
        )
    figure.update_layout(
        **layout(
            f"Accuracy against bits: {', '.join(networks)}",
            said,
            xaxis=axis(_AXES[by], type="log", dtick="D2", tickformat="~s"),
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
    write_whole(page, curve_figure({name: found}, drop).to_html(include_plotlyjs=True))
    return table, page


def _told(point: Point) -> str:
    size = format_quantity("size", point.bits / 8)
    said = (
        f"{point.bits} bits ({size}), {point.representation_bits:.0f} representation bits, "
        f"{100 * point.accuracy:.4g} %"
    )
    setting = point.setting
    if setting is None:
        return f"as it was trained<br>{said}"
    return f"{setting.percentile:g} % pruned, {setting.k} values, {setting.method}<br>{said}"
