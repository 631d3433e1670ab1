"""What several workers gain: simulated workers that share a search of recorded trainings.

    python benchmarks/workers.py                  # about 20 minutes on one core

Each training of a recorded table takes as long as it costs, epochs times FLOPs; deciding takes no
simulated time, but its real time and its requests to the storage are noted. Workers start at once,
and all that ends at a time is known to whoever asks next. When the search stops, trainings at hand
are finished, as real ones are, and paid for.

* ``speed-up until good``: time of one worker until a good shape was trained (as in replay.py) over
  that of N;
* ``speed-up until stop``: the same until the search stopped;
* ``efficiency``: worker-hours that one worker needs until the stop over those that N need, whose
  hours end when they find nothing left to train;
* ``requests``: calls of the storage per trial, reports of epochs included.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import math
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import replay
import tables
import torch
from optuna.storages import BaseStorage
from optuna.storages import InMemoryStorage

from optuna_shape import ShapeSampler
from optuna_shape import ShapeTerminator
from optuna_shape.records import StudyRecords

RESULTS = Path(__file__).parent / "results"
COLUMNS = (
    "table",
    "task",
    "seed",
    "workers",
    "trainings",
    "shapes",
    "until_good",
    "until_stop",
    "worker_time",
    "suggest_ms",
    "requests",
)


def _forwarded(name: str) -> Callable[..., Any]:
    def call(self: CountingStorage, *arguments: Any, **options: Any) -> Any:
        self.requests += 1
        return getattr(self.inner, name)(*arguments, **options)

    return call


class CountingStorage(BaseStorage):
    """A storage in memory that counts what is asked of it."""

    def __init__(self) -> None:
        self.inner = InMemoryStorage()
        self.requests = 0


for _name in dir(BaseStorage):
    if not _name.startswith("_"):
        setattr(CountingStorage, _name, _forwarded(_name))
CountingStorage.__abstractmethods__ = frozenset()


def simulate(game: replay.Replay, seed: int, workers: int) -> dict[str, object]:
    """Search with so many workers, and return a row of what it took, in units of training cost."""
    table = game.table
    problem = replay.make_problem(table, game.task)
    storage = CountingStorage()
    study = optuna.create_study(
        direction=problem.direction,
        storage=storage,
        sampler=ShapeSampler(problem, seed=seed),
        pruner=optuna.pruners.NopPruner(),
    )
    records, terminator = StudyRecords(study), ShapeTerminator(problem)
    problem.screen(study)
    storage.requests = 0
    times: Counter[Any] = Counter()
    suggestions: list[float] = []
    running: list[tuple[float, int, optuna.Trial, Any]] = []
    now, until_good, until_stop, worker_time = 0.0, math.inf, math.inf, 0.0

    def ask() -> None:
        begin = time.perf_counter()
        trial = study.ask()
        try:
            shape = problem.suggest(trial)
        except optuna.TrialPruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return  # Nothing is left for this worker.
        suggestions.append(time.perf_counter() - begin)
        end = now + table.cost(shape, table.epochs)
        heapq.heappush(running, (end, trial.number, trial, shape))

    for _ in range(workers):
        ask()
    while running:
        end, _, trial, shape = heapq.heappop(running)
        worker_time += (end - now) * (len(running) + 1)
        now = end
        curve = game.curve(shape, times[shape])
        times[shape] += 1
        for epoch, accuracy in enumerate(curve):
            trial.report(accuracy, epoch)
        frozen = study.tell(trial, problem.record(trial, curve[-1]))
        if shape in game.good:
            until_good = min(until_good, now)
        if math.isfinite(until_stop):
            continue
        begin = time.perf_counter()
        terminator(study, frozen)
        suggestions[-1] += time.perf_counter() - begin
        if records.stop() is None:
            ask()
        else:
            until_stop = now
    return {
        "trainings": sum(times.values()),
        "shapes": len(times),
        "until_good": f"{until_good:.6g}",
        "until_stop": f"{min(until_stop, now):.6g}",
        "worker_time": f"{worker_time:.6g}",
        "suggest_ms": round(1000 * statistics.median(suggestions), 1),
        "requests": round(storage.requests / len(study.trials), 1),
    }


def summarise(rows: list[dict[str, object]]) -> None:
    """Print medians, with quartiles, over tables, tasks and seeds."""
    single = {_cell(row): row for row in rows if row["workers"] == 1}

    def gain(row: dict[str, object], name: str) -> float:
        return float(str(single[_cell(row)][name])) / float(str(row[name]))

    print("workers  until good        until stop        efficiency        ms  requests  trainings")
    for workers in sorted({int(str(row["workers"])) for row in rows}):
        of = [row for row in rows if row["workers"] == workers]
        cells = [f"{workers:7}"]
        for name in ("until_good", "until_stop", "worker_time"):
            values = [gain(row, name) for row in of]
            low, _, high = statistics.quantiles(values, n=4)
            cells.append(f"{statistics.median(values):5.2f} ({low:.2f}-{high:.2f})")
        for name in ("suggest_ms", "requests", "trainings"):
            cells.append(f"{statistics.median(float(str(row[name])) for row in of):6.1f}")
        print("  ".join(cells))


def _cell(row: dict[str, object]) -> tuple[object, ...]:
    return row["table"], row["task"], row["seed"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--workers", default="1,2,4,8,16,64", help="comma-separated, with 1")
    parser.add_argument("--tasks", default="accuracy,latency", help="comma-separated")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULTS / "workers.csv")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)

    rows: list[dict[str, object]] = []
    for table in replay.read_tables():
        for task in replay.make_tasks(table):
            if task.name not in arguments.tasks.split(","):
                continue
            for seed in range(arguments.seeds):
                game = replay.Replay(table, task, seed)
                for workers in map(int, arguments.workers.split(",")):
                    known = (table.name, task.name, seed, workers)
                    rows.append(dict(zip(COLUMNS, known)) | simulate(game, seed, workers))
                print(*known[:3], flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    tables.write_provenance(arguments.out, tables.provenance())
    summarise(rows)


if __name__ == "__main__":
    main()
