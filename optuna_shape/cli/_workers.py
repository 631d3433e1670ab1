"""Several processes that train for one search, on one device."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

import optuna
import torch
from optuna.trial import FrozenTrial

from optuna_shape.cli._common import EXIT_INTERRUPTED
from optuna_shape.cli._common import quiet
from optuna_shape.cli._job import Job
from optuna_shape.cli._job import Search


def run_workers(search: Search, workers: int, trials: int | None) -> dict[Path, int]:
    """Train in processes of their own until the search is over.

    Each opens the study for itself; what they share is the storage. CPU threads are divided among
    them, so that together they have no more than there are cores.

    Args:
        search:
            The search, whose shapes were measured.
        workers:
            How many processes.
        trials:
            Most trials of all of them together, or None.

    Returns:
        For each process the file with what it had to say, and its exit code, 0 for one that ended
        as it should.

    Raises:
        KeyboardInterrupt: On Ctrl-C, after they have ended.
    """
    shares = [None if trials is None else len(range(i, trials, workers)) for i in range(workers)]
    logs = [search.folder / f"worker-{i}.log" for i in range(workers)]
    search.folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")  # CUDA cannot be used after a fork.
    processes = [
        context.Process(target=_work, args=(search.job, share, workers, log))
        for log, share in zip(logs, shares)
        if share != 0
    ]
    try:
        with _without_interrupts():
            for process in processes:
                process.start()
        for process in processes:
            process.join()
    except BaseException:
        _end(processes)
        raise
    return {log: process.exitcode or 0 for log, process in zip(logs, processes)}


def threads_of(threads: int, workers: int) -> int:
    """Return how many CPU threads each of several workers may use.

    Args:
        threads:
            What one alone would use.
        workers:
            How many there are.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(threads, (cores or 1) // workers))


def _work(job: Job, trials: int | None, workers: int, log: Path) -> None:
    # On the terminal it would tear the display. By descriptor, as libraries in C write there too.
    with log.open("w") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    # As Ctrl-C in a single process: the training at hand is kept and marked as interrupted.
    signal.signal(signal.SIGTERM, _interrupt)
    quiet()
    try:
        search = job.open()
        torch.set_num_threads(threads_of(job.threads, workers))
        search.optimize(trials, [_stop_if_alone])
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _stop_if_alone(study: optuna.Study, _: FrozenTrial) -> None:
    """A callback: nobody waits for a worker whose command was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        study.stop()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes started meanwhile leave Ctrl-C, which reaches all of a terminal's, to this one."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(processes: Sequence[BaseProcess]) -> None:
    with _without_interrupts():
        started = [process for process in processes if process.pid is not None]
        for process in started:
            process.terminate()
        for process in started:
            process.join()
