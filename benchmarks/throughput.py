"""Do several trainings side by side on one device get more done?

    python benchmarks/throughput.py                  # about 5 minutes on 2 quiet cores
    python benchmarks/throughput.py --device cuda --workers 1,2,4,8

Runs ``optuna-shape search --workers N`` on six shapes of residual networks on the digits, all of
which it trains, so that the work is the same for every N. Time runs from the start of the first
training to the end of the last, decisions included. Within each repeat the numbers of workers take
turns; throughput is that repeat's time with the first number of workers over the time with N.
``command`` is the time of the whole command, with the measuring and the start of the processes.
"""

from __future__ import annotations

import argparse
import csv
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import optuna
import tables
from optuna.trial import TrialState

RESULTS = Path(__file__).parent / "results"
_COLUMNS = ("device", "cores", "workers", "repeat", "trainings", "seconds", "command")


def time_search(workers: int, device: str, epochs: int, threads: int) -> dict[str, object]:
    """Run a search from nothing, and return a row of its times."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", "from optuna_shape.cli import main; main()", "search"]
        command += ["--depth", "2", "--width", "8-13", "--constraint", "size <= 1 GB"]
        command += ["--epochs", str(epochs), "--device", device, "--max-noise", "100"]
        command += ["--threads", str(threads), "--workers", str(workers), "--output", folder]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        whole = time.perf_counter() - start
        study = optuna.load_study(study_name=None, storage=f"sqlite:///{folder}/study.db")
        trials = study.get_trials(states=[TrialState.COMPLETE])
        begins = [t.datetime_start for t in trials if t.datetime_start]
        ends = [t.datetime_complete for t in trials if t.datetime_complete]
        seconds = (max(ends) - min(begins)).total_seconds()
        return {"trainings": len(trials), "seconds": round(seconds, 2), "command": round(whole, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--workers", default="1,2,4", help="comma-separated")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="that one may use")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS / "throughput.csv")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)

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
    command = shlex.join(["python", *sys.argv])
    tables.write_provenance(arguments.out, tables.provenance(command=command))


if __name__ == "__main__":
    main()
