"""The report of a study: one HTML file that needs nothing else, and a CSV of all shapes."""

from __future__ import annotations

import csv
import datetime
import html
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.study import Study

from optuna_shape.problem import ShapeProblem
from optuna_shape.records import StudyRecords
from optuna_shape.report import sections
from optuna_shape.report.figures import certainty
from optuna_shape.report.figures import learning_curves
from optuna_shape.report.figures import properties_shown
from optuna_shape.report.figures import shape_map
from optuna_shape.report.figures import tradeoff
from optuna_shape.report.markup import Html
from optuna_shape.report.markup import document
from optuna_shape.report.markup import element
from optuna_shape.report.measured import csv_text
from optuna_shape.report.measured import write_whole
from optuna_shape.report.sections import Facts
from optuna_shape.space import Shape

if TYPE_CHECKING:
    import plotly.graph_objects as go

_SUFFIXES = (".html", ".htm")
_MARGIN = 16  # pixels, above a figure
_PREDICTED = ("predicted_accuracy", "predicted_low", "predicted_high")


def write_report(
    problem: ShapeProblem, study: Study, path: str | Path, *, checkpoint: str | Path | None = None
) -> tuple[Path, Path | None]:
    """Write what a study has found as one HTML file that works offline, and all shapes as CSV.

    Nothing is measured or trained for it. Of a study without an answer the report says so.

    Args:
        problem: What is asked.
        study: Where it was searched.
        path: A file that ends in ``.html``, or a folder for ``report.html``. The CSV is named
            likewise; :class:`~optuna_shape.TableMeter` reads it, too.
        checkpoint: Where the answer's trained network is kept, for the report to say.

    Returns:
        The HTML file, and the CSV file; None where no shapes have been measured yet.

    Raises:
        OSError: A file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        path = path / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not StudyRecords(study).is_screened():
        write_whole(path, _page_of_nothing(problem, study))
        return path, None
    facts = Facts(problem, study, checkpoint)
    shapes = path.with_suffix(".csv")
    write_whole(shapes, shapes_csv(facts))
    write_whole(path, _page(facts, shapes.name))
    return path, shapes


def shapes_csv(facts: Facts) -> str:
    """All shapes, one line each: what was measured, the verdict, and what training says.

    Accuracies are fractions; that of a shape is either measured or predicted.
    """
    rows = csv.DictReader(io.StringIO(csv_text(facts.screening)))
    text = io.StringIO()
    added = ("trainings", "trials", "accuracy", *_PREDICTED, "answer")
    writer = csv.DictWriter(text, [*(rows.fieldnames or ()), *added], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        shape = Shape(int(row["depth"]), int(row["width"]))
        trials, known = facts.numbers(shape), facts.known.get(shape)
        cells: dict[str, object] = {
            "trainings": len(trials),
            "trials": " ".join(map(str, trials)),
            "answer": int(facts.best is not None and facts.best.shape == shape),
        }
        if known is not None and known.trainings:
            cells["accuracy"] = known.value
        elif known is not None:
            ends = (known.value, known.low, known.high)
            cells |= {name: f"{end:.5f}" for name, end in zip(_PREDICTED, ends)}
        writer.writerow({**row, **cells})
    return text.getvalue()


def _page(facts: Facts, shapes: str) -> str:
    from plotly.offline import get_plotlyjs

    problem, study = facts.problem, facts.study
    shown = [name for name in facts.costs if name in properties_shown(facts.screening)]
    parts = (
        _head(study),
        sections.summary(facts),
        sections.question(problem, study, facts.screening),
        sections.device(facts),
        sections.remaining(facts),
        sections.trained(facts),
        _drawn("shape-map", shape_map(problem, study)),
        sections.comparison(facts),
        *(_drawn(f"accuracy-{name}", tradeoff(problem, study, name)) for name in shown),
        sections.spending(facts),
        _drawn("learning-curves", learning_curves(problem, study)),
        sections.trust(facts),
        _drawn("certainty", certainty(problem, study)),
        sections.rebuilding(facts),
    )
    end = element(
        "p",
        f"All shapes stand in {shapes}, beside this file: latencies in seconds, energies in "
        "joules, sizes and memory in bytes, accuracies as fractions.",
        kind="soft",
    )
    script = Html(f"<script>{get_plotlyjs()}</script>")
    body = [block for part in parts for block in part]
    return document(_title(study), script, [*body, end])


def _page_of_nothing(problem: ShapeProblem, study: Study) -> str:
    said = "No answer yet: no shape is known to be within the limits, and none was trained."
    body = [
        *_head(study),
        element("div", said, kind="lead"),
        *sections.question(problem, study, None),
    ]
    return document(_title(study), Html(), body)


def _head(study: Study) -> Iterator[Html]:
    now = datetime.datetime.now().astimezone()
    yield element("h1", _title(study))
    yield element("p", f"Written by optuna_shape, {now:%Y-%m-%d %H:%M %Z}.", kind="soft")


def _title(study: Study) -> str:
    return f"Shape search: {study.study_name}"


def _drawn(name: str, figure: go.Figure) -> Iterator[Html]:
    """A figure, if there is something in it.

    Its title stands above it as text, since Plotly would cut it off on a phone.
    """
    if not figure.data:
        return
    title = figure.layout.title
    yield element("h3", _unmarked(title.text))
    if title.subtitle.text:
        yield element("p", _unmarked(title.subtitle.text), kind="soft")
    above = figure.layout.margin.t - _MARGIN
    figure.update_layout(title=None, height=figure.layout.height - above, margin={"t": _MARGIN})
    # Plotly writes the figure as JSON without any bracket of mark-up, and draws from that.
    drawn = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=name,
        config={"displaylogo": False, "responsive": True},
    )
    yield element("figure", Html(drawn))


def _unmarked(text: str) -> str:
    """The text that Plotly shows, which stands there escaped and in lines."""
    return html.unescape(text.replace("<br>", " "))
