"""The picture of the README: what the first command found, on this machine.

    python benchmarks/picture.py --output optuna-shape-output

Draws the shape map of the study that ``optuna-shape search`` kept in ``--output``. A CSV with all
shapes, the same that ``optuna-shape report`` writes, lies beside the picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import replay
import tables

from optuna_shape import ShapeProblem
from optuna_shape.cli._studies import open_study
from optuna_shape.report import shape_map
from optuna_shape.report import write_report

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", default="optuna-shape-output", help="of the search")
    parser.add_argument("--out", type=Path, default=RESULTS / "shape-map.png")
    parser.add_argument("--command", default="optuna-shape search", help="that made the study")
    arguments = parser.parse_args()
    study = open_study(arguments.output, None)
    problem = ShapeProblem.from_study(study)
    page, _ = write_report(problem, study, arguments.out.with_suffix(".html"))
    page.unlink()
    figure = shape_map(problem, study).update_layout(width=1000, height=480)
    print(replay.write_plot(arguments.out, figure))
    what = tables.provenance(command=arguments.command, study=study.study_name)
    tables.write_provenance(arguments.out, what)


if __name__ == "__main__":
    main()
