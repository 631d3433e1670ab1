"""``optuna-shape report``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer
from optuna.study import Study

from optuna_shape.cli._common import errors_in_a_line
from optuna_shape.cli._common import make_console
from optuna_shape.cli._common import say
from optuna_shape.cli._studies import OUTPUT
from optuna_shape.cli._studies import Storage
from optuna_shape.cli._studies import StudyName
from optuna_shape.cli._studies import open_study
from optuna_shape.errors import InvalidCheckpoint
from optuna_shape.errors import ShapeError
from optuna_shape.problem import ShapeProblem
from optuna_shape.report.page import write_report
from optuna_shape.train.checkpoint import load_checkpoint


class ReportNotWritten(ShapeError):
    """A file of the report cannot be written."""


def report(
    storage: Storage = OUTPUT,
    study_name: StudyName = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="HTML file to write, or a folder for report.html; a CSV of all shapes, in SI "
            "units, is written beside it. By default in the folder of the search.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write what a study has found as one HTML file that needs no network, and a CSV.

    Nothing is measured or trained for it. A search that still runs may be reported on, too.
    """
    console = make_console()
    with errors_in_a_line(console):
        study = open_study(storage, study_name)
        problem = ShapeProblem.from_study(study)
        place = Path(storage)
        folder = place if place.is_dir() else place.parent if place.is_file() else Path(OUTPUT)
        target = folder if output is None else output
        with console.status("Writing the report ..."):
            try:
                page, shapes = write_report(
                    problem, study, target, checkpoint=_published(folder, problem, study)
                )
            except OSError as error:
                raise ReportNotWritten(
                    f"{error.filename or target} cannot be written: {error.strerror}. "
                    "Name another file with --output."
                ) from None
    written = f"Written: {page}" + (f", and all shapes to {shapes}." if shapes else ".")
    say(console, written)


def _published(folder: Path, problem: ShapeProblem, study: Study) -> Path | None:
    """Where a search in this folder has kept the network of the answer, if it has."""
    answer, path = problem.best(study), folder / study.study_name / "answer"
    with contextlib.suppress(InvalidCheckpoint, OSError):
        _, info = load_checkpoint(path, problem.space)
        if answer is not None and info.shape == answer.shape:
            return path
    return None
