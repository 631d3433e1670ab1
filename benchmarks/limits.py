"""Where a rule of thumb does as well as a search, by the recorded tables: nothing is trained.

    python benchmarks/limits.py

The tables, tasks, replays and the truth are those of ``replay.py``, whose runs of ShapeSampler are
read from ``results/replay.csv``. For every one of them, these rules answer the same question:

* ``largest``: train the feasible shape of the most FLOPs, and take it. For accuracy goals.
* ``depth-scaled``: train the deepest feasible shape at the middle width, and take it. For accuracy
  goals.
* ``random``: train feasible shapes in random order, none twice, for as much as ShapeSampler spent
  until its stop, and take the best seen.
* ``cheapest first``: train shapes in order of the cost that is asked about, until one is seen to
  reach the accuracy, and take it. For cost goals. It cannot end with a shape dearer than needed,
  but pays for all that are too small.

What they cost is a share of training every feasible shape, by FLOPs and by recorded time. Regret
is what the answer lacks in accuracy, or the share that it costs more than the best, and infinite
where it misses the accuracy by more than two standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import replay
import tables

from optuna_shape import Shape

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Outcome:
    """What one rule, or ours, came to in one replay.

    Attributes:
        table: Name of the table.
        task: Name of the task.
        rule: Who answered.
        cost: Share of exhaustive training, by FLOPs.
        seconds: The same, by recorded time; NaN where there is none.
        regret: Of the answer; infinite without one.
        good: Whether the answer is as good as the best, as ``replay.py`` has it.
    """

    table: str
    task: str
    rule: str
    cost: float
    seconds: float
    regret: float
    good: bool

    @property
    def group(self) -> tuple[str, str, str]:
        return self.table, self.task, self.rule


def outcome(run: replay.Replay, rule: str, trained: Sequence[Shape]) -> Outcome:
    """The outcome of training some shapes to the end, once each."""
    steps = [replay.Step(shape, run.table.epochs, full=True) for shape in trained]
    *_, answer = replay.observed_answers(run, steps)
    regret = math.inf if answer is None else run.regret(*answer)
    good = answer is not None and run.is_good(*answer)
    return Outcome(run.table.name, run.task.name, rule, *costs(run, steps), regret, good)


def costs(run: replay.Replay, steps: Sequence[replay.Step]) -> Iterator[float]:
    """What trainings cost as a share of exhaustive training, in each unit."""
    for unit in replay.UNITS:
        known = unit in run.table.costs
        yield float(replay.shares(run, steps, unit)[-1]) if known else math.nan


def largest(run: replay.Replay) -> list[Shape]:
    """The feasible shape of the most FLOPs."""
    return [max(run.feasible, key=lambda shape: run.table.costs["flops"][shape])]


def depth_scaled(run: replay.Replay) -> list[Shape]:
    """The deepest feasible shape at the middle width, or below it if none there is feasible."""
    middle = run.table.widths[len(run.table.widths) // 2]
    width = max(shape.width for shape in run.feasible if shape.width <= middle)
    return [max(shape for shape in run.feasible if shape.width == width)]


def cheapest_first(run: replay.Replay) -> list[Shape]:
    """Shapes in order of cost, until one is seen to reach the accuracy."""
    order = sorted(run.feasible, key=lambda shape: run.goal_costs[shape])
    reached = [run.shown(shape, 1) >= run.task.threshold for shape in order]
    return order[: reached.index(True) + 1]


def random_order(run: replay.Replay, seed: int, share: float) -> list[Shape]:
    """Feasible shapes in random order, the last of which begins before a share is spent."""
    order = [run.feasible[i] for i in np.random.default_rng(seed).permutation(len(run.feasible))]
    steps = [replay.Step(shape, run.table.epochs, full=True) for shape in order]
    before = np.concatenate([[0.0], replay.shares(run, steps)[:-1]])
    return [shape for shape, spent in zip(order, before) if spent < share]


def outcomes(judged: Iterable[replay.Judged]) -> Iterator[Outcome]:
    """Ours and the rules, for every replay of ours that stopped."""
    for j in judged:
        if j.run.method != replay.UNPRUNED or not j.run.stop:
            continue
        run, end = j.replay, j.run.stop
        share, answer = float(j.shares[end - 1]), j.run.answers[end - 1]
        times = sum(s.full and s.shape == answer for s in j.run.steps[:end])
        regret = math.inf if answer is None else run.regret(answer, times)
        own = costs(run, j.run.steps[:end])
        yield Outcome(j.run.table, j.run.task, "ShapeSampler", *own, regret, j.is_good(end))
        yield outcome(run, "random", random_order(run, j.run.seed, share))
        if run.task.is_cost:
            yield outcome(run, "cheapest first", cheapest_first(run))
        else:
            yield outcome(run, "largest", largest(run))
            yield outcome(run, "depth-scaled", depth_scaled(run))


def figures(found: Iterable[Outcome]) -> Iterator[replay.Figure]:
    """Medians with quartiles, and how many answers were good."""
    for group, members in groupby(sorted(found, key=lambda o: o.group), lambda o: o.group):
        these = list(members)
        for name, values in (
            ("share of exhaustive", [o.cost for o in these]),
            ("share of exhaustive, seconds", [o.seconds for o in these]),
            ("regret", [o.regret for o in these]),
        ):
            method = "linear" if np.isfinite(values).all() else "nearest"
            low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), method=method)
            part = ", ".join(group)
            yield replay.Figure(part, name, middle, low, high, f"n {len(these)}")
        good = sum(o.good for o in these)
        yield replay.Figure(part, "good", good / len(these), detail=f"{good} of {len(these)}")


def main() -> None:
    judged = replay.judge(replay.read_tables(), replay.read_runs(RESULTS / "replay.csv"))
    found = list(figures(outcomes(judged)))
    for figure in found:
        print(f"{figure.part}: {figure.name} {figure.value:.3g}  {figure.detail}")
    out = RESULTS / "limits.csv"
    replay.write_figures(out, found)
    tables.write_provenance(out, tables.provenance())


if __name__ == "__main__":
    main()
