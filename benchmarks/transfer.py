"""Does a network that inherits need fewer epochs, and does a search still find the same shape?

    python benchmarks/transfer.py --data-root DIR     # hours on one core
    python benchmarks/transfer.py --data digits --parts pairs

``pairs``: a child from scratch, and the same child after a trained parent, for shapes near and
far, wider, deeper and smaller. Methods:

* ``scratch``: all epochs from random weights; ``scratch short``: only the share ``--share`` of
  them, which tells what the shorter schedule alone does;
* ``heir``: inherits, then all epochs of the same recipe; ``heir gentle``: the share, and half the
  learning rate; ``heir taught``: the same, with the parent as a teacher as well.

``search``: two searches of the same seed, without and with transfer (gentle, the share of the
epochs for whoever inherits). Nothing is cut short: predictions rest on curves from scratch.

Every training and search is a row of the CSV, written at once; run again, it goes on. The summary
beside it counts, for each pair and method, epochs until the accuracy that the child reaches from
scratch in the mean over seeds, within its standard error, and compares final accuracies.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import fields
from functools import cache
from pathlib import Path

import optuna
import tables
import torch
from torch import nn

from optuna_shape import DesignSpace
from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape import ShapeSampler
from optuna_shape import ShapeTerminator
from optuna_shape.families import FAMILIES
from optuna_shape.measure import count
from optuna_shape.train.data import Data
from optuna_shape.train.data import load
from optuna_shape.train.recipe import Recipe
from optuna_shape.train.trainer import Teacher
from optuna_shape.train.trainer import train
from optuna_shape.train.transfer import PARENT
from optuna_shape.train.transfer import inherit
from optuna_shape.train.transfer import transfer

RESULTS = Path(__file__).parent / "results"
# Within the reach of a search, then beyond it.
PAIRS = "2x8>2x12,2x8>3x8,2x8>3x12,1x8>2x8,3x12>2x8,2x4>2x8,2x8>2x16"
METHODS = ("scratch", "scratch short", "heir", "heir gentle", "heir taught")


@dataclass(frozen=True)
class Row:
    """A training of a pair, or a search.

    Attributes:
        part: ``"pairs"`` or ``"search"``.
        data: Name of the data.
        family: Of the networks.
        parent: Shape that was inherited from, ``depth x width``; empty of a search.
        child: Shape that was trained, or chosen by the search.
        seed: Of weights, order of images, and decisions.
        method: One of :data:`METHODS`; of a search ``"scratch"`` or ``"transfer"``.
        inherited: What the child has of its parent.
        epochs: Epochs of the training, or of all trainings of the search.
        cost: These epochs times the floating point operations of one input.
        accuracy: Validation accuracy at the end, or of the chosen shape.
        seconds: Wall time, on a shared machine.
        curve: Validation accuracy after each epoch; of a search ``shape:accuracy`` of each trial.
    """

    part: str
    data: str
    family: str
    parent: str
    child: str
    seed: int
    method: str
    inherited: str
    epochs: int
    cost: float
    accuracy: float
    seconds: float
    curve: str

    @property
    def key(self) -> tuple[object, ...]:
        """Which run this is."""
        child = "" if self.part == "search" else self.child
        return self.part, self.data, self.family, self.parent, child, self.seed, self.method


@dataclass(frozen=True)
class Setup:
    """What runs on one data set have in common."""

    family: str
    space: DesignSpace
    data: Data
    epochs: int
    share: float

    @property
    def short(self) -> int:
        return max(1, round(self.share * self.epochs))

    def fresh(self, shape: Shape, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return self.space.build(shape)

    def flops(self, shape: Shape) -> float:
        return float(count(self.space, shape).flops or math.nan)


def pair_row(
    setup: Setup, parent: Shape, child: Shape, seed: int, method: str, trained: nn.Module
) -> Row:
    """Train a child by one method, and return its row."""
    model, how, curve = setup.fresh(child, seed), "", list[float]()
    if method.startswith("heir"):
        how = inherit(model, trained, seed=seed)
    gentle = method in ("heir gentle", "heir taught")
    epochs = setup.epochs if method in ("scratch", "heir") else setup.short
    begin = time.perf_counter()
    train(
        model,
        setup.data,
        epochs=epochs,
        seed=seed,
        report=lambda epoch, accuracy: curve.append(accuracy),
        recipe=Recipe().gentle if gentle else Recipe(),
        teacher=Teacher(trained) if method == "heir taught" else None,
    )
    return Row(
        "pairs",
        setup.data.name,
        setup.family,
        write_shape(parent),
        write_shape(child),
        seed,
        method,
        how,
        epochs,
        epochs * setup.flops(child),
        curve[-1] if len(curve) == epochs else math.nan,  # It diverged.
        time.perf_counter() - begin,
        " ".join(f"{value:.5g}" for value in curve),
    )


def search_row(setup: Setup, constraint: str, reach: float, seed: int, method: str) -> Row:
    """Run a search to its end, and return its row."""
    problem = ShapeProblem(setup.space, "accuracy", [constraint])
    epochs: dict[int, int] = {}

    def fit(model: nn.Module, trial: optuna.Trial) -> float:
        heir = PARENT in trial.user_attrs
        epochs[trial.number] = setup.short if heir else setup.epochs
        return train(
            model,
            setup.data,
            epochs=epochs[trial.number],
            seed=seed,
            recipe=Recipe().gentle if heir else Recipe(),
        )

    inner = problem.objective(transfer(fit, reach=reach) if method == "transfer" else fit)

    def objective(trial: optuna.Trial) -> float:
        torch.manual_seed(seed)
        return inner(trial)

    study = optuna.create_study(
        direction=problem.direction,
        sampler=ShapeSampler(problem, seed=seed),
        pruner=optuna.pruners.NopPruner(),
    )
    begin = time.perf_counter()
    study.optimize(objective, callbacks=[ShapeTerminator(problem)])
    seconds = time.perf_counter() - begin
    best = problem.best(study)
    assert best is not None
    shapes = {
        t.number: Shape(t.params["depth"], t.params["width"])
        for t in study.trials
        if t.number in epochs
    }
    return Row(
        "search",
        setup.data.name,
        setup.family,
        "",
        write_shape(best.shape),
        seed,
        method,
        "",
        sum(epochs.values()),
        sum(epochs[number] * setup.flops(shape) for number, shape in shapes.items()),
        best.accuracy,
        seconds,
        " ".join(
            f"{write_shape(shape)}:{study.trials[number].user_attrs.get('accuracy', math.nan):.5g}"
            for number, shape in shapes.items()
        ),
    )


def summarize(rows: list[Row]) -> list[dict[str, object]]:
    """For each pair and method: epochs to the accuracy from scratch, and how it ends.

    That accuracy is the mean over seeds at the end of the training from scratch, less its standard
    error; it is reached in the first epoch in which the mean curve has it. ``fall`` is the share
    of epochs saved, ``worse`` what the final accuracy lacks to the one from scratch, ``noise`` the
    standard error of that difference by the spread over seeds.
    """
    result: list[dict[str, object]] = []
    pairs = [row for row in rows if row.part == "pairs"]
    for case in dict.fromkeys((r.data, r.family, r.parent, r.child) for r in pairs):
        of_case = [r for r in pairs if (r.data, r.family, r.parent, r.child) == case]
        scratch = [row for row in of_case if row.method == "scratch"]
        if not scratch:
            continue
        final = statistics.fmean(row.accuracy for row in scratch)
        goal = final - math.sqrt(_variance(scratch) / len(scratch))
        needed = _reached(scratch, goal)
        for method in METHODS:
            own = [row for row in of_case if row.method == method]
            if not own:
                continue
            epochs = _reached(own, goal)
            accuracy = statistics.fmean(row.accuracy for row in own)
            errors = [_variance(side) / len(side) for side in (own, scratch)]
            result.append(
                {
                    **dict(zip(("data", "family", "parent", "child"), case)),
                    "method": method,
                    "inherited": own[0].inherited,
                    "seeds": len(own),
                    "epochs": own[0].epochs,
                    "epochs_to_goal": epochs or "",
                    "fall": round(1 - epochs / needed, 3) if epochs and needed else "",
                    "accuracy": round(accuracy, 5),
                    "worse": round(final - accuracy, 5),
                    "noise": round(math.sqrt(sum(errors)), 5),
                }
            )
    return result


def compare_searches(rows: list[Row]) -> list[str]:
    """A line for each seed: the shapes chosen without and with transfer, and what they cost."""
    found = {row.key: row for row in rows if row.part == "search"}
    lines = []
    for row in found.values():
        other = found.get((*row.key[:-1], "transfer"))
        if row.method == "scratch" and other is not None:
            same = "the same shape" if row.child == other.child else "ANOTHER SHAPE"
            lines.append(
                f"{row.data} seed {row.seed}: {row.child} ({row.accuracy:.4f}) without, "
                f"{other.child} ({other.accuracy:.4f}) with transfer: {same}, "
                f"{other.cost / row.cost:.0%} of the cost"
            )
    return lines


def read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    convert: dict[str, Callable[[str], object]] = {"int": int, "float": float, "str": str}
    with path.open(newline="") as file:
        return [
            Row(**{f.name: convert[str(f.type)](line[f.name]) for f in fields(Row)})  # type: ignore[arg-type]
            for line in csv.DictReader(file)
        ]


def append(path: Path, row: Row) -> None:
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)], lineterminator="\n")
        if new:
            writer.writeheader()
        numbers = {"cost": f"{row.cost:.6g}", "seconds": f"{row.seconds:.3g}"}
        writer.writerow({**asdict(row), **numbers})


def write_shape(shape: Shape) -> str:
    return f"{shape.depth}x{shape.width}"


def read_shape(text: str) -> Shape:
    depth, width = text.split("x")
    return Shape(int(depth), int(width))


def _reached(rows: list[Row], goal: float) -> int | None:
    """The first epoch in which the mean curve has the goal, if any has."""
    curves = [[float(value) for value in row.curve.split()] for row in rows]
    means = (statistics.fmean(values) for values in zip(*curves))
    return next((epoch for epoch, mean in enumerate(means, start=1) if mean >= goal), None)


def _variance(rows: list[Row]) -> float:
    return statistics.variance(row.accuracy for row in rows) if len(rows) > 1 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", default="digits,fashion-mnist", help="comma-separated")
    parser.add_argument("--data-root", type=Path, help="folder of torchvision's data sets")
    parser.add_argument("--family", default="resnet", choices=sorted(FAMILIES))
    parser.add_argument("--parts", default="pairs,search", help="comma-separated")
    parser.add_argument("--pairs", default=PAIRS, help="such as 2x8>3x12, comma-separated")
    parser.add_argument("--methods", default=",".join(METHODS), help="comma-separated")
    parser.add_argument("--depth", default="1,2,3,4,5,6", help="of the searches")
    parser.add_argument("--width", default="4,6,8,12,16,24", help="of the searches")
    parser.add_argument("--constraint", default="", help="of the searches; by default on the size")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.7, help="of the epochs, of heirs")
    parser.add_argument("--reach", type=float, default=3.0, help="of parents, in the searches")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "transfer.csv")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    torch.set_num_threads(arguments.threads)

    parts = arguments.parts.split(",")
    if unknown := set(parts) - {"pairs", "search"}:
        parser.error(f"--parts {', '.join(sorted(unknown))}: give pairs, search or both.")
    pairs = [tuple(map(read_shape, pair.split(">"))) for pair in arguments.pairs.split(",")]
    depths = [int(n) for n in arguments.depth.split(",")]
    widths = [int(n) for n in arguments.width.split(",")]
    seeds = [int(n) for n in arguments.seeds.split(",")]
    constraint = arguments.constraint or f"size <= 50 % of ({depths[-1]}, {widths[-1]})"
    rows = read(arguments.out)
    done = {row.key for row in rows}

    def add(row: Row) -> None:
        append(arguments.out, row)
        rows.append(row)
        print(
            f"{row.data} {row.parent}>{row.child} seed {row.seed} {row.method}: "
            f"{row.accuracy:.4f} after {row.epochs} epochs in {row.seconds:.0f} s",
            flush=True,
        )

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    source = tables.provenance(
        epochs=arguments.epochs,
        share=arguments.share,
        reach=arguments.reach,
        recipe=asdict(Recipe()),
        gentle=asdict(Recipe().gentle),
        constraint=constraint,
    )
    tables.write_provenance(arguments.out, source)
    for name in arguments.data.split(","):
        data = load(name, root=arguments.data_root)
        family = FAMILIES[arguments.family]
        space = family(
            depths, widths, input_shape=tuple(data.train_x.shape[1:]), classes=data.classes
        )
        setup = Setup(arguments.family, space, data, arguments.epochs, arguments.share)

        @cache
        def trained(shape: Shape, seed: int, setup: Setup = setup) -> nn.Module:
            model = setup.fresh(shape, seed)
            train(model, setup.data, epochs=setup.epochs, seed=seed)
            return model

        for seed in seeds:
            for parent, child in pairs if "pairs" in parts else ():
                shapes = (write_shape(parent), write_shape(child))
                for method in arguments.methods.split(","):
                    key = ("pairs", data.name, arguments.family, *shapes, seed, method)
                    if key not in done:
                        model = trained(parent, seed)
                        add(pair_row(setup, parent, child, seed, method, model))
            for method in ("scratch", "transfer") if "search" in parts else ():
                if ("search", data.name, arguments.family, "", "", seed, method) not in done:
                    add(search_row(setup, constraint, arguments.reach, seed, method))

    summary = summarize(rows)
    if summary:
        beside = arguments.out.with_name(f"{arguments.out.stem}-summary.csv")
        with beside.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(summary[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(summary)
    for line in summary:
        print("  ".join(f"{name} {value}" for name, value in line.items() if value != ""))
    for text in compare_searches(rows):
        print(text)


if __name__ == "__main__":
    main()
