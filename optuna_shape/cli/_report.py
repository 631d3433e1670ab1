"""``optuna-shape report``."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Annotated

import typer
from optuna.study import Study

from optuna_shape.cli._common import make_console
from optuna_shape.cli._common import say
from optuna_shape.cli._common import say_json
from optuna_shape.cli._common import writing
from optuna_shape.cli._declared import AsJson
from optuna_shape.cli._studies import OUTPUT
from optuna_shape.cli._studies import Storage
from optuna_shape.cli._studies import StudyName
from optuna_shape.cli._studies import as_json as study_as_json
from optuna_shape.cli._studies import file_of
from optuna_shape.cli._studies import open_study
from optuna_shape.errors import InvalidCheckpoint
from optuna_shape.errors import InvalidProblem
from optuna_shape.problem import ShapeProblem
from optuna_shape.report.page import write_report
from optuna_shape.train.checkpoint import load_checkpoint

_PAGES = (".html", ".htm")


def report(
    storage: Storage = OUTPUT,
    study_name: StudyName = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="HTML file to write, or a folder for report.html, or report-STUDY.html where the "
            "storage holds several studies; a CSV of all shapes, in SI units, is written beside "
            "it. By default in the folder that holds the study.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write what a study has found as one HTML file that needs no network, and a CSV.

    Nothing is measured or trained for it. A search that still runs may be reported on, too.
    """
    console = make_console(quiet=as_json)
    study = open_study(storage, study_name)
    problem = ShapeProblem.from_study(study)
    file = file_of(storage)
    folder = Path(OUTPUT) if file is None else file.parent
    target = _target(output or folder, study)
    checkpoint = _published(folder, problem, study)
    with console.status("Writing the report ..."), writing(target):
        page, shapes = write_report(problem, study, target, checkpoint=checkpoint)
    if as_json:
        written = [str(path) for path in (page, shapes) if path is not None]
        network = None if checkpoint is None else f"{checkpoint}.safetensors"
        say_json({**study_as_json(problem, study, checkpoint=network), "written": written})
    say(console, f"Written: {page}" + (f", and all shapes to {shapes}." if shapes else "."))


def _target(output: Path, study: Study) -> Path:
    """Return the HTML file to write.

    Raises:
        InvalidProblem: The name is that of another kind of file.
    """
    suffix = output.suffix.lower()
    if suffix in _PAGES:
        return output
    if suffix and not output.is_dir():
        raise InvalidProblem(
            f"--output {output} is neither a folder that is there nor a name that ends in .html. "
            f"Give {output.with_suffix('.html')}, say: the CSV is written beside it."
        )
    several = len(study._storage.get_all_studies()) > 1
    # A name that is a path would lead elsewhere.
    name = re.sub(r"[^\w.-]+", "-", study.study_name)
    return output / (f"report-{name}.html" if several else "report.html")


def _published(folder: Path, problem: ShapeProblem, study: Study) -> Path | None:
    """Where a search beside its storage, or in the usual folder, keeps the answer's network."""
    answer = problem.best(study)
    for place in (folder, Path(OUTPUT)):
        path = place / study.study_name / "answer"
        with contextlib.suppress(InvalidCheckpoint, OSError):
            _, info = load_checkpoint(path, problem.space)
            if answer is not None and info.shape == answer.shape:
                return path
    return None
