"""ShapeSampler against other searches at the same budget, really training.

    python benchmarks/live.py                              # digits, five seeds
    python benchmarks/live.py --methods "Ours, never pruning;Random" --seeds 3,4
    python benchmarks/live.py --summary                    # figures of what is there

Ax needs ``pip install 'optuna_shape[bench]'``; what is not installed is skipped. An interrupted
recording goes on where it was. The files stand beside ``--out``, ``results/live.csv``:
``live-shapes.csv`` has what every shape measures, ``live-shapes.json`` by which meter,
``live-trainings.csv`` every training, ``live-runs.csv`` every search with its trainings. From
these come ``live.csv``, a row for each answer, and ``live-summary.csv``.

Tasks. ``accuracy, limited``: latency and size at most ``--share`` of the largest shape's.
``latency``: the lowest with at least ``--threshold`` of accuracy. Latency is measured once, for
all methods and sessions.

Trainings. Nothing is replayed from earlier recordings: whatever a search picks is trained. But a
training on a CPU depends on shape and seed alone, and all methods of one seed ask for the same
trainings, so each is done once, to its end, and kept; every method pays for what it was shown, as
if it had trained alone. The first training of a shape has the seed of the run, a deliberate second
one another. Validation images are all that a search sees. An answer is trained once more for its
accuracy on the test images, and has to show the same curve.

Budget. A training costs the epochs really run times FLOPs; the budget is a share of what training
every feasible shape costs. The training that crosses a budget still counts, and is the last. At
each of ``--budgets``, and for ours also where ShapeTerminator stopped (``stop``), the answer is
the best by what was seen, as ``problem.best`` has it: the highest accuracy, or the lowest latency
of those that reached the accuracy. Ours goes on to its stop, whatever that costs, and trains
nothing more: its answer at any larger budget is that of the stop, at the cost of the stop.

What is compared. ``ShapeSampler`` never prunes, as is the default of the command. It knows
latency, size and FLOPs of all shapes before it trains; rivals, with their defaults, are told of
what they pick, and treated as generously as in ``replay.py``. GPSampler and TPE begin with ten
random trials, the same that Random makes with this seed, and Ax with the middle of the space and
four quasi-random shapes. At small budgets it is these that are compared, and little of the models.

``behind`` is what an answer lacks by other seeds, those of the recorded table ``--table``:
accuracy below the best feasible shape, which is chosen on other seeds than it is judged on, so
that an answer can be ahead of it; or latency above the fastest shape that reaches the accuracy on
average, as a share. ``reaches`` says whether the answer itself reaches it on average, or lacks at
most two standard errors, as ``replay.py`` judges it; such an answer can be faster than the
fastest. One that does not reach it, however fast, and no answer are infinitely behind. The table
must hold no seed that is run here. The default seeds are none of those of the table.

The summary has medians over the seeds with the smallest and the largest, which are no confidence
intervals, and in how many seeds there was an answer. What a seed without an answer has no value of
has no median. The seeds of two methods are paired, as they share the trainings.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import time
import warnings
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import fields
from dataclasses import replace
from itertools import product
from pathlib import Path

import optuna
import replay
import rivals
import tables
import torch
from replay import Contest
from replay import Figure
from replay import Grid
from replay import Run
from replay import Step
from replay import Table
from replay import Task
from torch import nn

from optuna_shape import DesignSpace
from optuna_shape import DeviceMeter
from optuna_shape import Shape
from optuna_shape.families import FAMILIES
from optuna_shape.train.data import Data
from optuna_shape.train.data import load
from optuna_shape.train.recipe import Recipe
from optuna_shape.train.trainer import evaluate

HERE = Path(__file__).parent
METHODS = (replay.UNPRUNED, "Random", "TPE + Hyperband", "GP", rivals.AX)
TASKS = ("accuracy, limited", "latency")
#: As pages name them.
LABELS = {replay.UNPRUNED: "ShapeSampler", replay.OURS: "ShapeSampler + ShapePruner"}
STOP = "stop"
#: Second trainings of a shape have seeds that no run has.
_AGAIN = 1000


# What is measured and trained.


class Trainings:
    """The trainings of all shapes and seeds, done when they are asked for, and then kept.

    Attributes:
        seconds: Spent on training so far.
    """

    def __init__(self, path: Path, space: DesignSpace, data: Data, grid: Grid) -> None:
        self._path, self._space, self._data, self._grid = path, space, data, grid
        self._curves = {(t.shape, t.seed): t.curve for t in tables.read(path)}
        self.seconds = 0.0

    def curve(self, shape: Shape, seed: int) -> tuple[float, ...]:
        """Validation accuracy after each epoch."""
        if (shape, seed) not in self._curves:
            begin = self.seconds
            _, curve = self._train(shape, seed)
            seconds = self.seconds - begin
            costs = [self._grid.costs[name][shape] for name in ("flops", "latency", "size")]
            tables.append(self._path, tables.Training(*shape, seed, seconds, *costs, curve))
            self._curves[shape, seed] = curve
            print(f"  seed {seed} shape {shape}: {curve[-1]:.4f} in {seconds:.1f} s", flush=True)
        return self._curves[shape, seed]

    def test_accuracy(self, shape: Shape, seed: int) -> float:
        """Accuracy on the test images of the network that a search was shown.

        Raises:
            RuntimeError: Another network came of the same shape and seed.
        """
        model, curve = self._train(shape, seed)
        if curve != self._curves[shape, seed]:
            raise RuntimeError(
                f"Shape {shape} with seed {seed} trained to {curve[-1]}, but to "
                f"{self._curves[shape, seed][-1]} before: another machine, version or number of "
                "threads. Record all of it in one place, with another --out."
            )
        return evaluate(model, self._data.test_x, self._data.test_y)

    def _train(self, shape: Shape, seed: int) -> tuple[nn.Module, tuple[float, ...]]:
        begin = time.perf_counter()
        model, curve = tables.train_anew(
            self._space, self._data, shape, seed, epochs=self._grid.epochs
        )
        self.seconds += time.perf_counter() - begin
        if len(curve) < self._grid.epochs:
            raise RuntimeError(f"Shape {shape} with seed {seed} diverged. Give other shapes.")
        return model, curve


class Live(Contest):
    """Searches of one seed that really train: ours to its stop, rivals to the largest budget.

    Attributes:
        seed: Of the searches, and of the first training of each shape.
    """

    def __init__(
        self, grid: Grid, task: Task, seed: int, trainings: Trainings, budget: float
    ) -> None:
        super().__init__(grid, task)
        self.seed, self._trainings, self._budget = seed, trainings, budget

    def curve(self, shape: Shape, times: int) -> tuple[float, ...]:
        return self._trainings.curve(shape, self.seed + _AGAIN * times)

    def shown(self, shape: Shape, times: int) -> float:
        return statistics.fmean(self.curve(shape, n)[-1] for n in range(times))

    def is_over(self, steps: Sequence[Step]) -> bool:
        return bool(steps) and steps_within(self, steps, self._budget) is not None

    def is_done(self, steps: Sequence[Step], *, stopped: bool) -> bool:
        return stopped


def steps_within(contest: Contest, steps: Sequence[Step], budget: float) -> int | None:
    """Number of trainings up to the one that crosses a budget; None if none does.

    Args:
        contest: Says what trainings cost.
        steps: The trainings.
        budget: Share of training every feasible shape.
    """
    shares = replay.shares(contest, steps)
    # Sums of the same costs in another order differ in their last digits.
    return next((n for n, share in enumerate(shares, start=1) if share >= budget - 1e-9), None)


def make_tasks(grid: Grid, share: float, threshold: float) -> list[Task]:
    largest = max(grid.shapes)
    bounds = {name: share * grid.costs[name][largest] for name in ("latency", "size")}
    return [
        Task("accuracy, limited", "accuracy", bounds),
        Task("latency", "latency", {}, threshold),
    ]


# What is compared.


@dataclass(frozen=True)
class Row:
    """What a search would answer at one point.

    Attributes:
        task: Name of the task.
        method: Who searched, as pages name it.
        seed: Of the search and its trainings.
        at: Budget, or ``"stop"``.
        answer: ``depth x width``; empty if there is none.
        reaches: Whether it is one by the seeds of the recorded table; None without a table.
        accuracy: Of the answer on the validation images, the mean if it was trained twice.
        test_accuracy: On the test images, of its first training.
        latency: Of the answer.
        behind: What it lacks by these seeds; NaN without a table.
        trainings: Begun or gone on with so far.
        full: Those that ended with a fully trained network.
        cost_share: Cost of all of them, as a share of training every feasible shape.
        seconds_per_training: Spent on deciding, over the whole run.
    """

    task: str
    method: str
    seed: int
    at: str
    answer: str
    reaches: bool | None
    accuracy: float
    test_accuracy: float
    latency: float
    behind: float
    trainings: int
    full: int
    cost_share: float
    seconds_per_training: float


def reaches(contest: Contest, table: Table, answer: Shape | None) -> bool:
    """Whether there is an answer, and it reaches the accuracy by the recorded table."""
    if answer is None:
        return False
    finals = table.finals[table.shapes.index(answer)]
    return contest.task.is_reached(finals.mean(), table.noise / math.sqrt(len(finals)))


def behind(contest: Contest, table: Table, answer: Shape | None) -> float:
    """What an answer lacks by the recorded table; see the module."""
    if answer is None or not reaches(contest, table, answer):
        return math.inf
    means = dict(zip(table.shapes, table.finals.mean(axis=1)))
    if not contest.task.is_cost:
        rows = [table.shapes.index(shape) for shape in contest.feasible]
        return float(replay.crossfit(table.finals[rows]).mean() - means[answer])
    reaching = [s for s in contest.feasible if means[s] >= contest.task.threshold]
    fastest = min((contest.goal_costs[s] for s in reaching), default=math.nan)
    return contest.goal_costs[answer] / fastest - 1


def compare(
    contest: Contest, run: Run, budgets: Sequence[float], table: Table | None
) -> Iterator[Row]:
    """A row for each point at which the run is looked at, without test accuracies.

    Raises:
        SystemExit: The run was recorded to a smaller budget.
    """
    answers = list(replay.observed_answers(contest, run.steps))
    shares = replay.shares(contest, run.steps)
    points = {f"{budget:.0%}": steps_within(contest, run.steps, budget) for budget in budgets}
    if run.stop is not None:
        points[STOP] = run.stop
    trained_all = {s.shape for s in run.steps if s.full} == set(contest.feasible)
    for at, crossed in points.items():
        if crossed is None and not trained_all and run.stop is None:
            raise SystemExit(
                f"{run.method}, seed {run.seed}, was recorded to {shares[-1]:.1%} of exhaustive "
                f"training, less than {at}. Give smaller --budgets or another --out."
            )
        steps = run.steps[:crossed]
        found = answers[len(steps) - 1]
        shape = None if found is None else found[0]
        yield Row(
            contest.task.name,
            LABELS.get(run.method, run.method),
            run.seed,
            at,
            "" if shape is None else f"{shape.depth}x{shape.width}",
            None if table is None else reaches(contest, table, shape),
            math.nan if found is None else contest.shown(*found),
            math.nan,
            math.nan if shape is None else contest.grid.costs["latency"][shape],
            math.nan if table is None else behind(contest, table, shape),
            len(steps),
            sum(step.full for step in steps),
            float(shares[len(steps) - 1]),
            run.seconds / len(run.steps),
        )


def read_tests(path: Path) -> dict[tuple[str, int], float]:
    """Test accuracies that are known, by answer and seed."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["answer"] and r["test_accuracy"] != "nan"]
    return {(r["answer"], int(r["seed"])): float(r["test_accuracy"]) for r in rows}


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(Row)])
        for row in rows:
            values = asdict(row).values()
            writer.writerow([f"{v:.5g}" if isinstance(v, float) else v for v in values])


def summarise(rows: Sequence[Row]) -> list[Figure]:
    """Counts of answers, and medians over the seeds with the smallest and the largest."""
    figures = []
    names = dict.fromkeys((row.task, row.at) for row in rows)
    for (task, at), method in product(names, dict.fromkeys(row.method for row in rows)):
        chosen = [r for r in rows if (r.task, r.at, r.method) == (task, at, method)]
        part = f"{task}, at {at}"
        counts = {
            "answers found": [bool(row.answer) for row in chosen],
            "answers that reach the accuracy": [
                r.reaches for r in chosen if r.reaches is not None
            ],
        }
        for name, known in counts.items():
            if known:
                share, detail = statistics.fmean(known), f"{sum(known)} of {len(known)}"
                figures.append(Figure(part, f"{method}: {name}", share, detail=detail))
        for field in fields(Row)[6:]:
            values = [float(getattr(row, field.name)) for row in chosen]
            # To leave seeds out would flatter whoever finds nothing in them.
            if values and not any(map(math.isnan, values)):
                figures.append(
                    Figure(
                        part,
                        f"{method}: {field.name}",
                        statistics.median(values),
                        min(values),
                        max(values),
                        f"n {len(values)}",
                    )
                )
    return figures


# The script.


def play_missing(
    path: Path, contests: Sequence[Live], methods: Sequence[str], trainings: Trainings
) -> None:
    """Run the searches that the file does not hold yet."""
    done = {run.key for run in replay.read_runs(path)}
    absent: set[str] = set()
    for contest, method in product(contests, methods):
        key = (contest.grid.name, contest.task.name, method, contest.seed)
        if key in done or method in absent:
            continue
        before = trainings.seconds
        try:
            run = replay.play(contest, method, contest.seed)
        except ImportError as error:
            absent.add(method)
            print(f"{method} is skipped: {error}. pip install 'optuna_shape[bench]'")
            continue
        trained = trainings.seconds - before
        replay.write_runs(path, [replace(run, seconds=run.seconds - trained)], append=True)
        print(
            f"{', '.join(key[:3])}, {contest.seed}: {len(run.steps)} trainings, "
            f"{trained:.0f} s training, {run.seconds - trained:.0f} s deciding",
            flush=True,
        )


def look_at_tests(
    path: Path, rows: Sequence[Row], trainings: Trainings, *, train_missing: bool
) -> list[Row]:
    """Fill test accuracies in, from the file or by training, and write the rows to it."""
    known = read_tests(path)
    missing = dict.fromkeys((r.answer, r.seed) for r in rows if r.answer) if train_missing else ()
    for answer, seed in missing:
        if (answer, seed) not in known:
            accuracy = trainings.test_accuracy(replay.parse_shape(answer), seed)
            known[answer, seed] = float(f"{accuracy:.5g}")
            write_rows(path, _with_tests(rows, known))
            print(f"  seed {seed} answer {answer}: {accuracy:.4f} on the test images", flush=True)
    filled = _with_tests(rows, known)
    write_rows(path, filled)
    return filled


def _with_tests(rows: Sequence[Row], known: Mapping[tuple[str, int], float]) -> list[Row]:
    return [
        replace(row, test_accuracy=known.get((row.answer, row.seed), math.nan)) for row in rows
    ]


def find_table(path: Path, grid: Grid) -> Table | None:
    """The recorded table, if it is one of these shapes and epochs."""
    table = next(iter(replay.read_tables([path])), None)
    if table is None or (table.shapes, table.epochs) == (grid.shapes, grid.epochs):
        return table
    print(f"{path.name} is skipped: it is of other shapes or epochs.")
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--family", default="resnet", choices=sorted(FAMILIES))
    parser.add_argument("--depth", default="1,2,3,4,5,6,7,8,9", help="comma-separated")
    parser.add_argument("--width", default="2,3,4,5,6,8,10,12,16", help="comma-separated")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", default="3,4,5,6,7", help="comma-separated")
    parser.add_argument("--tasks", help=f"of {'; '.join(TASKS)}")
    parser.add_argument("--methods", help=f"of {'; '.join(replay.METHODS)}")
    parser.add_argument("--budgets", default="0.05,0.15,0.3", help="comma-separated shares")
    parser.add_argument("--share", type=float, default=0.5, help="of the largest shape's costs")
    parser.add_argument("--threshold", type=float, default=0.93, help="accuracy to reach")
    parser.add_argument("--batch-size", type=int, default=32, help="of the measured calls")
    parser.add_argument("--max-noise", type=float, default=0.1, help="of the measured machine")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", type=Path, default=HERE / "tables" / "digits-resnet.csv")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "live.csv")
    arguments = parser.parse_args()
    methods = list(METHODS)
    if arguments.methods:
        methods = replay.choose(parser, arguments.methods, replay.METHODS)
    names = replay.choose(parser, arguments.tasks, TASKS)
    budgets = sorted(float(text) for text in arguments.budgets.split(","))
    seeds = [int(text) for text in arguments.seeds.split(",")]
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(arguments.threads)

    out = arguments.out
    beside = {
        name: out.with_name(f"{out.stem}-{name}.csv")
        for name in ("shapes", "trainings", "runs", "summary")
    }
    if arguments.summary and not beside["runs"].exists():
        parser.error(f"{beside['runs']} is not there: nothing was run.")
    data = load(arguments.data)
    space = FAMILIES[arguments.family](
        [int(text) for text in arguments.depth.split(",")],
        [int(text) for text in arguments.width.split(",")],
        input_shape=tuple(data.train_x.shape[1:]),
        classes=data.classes,
    )
    meter = DeviceMeter(
        "cpu",
        arguments.batch_size,
        threads=arguments.threads,
        max_noise=arguments.max_noise,
    )
    costs = tables.measured(beside["shapes"], space, meter)
    grid = Grid(f"{data.name}-{arguments.family}", arguments.epochs, costs)
    table = find_table(arguments.table, grid)
    trainings = Trainings(beside["trainings"], space, data, grid)
    tasks = make_tasks(grid, arguments.share, arguments.threshold)

    def contests(seeds: Iterable[int], names: Sequence[str]) -> list[Live]:
        chosen = [task for task in tasks if task.name in names]
        return [Live(grid, t, seed, trainings, budgets[-1]) for seed, t in product(seeds, chosen)]

    if not arguments.summary:
        settings = {
            "data": data.name,
            "images": data.digest,
            "training_images": len(data.train_x),
            "validation_images": len(data.validation_x),
            "test_images": len(data.test_x),
            "epochs": arguments.epochs,
            "recipe": asdict(Recipe()),
            "family": arguments.family,
            "tasks": [{**asdict(t), "feasible": len(t.feasible(grid))} for t in tasks],
        }
        tables.check_same(out, settings)
        tables.add_provenance(out, tables.provenance(**settings, budgets=budgets))
        play_missing(beside["runs"], contests(seeds, names), methods, trainings)

    # Also those of other sessions, whatever was chosen now.
    runs = {run.key: run for run in replay.read_runs(beside["runs"])}
    rows = [
        row
        for contest in contests(sorted({run.seed for run in runs.values()}), TASKS)
        for method in replay.METHODS
        if (run := runs.get((grid.name, contest.task.name, method, contest.seed))) is not None
        for row in compare(contest, run, budgets, table)
    ]
    rows = look_at_tests(out, rows, trainings, train_missing=not arguments.summary)
    figures = summarise(rows)
    replay.write_figures(beside["summary"], figures)
    replay.print_figures(figures)


if __name__ == "__main__":
    main()
