"""ShapeSampler against other searches, replayed on recorded tables: nothing is trained.

    python benchmarks/replay.py                                    # all of it: hours
    python benchmarks/replay.py --methods "Ours;Random;TPE" --seeds 6
    python benchmarks/replay.py --summary                          # figures of what is there

BoTorchSampler and Ax need ``pip install 'optuna_shape[bench]'``; what is not installed is skipped.
Every run is appended to ``results/replay.csv`` as it ends, and is not run again; ``--again`` runs
the chosen methods anew. The CSV holds each run's trainings, so all figures are computed from it
and from the tables. They go to ``replay-summary.csv`` and two PNGs beside it.

Replays. Replay number i orders the seeds of every shape at random. A training shows the curve of
the first; a deliberate second training of the same shape shows the second. All methods of one
number see the same. All replays are orderings of the same recorded seeds: they show what luck with
seeds does, and 50 of them are far from 50 experiments.

Cost is the sum of epochs really run times FLOPs; figures whose names end with ``seconds`` count
the recorded time of a training instead, the median of its seeds. Small networks take more of it
than their FLOPs say, so time is less kind to searches that begin with small ones, as ours does.

Truth. The seeds not shown are held out: with accuracies ``v[s, h]`` of shape s on held-out seed h,

    truth(s) = mean over h of v[s, h]
    best     = mean over h of v[argmax over s of (mean over g != h of v[s, g]), h]

The shape is chosen on other seeds than it is judged on, so the noise of the chosen does not add to
``best``, as it would to the maximum of truth(s). With two seeds held out it is chosen on one of
them, and ``best`` errs a little downwards instead; wrong stops are therefore also counted against
the plain maximum, which errs upwards. ``noise`` is the standard deviation between
seeds, pooled over the half of the shapes that is more accurate on average: answers lie there, and
the least networks scatter ten times as much. The standard error of truth is se = noise / sqrt(H).

The answer is the one that the stop is decided for: of the trained shapes the one of the largest
posterior mean, or the cheapest that reached the accuracy.

Good. Accuracy goal: best - truth <= max(0.005, se). Cost goal: truth >= threshold - 2 se, and a
cost within 5 % of the cheapest shape with truth >= threshold whose shown training reaches it too:
one that was unlucky is no answer to anybody who trains it once, not even exhaustively. A second
training that was shown is taken out of the truth by which its shape is judged as an answer.

Whether the answer to a cost goal reaches the accuracy is judged by the seeds held out, and by all.
The first errs downwards: of three seeds whose mean is the threshold's, the rest is below it where
those shown are above. The second errs upwards, as it holds the luck that made the answer.

Cost until the best: until the first training, to the end, of a good shape, for a cost goal one
that is seen to reach the accuracy. The oracle trains, of those shapes, only the one that is
cheapest to train: no search can cost less.

Tasks. ``accuracy``, without constraints; ``accuracy, limited``: latency and size at most the same
quantile, such that half the shapes are within both; ``latency``, ``energy`` where it was
recorded, and ``size``: with the accuracy that the top third of the shapes reach.

Rivals are treated generously. A pick over a hard constraint costs nothing; nor does a repeat,
which is answered from a cache. After 20 such rejections or 3 such repeats in a row (a repeat
teaches nothing, and some samplers would repeat themselves for hours) the pick is moved to the
nearest feasible shape not tried yet. A shape that was pruned resumes where it was, and one that
was moved to is not pruned again. Ours pays for all epochs again, and for its second trainings.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import time
import warnings
from abc import ABC
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from itertools import product
from pathlib import Path

import numpy as np
import optuna
import plotly.graph_objects as go
import rivals
import tables
import torch
from plotly.subplots import make_subplots

from optuna_shape import DesignSpace
from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape import ShapePruner
from optuna_shape import ShapeSampler
from optuna_shape import ShapeTerminator
from optuna_shape import TableMeter
from optuna_shape.callbacks import MIN_TRAININGS
from optuna_shape.constraints import Constraint
from optuna_shape.posterior import believe
from optuna_shape.records import StudyRecords

HERE = Path(__file__).parent
RESULTS = HERE / "results"
OURS, UNPRUNED = "Ours", "Ours, never pruning"
METHODS = (OURS, UNPRUNED, *rivals.NAMES)
FAST_SEEDS, SLOW_SEEDS = 50, 20
REJECTIONS, REPEATS = 20, 3
#: Runs go on until a good shape was trained, and at least to this share of exhaustive training.
HORIZON = 0.2
#: What trainings cost is counted in, and what names of figures end with.
UNITS = {"flops": "", "seconds": ", seconds"}
#: As ShapeTerminator has them: of accuracy, and of the cost.
ACCURACY_EPSILON, COST_EPSILON = 0.005, 0.05


# What is recorded, and what is asked.


@dataclass(frozen=True)
class Grid:
    """Shapes, every depth at every width, and what is known of them before any training.

    Attributes:
        name: Of the grid; of a recorded table, stem of its file.
        epochs: Of a full training.
        costs: ``flops``, ``latency`` and ``size`` of each shape, where known ``energy``, and
            ``seconds`` that an epoch takes.
    """

    name: str
    epochs: int
    costs: dict[str, dict[Shape, float]]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return tuple(self.costs["flops"])

    @cached_property
    def depths(self) -> list[int]:
        return sorted({shape.depth for shape in self.shapes})

    @cached_property
    def widths(self) -> list[int]:
        return sorted({shape.width for shape in self.shapes})

    def cost(self, shape: Shape, epochs: int, unit: str = "flops") -> float:
        """Training cost of some epochs, in one of :data:`UNITS`."""
        return epochs * self.costs[unit][shape]


@dataclass(frozen=True)
class Table(Grid):
    """A recorded table with all seeds of all shapes.

    Attributes:
        curves: Of each shape, one curve per seed.
    """

    curves: dict[Shape, tuple[tuple[float, ...], ...]]

    @cached_property
    def finals(self) -> np.ndarray:
        """``(shapes, seeds)``"""
        return np.array([[curve[-1] for curve in curves] for curves in self.curves.values()])

    @cached_property
    def noise(self) -> float:
        """Standard deviation between seeds, over the more accurate half of the shapes."""
        means = self.finals.mean(axis=1)
        upper = self.finals[means >= np.median(means)]
        return float(np.sqrt(upper.var(axis=1, ddof=1).mean()))


def make_table(name: str, trainings: Sequence[tables.Training]) -> Table | str:
    """The table of the seeds that every shape has, or why there is none."""
    seeds: dict[Shape, dict[int, tables.Training]] = {}
    for training in sorted(trainings, key=lambda t: (t.shape, t.seed)):
        seeds.setdefault(training.shape, {})[training.seed] = training
    if not seeds:
        return "it is empty"
    # Shapes that are missing altogether are missing for every seed.
    depths, widths = {s.depth for s in seeds}, {s.width for s in seeds}
    if len(seeds) < len(depths) * len(widths):
        return "it does not hold every depth at every width"
    common = sorted(set.intersection(*(set(rows) for rows in seeds.values())))
    if len(common) < 3:
        return f"it takes three seeds, one shown and two held out; all shapes have {len(common)}"
    curves = {shape: tuple(rows[s].curve for s in common) for shape, rows in seeds.items()}
    costs = {
        cost: {shape: getattr(rows[common[0]], cost) for shape, rows in seeds.items()}
        for cost in ("flops", "latency", "energy", "size")
    }
    if any(map(math.isnan, costs["energy"].values())):
        del costs["energy"]
    epochs = len(next(iter(curves.values()))[0])
    # The median: other programs on the machine may have slowed one of them.
    costs["seconds"] = {
        shape: statistics.median(rows[s].seconds for s in common) / epochs
        for shape, rows in seeds.items()
    }
    return Table(name, epochs, costs, curves)


def read_tables(paths: Iterable[Path] | None = None) -> list[Table]:
    """Tables from files, by default all that are recorded; says what is skipped, and why."""
    if paths is None:
        paths = sorted((HERE / "tables").glob("*.csv"))
        paths = [path for path in paths if not path.stem.endswith("-shapes")]
    found = []
    for path in paths:
        table = make_table(path.stem, tables.read(path))
        if isinstance(table, str):
            print(f"{path.name} is skipped: {table}.")
        else:
            found.append(table)
    return found


@dataclass(frozen=True)
class Task:
    """A goal with constraints.

    Attributes:
        name: Of the task.
        goal: ``accuracy``, ``latency`` or ``size``.
        bounds: Upper bounds of latency and size.
        threshold: The accuracy to reach, for cost goals.
    """

    name: str
    goal: str
    bounds: dict[str, float]
    threshold: float = 0.0

    @property
    def is_cost(self) -> bool:
        return self.goal != "accuracy"

    def feasible(self, grid: Grid) -> list[Shape]:
        return [
            shape
            for shape in grid.shapes
            if all(grid.costs[name][shape] <= bound for name, bound in self.bounds.items())
        ]

    def is_reached(self, accuracy: float, error: float) -> bool:
        """Whether an accuracy with a standard error reaches the threshold, or may do so."""
        return accuracy >= self.threshold - 2 * error


def make_tasks(table: Table) -> list[Task]:
    """The tasks of a table: four, and a fifth where energy was recorded."""
    costs = {name: np.array(list(table.costs[name].values())) for name in ("latency", "size")}
    limited = Task("accuracy, limited", "accuracy", {})
    for q in np.linspace(0.5, 1, 101):
        bounds = {name: float(np.quantile(c, q, method="lower")) for name, c in costs.items()}
        limited = Task("accuracy, limited", "accuracy", bounds)
        if len(limited.feasible(table)) >= len(table.shapes) / 2:
            break
    # Midway between two shapes: at the mean of one, whether it reaches that would be rounding.
    means = sorted(table.finals.mean(axis=1).round(9).tolist())
    reached = means[-(len(means) // 3)]
    threshold = (reached + max((m for m in means if m < reached), default=reached)) / 2
    return [
        Task("accuracy", "accuracy", {}),
        limited,
        *(Task(n, n, {}, threshold) for n in ("latency", "energy", "size") if n in table.costs),
    ]


# The truth.


def crossfit(values: np.ndarray) -> np.ndarray:
    """Of ``(shapes, seeds)``, the value on each seed of the shape that is best on the others.

    The mean of the result estimates the accuracy of a best shape without the bias of a maximum.
    """
    others = (values.sum(axis=1, keepdims=True) - values) / (values.shape[1] - 1)
    return values[others.argmax(axis=0), np.arange(values.shape[1])]


def maximum(values: np.ndarray) -> np.ndarray:
    """Of ``(shapes, seeds)``, those of the shape of the largest mean: too large by its luck."""
    largest: np.ndarray = values[values.mean(axis=1).argmax()]
    return largest


class Contest(ABC):
    """What a search is asked, what its trainings show, and when it has run long enough.

    Attributes:
        grid: The shapes.
        task: What is asked.
        feasible: The shapes that may be trained.
    """

    def __init__(self, grid: Grid, task: Task) -> None:
        self.grid, self.task = grid, task
        self.feasible = task.feasible(grid)

    @abstractmethod
    def curve(self, shape: Shape, times: int) -> tuple[float, ...]:
        """What a training shows of a shape that has been trained to the end so many times."""

    @abstractmethod
    def shown(self, shape: Shape, times: int) -> float:
        """Mean final accuracy of the trainings that were shown."""

    @abstractmethod
    def is_over(self, steps: Sequence[Step]) -> bool:
        """Whether a search with these trainings need not go on."""

    @abstractmethod
    def is_done(self, steps: Sequence[Step], *, stopped: bool) -> bool:
        """The same of ours, whose terminator has stopped it or not."""

    @property
    def goal_costs(self) -> dict[Shape, float]:
        return self.grid.costs[self.task.goal]

    @cached_property
    def exhaustive(self) -> float:
        """Cost of training all feasible shapes, in FLOPs."""
        return self.cost_of_all("flops")

    def cost_of_all(self, unit: str) -> float:
        """Cost of training all feasible shapes."""
        return sum(self.grid.cost(shape, self.grid.epochs, unit) for shape in self.feasible)


class Replay(Contest):
    """What the trainings of one replay show, and the truth about them; see the module."""

    def __init__(self, table: Table, task: Task, number: int) -> None:
        super().__init__(table, task)
        self.table = table
        chance = np.random.default_rng(number)
        count = table.finals.shape[1]
        orders = chance.permuted(np.tile(np.arange(count), (len(table.shapes), 1)), axis=1)
        self._order = dict(zip(table.shapes, orders))
        self._finals = dict(zip(table.shapes, np.take_along_axis(table.finals, orders, axis=1)))
        self.held_out = count - 1

    def curve(self, shape: Shape, times: int) -> tuple[float, ...]:
        order = self._order[shape]
        return self.table.curves[shape][order[min(times, len(order) - 2)]]

    def shown(self, shape: Shape, times: int) -> float:
        return float(self._finals[shape][:times].mean())

    def truth(self, shape: Shape, times: int = 1) -> float:
        """Mean final accuracy of those that were not."""
        return float(self._finals[shape][times:].mean())

    def held(self, shapes: Iterable[Shape]) -> np.ndarray:
        """``(shapes, held-out seeds)``"""
        return np.array([self._finals[shape][1:] for shape in shapes])

    def error(self, times: int = 1) -> float:
        """Standard error of the truth."""
        return self.table.noise / math.sqrt(self.held_out + 1 - times)

    def is_over(self, steps: Sequence[Step]) -> bool:
        """Whether a good shape was trained, and enough seen for the figure."""
        if not steps or first_hit(self, steps) is None:
            return False
        return bool(spent(self.table, steps)[-1] >= HORIZON * self.exhaustive)

    def is_done(self, steps: Sequence[Step], *, stopped: bool) -> bool:
        return stopped and self.is_over(steps)

    @cached_property
    def best(self) -> float:
        """Accuracy of the best feasible shape, or cost of the cheapest that reaches the task's."""
        if not self.task.is_cost:
            return float(crossfit(self.held(self.feasible)).mean())
        reaching = [s for s in self.feasible if self.truth(s) >= self.task.threshold]
        reaching = [s for s in reaching if self.shown(s, 1) >= self.task.threshold]
        return min(self.goal_costs[shape] for shape in reaching)

    def regret(self, shape: Shape, times: int = 1) -> float:
        """What an answer lacks: accuracy, or the share that it costs more than the best.

        That of a shape which misses the accuracy is infinite.
        """
        if not self.task.is_cost:
            return self.best - self.truth(shape, times)
        if not self.task.is_reached(self.truth(shape, times), self.error(times)):
            return math.inf
        return self.goal_costs[shape] / self.best - 1

    def is_good(self, shape: Shape, times: int = 1) -> bool:
        """Whether a shape is as good as the best, within the noise or 5 % of the cost."""
        limit = COST_EPSILON if self.task.is_cost else max(ACCURACY_EPSILON, self.error(times))
        return self.regret(shape, times) <= limit

    @cached_property
    def good(self) -> frozenset[Shape]:
        """Good shapes that one training shows to be answers."""
        seen = [s for s in self.feasible if self.shown(s, 1) >= self.task.threshold]
        return frozenset(shape for shape in seen if self.is_good(shape))

    def oracle(self, unit: str) -> float:
        """Cost of training the good shape that is cheapest to train."""
        return min(self.table.cost(shape, self.table.epochs, unit) for shape in self.good)

    def gap(
        self,
        answer: Shape | None,
        untrained: Iterable[Shape],
        best_of: Callable[[np.ndarray], np.ndarray] = crossfit,
    ) -> float:
        """By how much the best of those untrained beats an answer.

        Accuracy goal: its accuracy above the answer's. Cost goal: its accuracy above the
        threshold, among those cheaper by more than 5 %, or among all if there is no answer yet.
        ``best_of`` takes the values of the best of them.
        """
        others = list(untrained)
        if self.task.is_cost and answer is not None:
            limit = self.goal_costs[answer] * (1 - COST_EPSILON)
            others = [shape for shape in others if self.goal_costs[shape] < limit]
        if not others:
            return -math.inf
        values = best_of(self.held(others))
        if self.task.is_cost:
            return float(values.mean()) - self.task.threshold
        assert answer is not None
        return float(np.mean(values - self.held([answer])[0]))

    def is_better(self, gap: float, errors: float = 0.0) -> bool:
        """Whether a gap is more than epsilon, and so many standard errors on top."""
        if self.task.is_cost:
            return gap >= errors * self.error()
        return gap > ACCURACY_EPSILON + errors * math.sqrt(2) * self.error()


# Runs.


@dataclass(frozen=True)
class Step:
    """One training that was paid for.

    Attributes:
        shape: What was trained.
        epochs: Those paid for in this step.
        full: Whether it has been trained to the end now.
    """

    shape: Shape
    epochs: int
    full: bool

    def __str__(self) -> str:
        return f"{self.shape.depth}x{self.shape.width}:{self.epochs}{'' if self.full else '~'}"

    @classmethod
    def parse(cls, text: str) -> Step:
        shape, epochs = text.rstrip("~").split(":")
        return cls(parse_shape(shape), int(epochs), not text.endswith("~"))


def parse_shape(text: str) -> Shape:
    depth, width = text.split("x")
    return Shape(int(depth), int(width))


@dataclass(frozen=True)
class Run:
    """One search.

    Attributes:
        table: Name of the table.
        task: Name of the task.
        method: Who searched.
        seed: Number of the replay, and seed of the method.
        seconds: It took, all of it thinking.
        steps: Its trainings.
        stop: Number of trainings after which ShapeTerminator would have stopped; None if never.
        kind: Of that stop.
        probabilities: Of a better shape, after each training; NaN where not stated.
        answers: The answer that they are about.
        reaches: Probability, stated at the stop, that the answer reaches the accuracy; NaN where
            none was.
    """

    table: str
    task: str
    method: str
    seed: int
    seconds: float
    steps: tuple[Step, ...]
    stop: int | None = None
    kind: str = ""
    probabilities: tuple[float, ...] = ()
    answers: tuple[Shape | None, ...] = ()
    reaches: float = math.nan

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.table, self.task, self.method, self.seed


def spent(grid: Grid, steps: Sequence[Step], unit: str = "flops") -> np.ndarray:
    """Training cost after each step."""
    return np.cumsum([grid.cost(step.shape, step.epochs, unit) for step in steps])


def shares(contest: Contest, steps: Sequence[Step], unit: str = "flops") -> np.ndarray:
    """The same as a share of training all feasible shapes."""
    return spent(contest.grid, steps, unit) / contest.cost_of_all(unit)


def first_hit(replay: Replay, steps: Sequence[Step]) -> int | None:
    """Index of the step that trained a good shape to the end, the first time."""
    return next((i for i, s in enumerate(steps) if s.full and s.shape in replay.good), None)


def observed_answers(
    contest: Contest, steps: Sequence[Step]
) -> Iterator[tuple[Shape, int] | None]:
    """After each step, the best shape by what was shown, and how often it was trained."""
    times: Counter[Shape] = Counter()
    for step in steps:
        times[step.shape] += step.full
        shown = {shape: contest.shown(shape, n) for shape, n in times.items() if n}
        if contest.task.is_cost:
            reaching = [s for s in shown if shown[s] >= contest.task.threshold]
            answer = min(reaching, key=lambda s: contest.goal_costs[s], default=None)
        else:
            answer = max(shown, key=lambda s: shown[s], default=None)
        yield None if answer is None else (answer, times[answer])


def make_problem(grid: Grid, task: Task) -> ShapeProblem:
    """The task in our own words."""
    constraints = [Constraint(name, bound) for name, bound in task.bounds.items()]
    if task.is_cost:
        constraints.append(Constraint("accuracy", task.threshold))
    meter = TableMeter(
        {s: {n: known[s] for n, known in grid.costs.items() if n != "flops"} for s in grid.shapes}
    )
    return ShapeProblem(
        DesignSpace(grid.depths, grid.widths),
        task.goal,
        constraints,
        meter=meter,
        epochs=grid.epochs,
        # Recorded latencies cost nothing, so none need be inferred from others.
        filter_mode="exhaustive",
        training_cost=grid.costs["flops"].__getitem__,
    )


def play_ours(contest: Contest, seed: int, *, prune: bool) -> Run:
    """Search by ShapeSampler; the terminator's stop is noted, and may be gone past."""
    problem = make_problem(contest.grid, contest.task)
    study = optuna.create_study(
        direction=problem.direction,
        sampler=ShapeSampler(problem, seed=seed),
        pruner=ShapePruner(problem) if prune else optuna.pruners.NopPruner(),
    )
    records, terminator = StudyRecords(study), ShapeTerminator(problem)
    steps: list[Step] = []
    numbers: list[int] = []
    answers: list[Shape | None] = []
    times: Counter[Shape] = Counter()

    def objective(trial: optuna.Trial) -> float:
        shape = problem.suggest(trial)
        curve = contest.curve(shape, times[shape])
        numbers.append(trial.number)
        for epoch, accuracy in enumerate(curve):
            trial.report(accuracy, epoch)
            if trial.should_prune():
                steps.append(Step(shape, epoch + 1, full=False))
                raise optuna.TrialPruned
        steps.append(Step(shape, len(curve), full=True))
        times[shape] += 1
        return problem.record(trial, curve[-1])

    begin = time.perf_counter()
    stop: int | None = None
    kind, reaches = "", math.nan
    while not contest.is_done(steps, stopped=stop is not None):
        before = len(steps)
        study.optimize(objective, n_trials=1, callbacks=[terminator])
        if len(steps) > before:
            belief = believe(problem, study)
            answers.append(None if belief.answer is None else belief.shapes[belief.answer])
        decision = records.stop()
        if decision is not None:
            if stop is None:
                stop, kind = len(steps), decision["kind"]
                reaches = decision.get("reaches", math.nan)
            if decision["kind"] == "exhausted":
                break
            records.clear_stop()
        elif len(steps) == before:
            raise RuntimeError(f"{contest.task.name}, seed {seed}: a trial trained nothing")
    certainties = records.certainties()
    return Run(
        contest.grid.name,
        contest.task.name,
        OURS if prune else UNPRUNED,
        seed,
        time.perf_counter() - begin,
        tuple(steps),
        stop,
        kind,
        tuple(certainties.get(number, math.nan) for number in numbers),
        tuple(answers),
        reaches,
    )


def play_rival(contest: Contest, name: str, seed: int, rival: rivals.Rival) -> Run:
    """Search by a rival, treated as the module says."""
    grid, task = contest.grid, contest.task
    position = {
        shape: (grid.depths.index(shape.depth), grid.widths.index(shape.width))
        for shape in grid.shapes
    }
    shape_at = {place: shape for shape, place in position.items()}
    feasible = set(contest.feasible)
    paid: Counter[Shape] = Counter()
    steps: list[Step] = []
    rejections = repeats = 0
    forced: Shape | None = None
    largest = max(grid.costs[task.goal].values()) if task.is_cost else 1.0
    begin = time.perf_counter()
    while not contest.is_over(steps) and min(paid[s] for s in feasible) < grid.epochs:
        shape = shape_at[rival.ask(None if forced is None else position[forced])]
        is_forced, forced = forced is not None, None
        excess = {n: grid.costs[n][shape] / bound - 1 for n, bound in task.bounds.items()}
        if shape not in feasible:
            rival.reject(excess)
            rejections += 1
        else:
            before = paid[shape]
            epochs = _train(contest, rival, shape, prune=not (is_forced and before))
            paid[shape] = max(before, epochs)
            final = contest.shown(shape, 1)
            if task.is_cost:
                is_full = paid[shape] == grid.epochs
                seen = final if is_full else contest.curve(shape, 0)[epochs - 1]
                excess["accuracy"] = task.threshold - seen
            if paid[shape] == grid.epochs:
                rival.complete(
                    contest.goal_costs[shape] / largest if task.is_cost else final, excess
                )
            else:
                rival.cut(excess)
            if paid[shape] > before:
                steps.append(Step(shape, paid[shape] - before, paid[shape] == grid.epochs))
                rejections = repeats = 0
            else:
                repeats += 1
        if rejections == REJECTIONS or repeats == REPEATS:
            rejections = repeats = 0
            forced = nearest(shape, feasible, paid, position, grid.epochs)
    seconds = time.perf_counter() - begin
    return Run(grid.name, task.name, name, seed, seconds, tuple(steps))


def _train(contest: Contest, rival: rivals.Rival, shape: Shape, *, prune: bool) -> int:
    """Show the curve until the rival cuts it; the epochs that were shown."""
    for epoch, accuracy in enumerate(contest.curve(shape, 0)):
        if rival.report(accuracy, epoch) and prune:
            return epoch + 1
    return contest.grid.epochs


def nearest(
    shape: Shape,
    feasible: Iterable[Shape],
    paid: Counter[Shape],
    position: dict[Shape, rivals.Position],
    epochs: int,
) -> Shape | None:
    """The nearest feasible shape not tried yet; with all tried, the nearest not finished."""
    left = [other for other in sorted(feasible) if paid[other] < epochs]
    candidates = [other for other in left if not paid[other]] or left
    place = position[shape]
    return min(candidates, key=lambda s: math.dist(place, position[s]), default=None)


def play(contest: Contest, method: str, seed: int) -> Run:
    """One search by any method.

    Raises:
        ImportError: It is not installed.
    """
    if method in (OURS, UNPRUNED):
        return play_ours(contest, seed, prune=method == OURS)
    task, grid = contest.task, contest.grid
    rival = rivals.make(
        method,
        seed,
        maximize=not task.is_cost,
        lengths=(len(grid.depths), len(grid.widths)),
        epochs=grid.epochs,
        constraints=[*task.bounds, *(["accuracy"] if task.is_cost else [])],
    )
    return play_rival(contest, method, seed, rival)


# The table of runs.

COLUMNS = (
    "table",
    "task",
    "method",
    "seed",
    "seconds",
    "stop",
    "kind",
    "steps",
    "probabilities",
    "answers",
    "reaches",
)


def read_runs(path: Path) -> list[Run]:
    """Read the runs of earlier sessions; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            Run(
                row["table"],
                row["task"],
                row["method"],
                int(row["seed"]),
                float(row["seconds"]),
                tuple(Step.parse(text) for text in row["steps"].split()),
                int(row["stop"]) if row["stop"] else None,
                row["kind"],
                tuple(float(text) for text in row["probabilities"].split()),
                tuple(None if t == "-" else parse_shape(t) for t in row["answers"].split()),
                float(row.get("reaches") or math.nan),
            )
            for row in csv.DictReader(file)
        ]


def _to_row(run: Run) -> list[str]:
    answers = ["-" if a is None else f"{a.depth}x{a.width}" for a in run.answers]
    return [
        run.table,
        run.task,
        run.method,
        str(run.seed),
        f"{run.seconds:.2f}",
        "" if run.stop is None else str(run.stop),
        run.kind,
        " ".join(map(str, run.steps)),
        " ".join(f"{p:.4g}" for p in run.probabilities),
        " ".join(answers),
        "" if math.isnan(run.reaches) else f"{run.reaches:.4g}",
    ]


def write_runs(path: Path, runs: Iterable[Run], *, append: bool = False) -> None:
    new = not (append and path.exists())
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w" if new else "a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        writer.writerows(map(_to_row, runs))


# Figures.


@dataclass(frozen=True)
class Figure:
    """One figure of the summary.

    Attributes:
        part: What it belongs to.
        name: What it is.
        value: The figure.
        low: First quartile, or least.
        high: Third quartile, or largest.
        detail: Numbers behind it.
    """

    part: str
    name: str
    value: float
    low: float = math.nan
    high: float = math.nan
    detail: str = ""


@dataclass(frozen=True)
class Judged:
    """A run beside its replay, and the unit in which costs are counted."""

    run: Run
    replay: Replay
    unit: str = "flops"

    @cached_property
    def shares(self) -> np.ndarray:
        """Cost after each step as a share of exhaustive training."""
        return shares(self.replay, self.run.steps, self.unit)

    @cached_property
    def hit(self) -> float:
        """Cost share until a good shape was trained; of the whole run if none was."""
        step = first_hit(self.replay, self.run.steps)
        return float(self.shares[-1 if step is None else step])

    @property
    def missed(self) -> bool:
        return first_hit(self.replay, self.run.steps) is None

    @cached_property
    def answers(self) -> list[tuple[Shape, int] | None]:
        return list(observed_answers(self.replay, self.run.steps))

    @cached_property
    def regrets(self) -> list[float]:
        """Of the best observed answer after each step; infinite while there is none."""
        return [math.inf if a is None else self.replay.regret(*a) for a in self.answers]

    def untrained(self, count: int) -> set[Shape]:
        """What is not trained to the end after so many steps."""
        return set(self.replay.feasible) - {s.shape for s in self.run.steps[:count] if s.full}

    def gap(self, count: int, best_of: Callable[[np.ndarray], np.ndarray] = crossfit) -> float:
        """By how much the best untrained shape beat the model's answer after so many steps."""
        return self.replay.gap(self.run.answers[count - 1], self.untrained(count), best_of)

    def stop_at(self, delta: float) -> int | None:
        """Steps until the stated probability is at most delta, but for the terminator's checks."""
        trained = np.cumsum([step.full for step in self.run.steps])
        for i, p in enumerate(self.run.probabilities):
            if p <= delta and trained[i] >= MIN_TRAININGS:
                return i + 1
        return self.run.stop

    def is_good(self, count: int) -> bool:
        """Whether the model's answer after so many steps is good."""
        answer = self.run.answers[count - 1]
        if answer is None:
            return False
        times = sum(step.full and step.shape == answer for step in self.run.steps[:count])
        return self.replay.is_good(answer, times)

    def reaches(self, count: int, *, shown: bool) -> bool:
        """Whether the model's answer reaches the accuracy: by those held out, or by all seeds."""
        answer = self.run.answers[count - 1]
        if answer is None:
            return False
        times = sum(step.full and step.shape == answer for step in self.run.steps[:count])
        truth = self.replay.truth(answer, 0 if shown else times)
        return truth >= self.replay.task.threshold

    def is_observed_good(self, count: int) -> bool:
        """Whether what was best by observation after so many steps is good."""
        answer = self.answers[count - 1]
        return answer is not None and self.replay.is_good(*answer)

    def has_cut_good(self, count: int) -> bool:
        """Whether a good shape was cut, and none was trained to the end."""
        seen = [step for step in self.run.steps[:count] if step.shape in self.replay.good]
        return bool(seen) and not any(step.full for step in seen)


def judge(known: Sequence[Table], runs: Iterable[Run]) -> list[Judged]:
    """Put runs beside their replays; runs of absent tables are left out."""
    tasks = {
        (table.name, task.name): (table, task) for table in known for task in make_tasks(table)
    }
    found: dict[tuple[str, str, int], Replay] = {}
    result = []
    for run in runs:
        if (run.table, run.task) in tasks:
            key = (run.table, run.task, run.seed)
            if key not in found:
                found[key] = Replay(*tasks[run.table, run.task], run.seed)
            result.append(Judged(run, found[key]))
    return result


def geometric_mean(values: Iterable[float]) -> float:
    return float(np.exp(np.mean(np.log(list(values)))))


def _spread(part: str, name: str, values: Sequence[float], detail: str = "") -> Figure:
    low, middle, high = np.quantile(np.asarray(values, dtype=float), (0.25, 0.5, 0.75))
    return Figure(part, name, float(middle), float(low), float(high), detail or f"n {len(values)}")


def _share(part: str, name: str, values: Sequence[bool]) -> Figure:
    # Without an interval: replays of one table are far from independent.
    return Figure(part, name, float(np.mean(values)), detail=f"{sum(values)} of {len(values)}")


Cell = tuple[str, str]


def _by_cell(judged: Iterable[Judged]) -> dict[Cell, dict[str, dict[int, Judged]]]:
    """``{(table, task): {method: {seed: run}}}``"""
    result: dict[Cell, dict[str, dict[int, Judged]]] = {}
    for j in judged:
        methods = result.setdefault((j.run.table, j.run.task), {})
        methods.setdefault(j.run.method, {})[j.run.seed] = j
    return result


def first_hits(judged: Sequence[Judged]) -> Iterator[Figure]:
    """Cost until a good shape has been trained, in each unit."""
    for unit in UNITS:
        known = [replace(j, unit=unit) for j in judged if unit in j.replay.table.costs]
        yield from _first_hits(known, unit)


def _first_hits(judged: Sequence[Judged], unit: str) -> Iterator[Figure]:
    suffix = UNITS[unit]
    cells = _by_cell(judged)
    methods = [m for m in METHODS if any(m in runs for runs in cells.values())]
    for cell, method in product(cells, methods):
        runs = list(cells[cell].get(method, {}).values())
        if runs:
            missed = sum(j.missed for j in runs)
            detail = f"n {len(runs)}" + (f", never in {missed}" if missed else "")
            name = f"{', '.join(cell)}: {method}"
            part = f"share of exhaustive until the best{suffix}"
            yield _spread(part, name, [j.hit for j in runs], detail)
    for method in methods:
        own = {cell: runs[method] for cell, runs in cells.items() if method in runs}
        ratios = {
            cell: statistics.median(
                j.hit * j.replay.cost_of_all(unit) / j.replay.oracle(unit) for j in r.values()
            )
            for cell, r in own.items()
        }
        yield from _over_tasks(f"ratio to the oracle until the best{suffix}", method, ratios)
    for ours in (OURS, UNPRUNED):
        part = f"{ours}: cost until the best to a rival's{suffix}"
        best: dict[Cell, float] = {}
        for method in rivals.NAMES:
            ratios = {}
            for cell, runs in cells.items():
                common = runs.get(ours, {}).keys() & runs.get(method, {}).keys()
                if common:
                    ratios[cell] = float(
                        np.median([runs[ours][s].hit for s in common])
                        / np.median([runs[method][s].hit for s in common])
                    )
                    best[cell] = max(best.get(cell, 0.0), ratios[cell])
            if ratios:
                yield from _over_tasks(part, method, ratios)
        if best:
            yield from _over_tasks(part, "best of them", best)


def _over_tasks(part: str, name: str, ratios: dict[Cell, float]) -> Iterator[Figure]:
    """Geometric mean, least and largest over the tasks of each table, and over all."""
    groups = {f"{name}, {table}": table for table, _ in ratios} | {name: None}
    for group, table in groups.items():
        own = {cell: ratio for cell, ratio in ratios.items() if table in (None, cell[0])}
        worst = max(own, key=lambda cell: own[cell])
        low, high = min(own.values()), max(own.values())
        detail = f"worst: {', '.join(worst)}; {len(own)} tasks"
        yield Figure(part, group, geometric_mean(own.values()), low, high, detail)


def stops(judged: Sequence[Judged]) -> Iterator[Figure]:
    """Where ours stops, and what its answers are worth."""
    for method in (OURS, UNPRUNED):
        runs = [j for j in judged if j.run.method == method and j.run.stop]
        groups: dict[str, list[Judged]] = {}
        for j in runs:
            groups.setdefault(f"{j.run.table}, {j.run.task}", []).append(j)
        for table in dict.fromkeys(j.run.table for j in runs):
            groups[f"{table}, all tasks"] = [j for j in runs if j.run.table == table]
        for name, group in {**groups, "all tasks": runs}.items():
            if not group:
                continue
            ends = [j.run.stop or 0 for j in group]
            part = f"{method}: stop, {name}"
            shares = [float(j.shares[end - 1]) for j, end in zip(group, ends)]
            gaps = [j.gap(end) for j, end in zip(group, ends)]
            yield _spread(part, "share of exhaustive", shares)
            if all("seconds" in j.replay.table.costs for j in group):
                timed = [replace(j, unit="seconds") for j in group]
                shares = [float(j.shares[end - 1]) for j, end in zip(timed, ends)]
                yield _spread(part, f"share of exhaustive{UNITS['seconds']}", shares)
            yield _share(part, "good answers", [j.is_good(end) for j, end in zip(group, ends)])
            observed = [j.is_observed_good(end) for j, end in zip(group, ends)]
            yield _share(part, "good answers, had the best observed been taken", observed)
            better = [j.replay.is_better(gap) for j, gap in zip(group, gaps)]
            surely = [j.replay.is_better(gap, 1) for j, gap in zip(group, gaps)]
            yield _share(part, "wrong stops, delta 0.05", better)
            yield _share(part, "wrong stops, by more than a standard error", surely)
            most = [j.replay.is_better(j.gap(end, maximum)) for j, end in zip(group, ends)]
            yield _share(part, "wrong stops, against the plain maximum", most)
            ends = [end for j, end in zip(group, ends) if not math.isnan(j.run.reaches)]
            group = [j for j in group if not math.isnan(j.run.reaches)]
            if group:
                detail = f"stated {np.mean([j.run.reaches for j in group]):.3f}"
                for name, shown in (("held-out seeds", False), ("all seeds", True)):
                    true = [j.reaches(end, shown=shown) for j, end in zip(group, ends)]
                    figure = _share(part, f"answers that reach the accuracy, by {name}", true)
                    yield replace(figure, detail=f"{figure.detail}; {detail}")


EDGES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)


def calibration(judged: Sequence[Judged]) -> Iterator[Figure]:
    """Stated probability of a better shape against how often there was one.

    ``low`` counts only those better by more than one standard error beyond epsilon: the truth is
    noisy too, and what is just as good looks better by chance. Before six trainings nothing is
    stated. Steps of one run are alike: there are fewer independent ones than n.
    """
    stated: dict[str, list[tuple[float, bool, bool]]] = {}
    for j in judged:
        goals = "cost goals" if j.replay.task.is_cost else "accuracy goals"
        for i, p in enumerate(j.run.probabilities):
            if math.isnan(p) or (j.run.answers[i] is None and not j.replay.task.is_cost):
                continue
            gap = j.gap(i + 1)
            rows = stated.setdefault(f"calibration of {j.run.method}: {goals}", [])
            rows.append((p, j.replay.is_better(gap), j.replay.is_better(gap, 1)))
    for part, rows in sorted(stated.items()):
        for low, high in pairwise(EDGES):
            inside = [row for row in rows if low <= row[0] < high or row[0] == high == 1]
            if inside:
                p, better, surely = np.mean(np.array(inside, dtype=float), axis=0)
                detail = f"stated {p:.4f}, n {len(inside)}"
                yield Figure(part, f"stated {low:g} to {high:g}", better, surely, better, detail)


def cost_at_quality(runs: Sequence[Judged], quality: float) -> tuple[float, float] | None:
    """Least geometric mean cost of a stop at which so many answers are good, and its delta.

    Picks delta afterwards: fit for comparing variants, not as a promise.
    """
    found = []
    for delta in (0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01, 0.005, 0.002, 0.001):
        ends = [(j, j.stop_at(delta)) for j in runs]
        known = [(j, end) for j, end in ends if end is not None]
        if known and np.mean([j.is_good(end) for j, end in known]) >= quality:
            found.append((geometric_mean(j.shares[end - 1] for j, end in known), delta))
    return min(found, default=None)


def pruning(judged: Sequence[Judged]) -> Iterator[Figure]:
    """Ours with and without ShapePruner, on the same replays."""
    for kind in ("accuracy goals", "cost goals"):
        runs = {
            method: {
                (j.run.table, j.run.task, j.run.seed): j
                for j in judged
                if j.run.method == method and j.replay.task.is_cost == (kind != "accuracy goals")
            }
            for method in (OURS, UNPRUNED)
        }
        keys = sorted(runs[OURS].keys() & runs[UNPRUNED].keys())
        pairs = [(runs[OURS][key], runs[UNPRUNED][key]) for key in keys]
        pairs = [(a, b) for a, b in pairs if a.run.stop and b.run.stop]
        if not pairs:
            continue
        part = f"pruning, {kind}"
        hits = [a.hit / b.hit for a, b in pairs]
        ends = [a.shares[a.run.stop - 1] / b.shares[b.run.stop - 1] for a, b in pairs]
        cut = sum(not s.full for a, _ in pairs for s in a.run.steps[: a.run.stop])
        yield Figure(part, "cost until the best, to that without", geometric_mean(hits))
        yield Figure(
            part,
            "cost until the stop, to that without",
            geometric_mean(ends),
            detail=f"n {len(pairs)}, {cut} trainings cut",
        )
        yield _share(part, "good answers with", [a.is_good(a.run.stop) for a, _ in pairs])
        yield _share(part, "good answers without", [b.is_good(b.run.stop) for _, b in pairs])
        killed = [a.has_cut_good(a.run.stop) for a, _ in pairs]
        yield _share(part, "answers killed: cut, and none good trained", killed)
        for quality in (0.9, 0.95):
            costs = [cost_at_quality([p[i] for p in pairs], quality) for i in (0, 1)]
            if costs[0] and costs[1]:
                yield Figure(
                    part,
                    f"cost to that without, where {quality:.0%} are good",
                    costs[0][0] / costs[1][0],
                    detail=f"deltas {costs[0][1]:g} and {costs[1][1]:g}",
                )


def summarise(judged: Sequence[Judged]) -> list[Figure]:
    return [
        figure for part in (first_hits, stops, calibration, pruning) for figure in part(judged)
    ] + [
        _spread(
            "seconds per run", method, [j.run.seconds for j in judged if j.run.method == method]
        )
        for method in METHODS
        if any(j.run.method == method for j in judged)
    ]


def write_figures(path: Path, figures: Iterable[Figure]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["part", "name", "value", "low", "high", "detail"])
        for f in figures:
            numbers = ["" if math.isnan(x) else f"{x:.4g}" for x in (f.value, f.low, f.high)]
            writer.writerow([f.part, f.name, *numbers, f.detail])


def print_figures(figures: Iterable[Figure]) -> None:
    part = ""
    for f in figures:
        if f.part != part:
            part = f.part
            print(f"\n{part}")
        spread = "" if math.isnan(f.low) else f" [{f.low:.3g}, {f.high:.3g}]"
        print(f"  {f.name}: {f.value:.3g}{spread}{f'  ({f.detail})' if f.detail else ''}")


# Plots.

_COLOURS = (
    "#d62728", "#ff9896", "#7f7f7f", "#bcbd22", "#1f77b4",
    "#17becf", "#2ca02c", "#98df8a", "#9467bd", "#8c564b",
)  # fmt: skip


def regret_plot(judged: Sequence[Judged]) -> go.Figure:
    """Median regret against cost, ours with quartiles, over the replays of all tasks of a kind."""
    figure = make_subplots(
        1, 2, subplot_titles=("accuracy goals", "latency and size goals"), horizontal_spacing=0.1
    )
    axis = np.geomspace(1e-3, HORIZON, 120)
    for column, is_cost in ((1, False), (2, True)):
        floor, ceiling = (0.02, 10.0) if is_cost else (1e-3, 0.5)
        for method, colour in zip(METHODS, _COLOURS):
            runs = [
                j for j in judged if j.run.method == method and j.replay.task.is_cost == is_cost
            ]
            if not runs:
                continue
            curves = []
            for j in runs:
                known = np.array([math.inf, *j.regrets])
                curves.append(known[np.searchsorted(j.shares, axis, side="right")])
            low, middle, high = np.clip(
                np.quantile(curves, (0.25, 0.5, 0.75), axis=0, method="nearest"), floor, ceiling
            )
            where = {"row": 1, "col": column}
            band = {
                "mode": "lines",
                "line": {"width": 0},
                "hoverinfo": "skip",
                "showlegend": False,
            }
            if method == OURS:  # Ten bands over each other show nothing.
                red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
                fill = f"rgba({red},{green},{blue},0.12)"
                figure.add_scatter(x=axis, y=low, **band, **where)
                figure.add_scatter(x=axis, y=high, fill="tonexty", fillcolor=fill, **band, **where)
            figure.add_scatter(
                x=axis,
                y=middle,
                mode="lines",
                name=method,
                legendgroup=method,
                showlegend=column == 1 or not any(t.name == method for t in figure.data),
                line={"color": colour, "width": 3 if method == OURS else 1.5},
                **where,
            )
        title = (
            f"cost above the best (at least {floor:.0%})" if is_cost else "accuracy below the best"
        )
        figure.update_yaxes(type="log", title=title, dtick=1, row=1, col=column)
    figure.update_xaxes(type="log", title="training cost, share of exhaustive", dtick=1)
    figure.update_layout(template="plotly_white", width=1200, height=480, margin={"t": 50})
    return figure


def calibration_plot(figures: Iterable[Figure]) -> go.Figure:
    """Stated against observed; bars reach down to what is better beyond the noise."""
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": "#bbb", "dash": "dot"}, showlegend=False
    )
    points: dict[str, list[tuple[float, float, float]]] = {}
    start = "calibration of "
    for f in figures:
        if f.part.startswith(start):
            stated = float(f.detail.split()[1].rstrip(","))
            points.setdefault(f.part.removeprefix(start), []).append((stated, f.value, f.low))
    colours = ("#ff9896", "#17becf", "#d62728", "#1f77b4")  # Sorted: ours, which prunes, is last.
    for (kind, rows), colour in zip(points.items(), colours):
        x, y, low = np.array(rows).T
        bars = {"type": "data", "array": 0 * y, "arrayminus": y - low, "thickness": 1}
        figure.add_scatter(
            x=x, y=y, error_y=bars, mode="lines+markers", name=kind, line={"color": colour}
        )
    figure.update_xaxes(title="stated probability of a better shape", range=[-0.02, 1.02])
    figure.update_yaxes(title="share of steps with one, by the truth", range=[-0.02, 1.02])
    figure.update_layout(template="plotly_white", width=800, height=560, margin={"t": 30})
    return figure


def write_plot(path: Path, figure: go.Figure) -> Path:
    """Write a PNG, or a page where there is no browser to draw it."""
    try:
        figure.write_image(path, scale=2)
    except Exception as error:  # Whatever kaleido and the browser may raise.
        print(f"no PNG, {type(error).__name__}: {str(error)[:80]}")
        path = path.with_suffix(".html")
        figure.write_html(path, include_plotlyjs="cdn")
    return path


# The script.


def choose(parser: argparse.ArgumentParser, text: str | None, known: Sequence[str]) -> list[str]:
    chosen = list(known) if text is None else [name.strip() for name in text.split(";")]
    if set(chosen) - set(known):
        parser.error(f"{text!r}: choose some of {'; '.join(known)}, separated by semicolons")
    return chosen


def run_all(
    path: Path,
    known: Sequence[Table],
    tasks: Sequence[str],
    methods: Sequence[str],
    seeds: int | None,
) -> None:
    """Run what is not there yet, seed by seed, so that an interruption leaves all methods."""
    done = {run.key for run in read_runs(path)}
    absent: set[str] = set()
    for seed, table in product(range(FAST_SEEDS), known):
        for task, method in product(make_tasks(table), methods):
            limit = SLOW_SEEDS if method in rivals.SLOW else FAST_SEEDS
            if (
                seed >= (limit if seeds is None else min(seeds, limit))
                or task.name not in tasks
                or method in absent
                or (table.name, task.name, method, seed) in done
            ):
                continue
            try:
                run = play(Replay(table, task, seed), method, seed)
            except ImportError as error:
                absent.add(method)
                print(f"{method} is skipped: {error}. pip install 'optuna_shape[bench]'")
                continue
            write_runs(path, [run], append=True)
            print(f"{', '.join(run.key[:3])}, {seed}: {run.seconds:.1f} s", flush=True)


def main() -> None:
    names = ("accuracy", "accuracy, limited", "latency", "energy", "size")
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tables", type=Path, nargs="+", help="default: all that are recorded")
    parser.add_argument("--tasks", help=f"of {'; '.join(names)}")
    parser.add_argument("--methods", help=f"of {'; '.join(METHODS)}")
    parser.add_argument("--seeds", type=int, help=f"default: {FAST_SEEDS}, slow {SLOW_SEEDS}")
    parser.add_argument("--again", action="store_true", help="run what is chosen anew")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path, default=RESULTS / "replay.csv")
    arguments = parser.parse_args()
    tasks = choose(parser, arguments.tasks, names)
    methods = choose(parser, arguments.methods, METHODS)
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)

    known = read_tables(arguments.tables)
    out = arguments.out
    if arguments.again:
        chosen = {table.name for table in known}
        kept = [
            run
            for run in read_runs(out)
            if run.table not in chosen or run.task not in tasks or run.method not in methods
        ]
        write_runs(out, kept)
    if not arguments.summary:
        run_all(out, known, tasks, methods, arguments.seeds)

    judged = judge(known, read_runs(out))
    figures = summarise(judged)
    print_figures(figures)
    summary = out.with_name(f"{out.stem}-summary.csv")
    write_figures(summary, figures)
    tables.write_provenance(
        summary,
        tables.provenance(
            tables={t.name: f"{len(t.shapes)} shapes, noise {t.noise:.4f}" for t in known},
            runs=len(judged),
        ),
    )
    plots: dict[str, Callable[[], go.Figure]] = {
        "regret": lambda: regret_plot(judged),
        "calibration": lambda: calibration_plot(figures),
    }
    for name, plot in plots.items():
        print(f"written: {write_plot(out.with_name(f'{out.stem}-{name}.png'), plot())}")


if __name__ == "__main__":
    main()
