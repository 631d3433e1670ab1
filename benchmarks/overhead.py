"""What a suggestion costs in time, as shapes, trials and reports grow; beside Optuna's samplers.

    python benchmarks/overhead.py                 # a table, a CSV and a picture
    python benchmarks/overhead.py --shapes 144 --methods ShapeSampler

Every method asks for shapes and is told a made-up accuracy at once, so that nothing but deciding
takes time. All run in turn in one process, on one thread. With reports, ``ShapePruner`` is asked
at every epoch too. ``ShapeTerminator``'s time counts, as the model that it fits after a trial is
the one that the next suggestion asks.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import optuna
import tables
import torch
from optuna.samplers import BaseSampler

from optuna_shape import DesignSpace
from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape import ShapePruner
from optuna_shape import ShapeSampler
from optuna_shape import ShapeTerminator
from optuna_shape.records import StudyRecords

RESULTS = Path(__file__).parent / "results"
GRIDS = {36: (6, 6), 144: (12, 12), 576: (24, 24), 2000: (40, 50)}
COLUMNS = ("method", "shapes", "reports", "trial", "suggest", "report", "stop")
#: At most, in seconds: (shapes, with reports) -> median of a trial's decisions.
TARGETS = {(144, 0): 0.1, (144, 20): 0.5, (2000, 0): 1.0}


def accuracy(shape: Shape, share: float, number: int) -> float:
    """A surface with a slope, a bend and some noise, after a share of the epochs."""
    noise = math.sin(12.9898 * shape.depth + 78.233 * shape.width + 37.719 * number)
    final = 0.95 - 0.4 / math.sqrt(shape.depth * shape.width) + 0.003 * noise
    return final * (1 - math.exp(-4 * share)) + 0.002 * math.sin(50 * share + number)


def ours(
    space: DesignSpace, epochs: int
) -> tuple[BaseSampler, optuna.pruners.BasePruner, ShapeProblem]:
    problem = ShapeProblem(
        space,
        "accuracy",
        epochs=epochs or None,
        training_cost=lambda shape: shape.depth * shape.width**2,
    )
    pruner = ShapePruner(problem) if epochs else optuna.pruners.NopPruner()
    return ShapeSampler(problem, seed=0), pruner, problem


def rival(name: str) -> Callable[[DesignSpace, int], tuple]:
    def make(space: DesignSpace, epochs: int) -> tuple:
        if name == "BoTorchSampler":
            from optuna_integration import BoTorchSampler

            return BoTorchSampler(seed=0), optuna.pruners.NopPruner(), None
        return getattr(optuna.samplers, name)(seed=0), optuna.pruners.NopPruner(), None

    return make


METHODS = {
    "ShapeSampler": ours,
    "GPSampler": rival("GPSampler"),
    "TPESampler": rival("TPESampler"),
    "BoTorchSampler": rival("BoTorchSampler"),
}


def run(name: str, shapes: int, epochs: int, trials: int) -> list[dict[str, object]]:
    """One search; seconds of every suggestion, of all decisions at reports, and of the stop's."""
    depths, widths = GRIDS[shapes]
    space = DesignSpace(range(1, depths + 1), range(4, 4 * widths + 1, 4))
    sampler, pruner, problem = METHODS[name](space, epochs)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    terminator = None if problem is None else ShapeTerminator(problem)
    rows = []
    for number in range(min(trials, shapes - 1)):  # With nothing left ours ends.
        begin = time.perf_counter()
        trial = study.ask()
        if problem is not None:
            shape = problem.suggest(trial)
        else:
            shape = Shape(
                trial.suggest_int("depth", 1, depths),
                4 * trial.suggest_int("width", 1, widths),
            )
        suggested = time.perf_counter()
        for epoch in range(1, epochs + 1):
            trial.report(accuracy(shape, epoch / epochs, number), epoch)
            trial.should_prune()  # All go on, so that every method sees as many trials.
        reported = time.perf_counter()
        value = accuracy(shape, 1.0, number)
        frozen = study.tell(trial, problem.record(trial, value) if problem else value)
        told = time.perf_counter()
        if terminator is not None:
            terminator(study, frozen)
            StudyRecords(study).clear_stop()
        rows.append(
            {
                "method": name,
                "shapes": shapes,
                "reports": epochs,
                "trial": number,
                "suggest": round(suggested - begin, 5),
                "report": round(reported - suggested, 5),
                "stop": round(time.perf_counter() - told, 5),
            }
        )
    return rows


def seconds(row: dict[str, object]) -> float:
    """Of all decisions of a trial."""
    return sum(float(str(row[part])) for part in ("suggest", "report", "stop"))


def picture(rows: list[dict[str, object]], path: Path) -> None:
    """Seconds per suggestion by trial, a line per method and grid."""
    from plotly.subplots import make_subplots

    cases = sorted({(int(str(r["shapes"])), int(str(r["reports"]))) for r in rows})
    titles = [f"{s} shapes" + (f", {n} reports" if n else "") for s, n in cases]
    figure = make_subplots(1, len(cases), subplot_titles=titles, shared_yaxes=True)
    colours = dict(zip(METHODS, ("#1a73e8", "#d93025", "#188038", "#e37400")))
    for column, case in enumerate(cases, start=1):
        for method, colour in colours.items():
            own = [
                r for r in rows if r["method"] == method and (r["shapes"], r["reports"]) == case
            ]
            figure.add_scatter(
                x=[r["trial"] for r in own],
                y=[seconds(r) for r in own],
                name=method,
                line={"color": colour, "width": 2},
                showlegend=column == 1,
                row=1,
                col=column,
            )
        figure.update_xaxes(title="trials before", row=1, col=column)
    figure.update_yaxes(type="log", dtick=1)
    figure.update_yaxes(title="seconds of deciding, per trial", row=1, col=1)
    figure.update_layout(
        template="plotly_white",
        width=300 * len(cases) + 100,
        height=420,
        legend={"orientation": "h", "y": -0.25},
    )
    figure.write_image(path, scale=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--shapes", default=",".join(map(str, GRIDS)), help="comma-separated")
    parser.add_argument("--methods", default=",".join(METHODS), help="comma-separated")
    parser.add_argument("--trials", type=int, default=61)
    parser.add_argument(
        "--reports", default="20,50", help="of a trial, on 144 shapes; comma-separated"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "overhead.csv")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for shapes in map(int, arguments.shapes.split(",")):
        reports = map(int, arguments.reports.split(","))
        for epochs in (0, *reports) if shapes == 144 else (0,):
            for name in arguments.methods.split(","):
                if epochs and name != "ShapeSampler":
                    continue  # The others ignore reports.
                new = run(name, shapes, epochs, arguments.trials)
                rows += new
                late = statistics.median(seconds(row) for row in new[-10:])
                target = TARGETS.get((shapes, epochs)) if name == "ShapeSampler" else None
                print(
                    f"{name:15} {shapes:5} shapes {epochs:3} reports: {1e3 * late:8.1f} ms per "
                    f"trial after {len(new) - 10} trials"
                    + (f" (target: at most {1e3 * target:.0f} ms)" if target else ""),
                    flush=True,
                )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    tables.write_provenance(arguments.out, tables.provenance())
    picture(rows, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
