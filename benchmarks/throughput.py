"""Do several trainings side by side on one device get more done?

    python benchmarks/throughput.py                  # about 10 minutes on 2 quiet cores
    python benchmarks/throughput.py --device cuda --workers 1,2,4,8

Trains 24 residual networks on the digits in N processes, as ``optuna-shape search --workers N``
does, but without its terminator: every shape is trained, so the work is the same for every N. Time
runs from the start of the first training to the end of the last, decisions included. Within each
repeat the numbers of workers take turns; throughput is that repeat's time with the first number of
workers over the time with N. ``command`` also has the measuring and the start of the processes.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import tables
from optuna.trial import TrialState

from optuna_shape.cli._common import quiet
from optuna_shape.cli._job import Job
from optuna_shape.cli._workers import threads_of

RESULTS = Path(__file__).parent / "results"
_COLUMNS = ("device", "cores", "workers", "repeat", "trainings", "seconds", "command")


def time_search(workers: int, device: str, epochs: int, threads: int) -> dict[str, object]:
    """Train all shapes from nothing, and return a row of times."""
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            depth=(1, 2, 3),
            width=tuple(range(8, 16)),
            constraints=("size <= 1 GB",),
            epochs=epochs,
            device=device,
            threads=threads_of(threads, workers),
            max_noise=100.0,
            output=Path(folder),
        )
        start = time.perf_counter()
        search = job.open()
        search.problem.screen(search.study)
        context = multiprocessing.get_context("spawn")
        processes = [context.Process(target=_work, args=(job,)) for _ in range(workers)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        whole = time.perf_counter() - start
        trials = search.study.get_trials(states=[TrialState.COMPLETE])
        if len(trials) != len(search.problem.space.shapes):
            codes = [process.exitcode for process in processes]
            raise SystemExit(f"{len(trials)} trainings of {workers} workers, which ended {codes}.")
        begins = [t.datetime_start for t in trials if t.datetime_start]
        ends = [t.datetime_complete for t in trials if t.datetime_complete]
        seconds = (max(ends) - min(begins)).total_seconds()
        return {"trainings": len(trials), "seconds": round(seconds, 2), "command": round(whole, 2)}


def _work(job: Job) -> None:
    quiet()
    search = job.open()
    search.study.optimize(search.objective())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--workers", default="1,2,4", help="comma-separated")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="that one may use")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS / "throughput.csv")
    arguments = parser.parse_args()
    quiet()

    counts = [int(text) for text in arguments.workers.split(",")]
    rows: list[dict[str, object]] = []
    gains: dict[int, list[float]] = defaultdict(list)
    for repeat in range(arguments.repeats):
        first = None
        for workers in counts:
            times = time_search(workers, arguments.device, arguments.epochs, arguments.threads)
            cores = os.cpu_count()
            rows.append(dict(zip(_COLUMNS, (arguments.device, cores, workers, repeat))) | times)
            seconds = float(str(times["seconds"]))
            first = first or seconds
            gains[workers].append(first / seconds)
            print(
                f"{workers} workers: {times['trainings']} trainings in {seconds:.1f} s", flush=True
            )
    for workers, values in gains.items():
        spread = f"{min(values):.2f} to {max(values):.2f}"
        print(
            f"{workers} workers: {statistics.median(values):.2f} times the throughput ({spread})"
        )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    what = tables.provenance(threads_in_all=arguments.threads)
    tables.write_provenance(arguments.out, what)


if __name__ == "__main__":
    main()
