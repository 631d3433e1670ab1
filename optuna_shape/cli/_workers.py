"""Several processes that train for one search, on one device."""

from __future__ import annotations

import dataclasses
import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from optuna_shape.cli._common import EXIT_INTERRUPTED
from optuna_shape.cli._common import cores
from optuna_shape.cli._common import ends_as_interrupts
from optuna_shape.cli._common import errors_in_a_line
from optuna_shape.cli._common import quiet
from optuna_shape.cli._job import Job
from optuna_shape.cli._job import Search
from optuna_shape.cli._studies import STORAGES
from optuna_shape.cli._studies import in_memory
from optuna_shape.errors import InvalidProblem

# Seconds that workers may take to end when they are asked to, and asked again.
_PATIENCE = (15.0, 15.0)


def run_workers(search: Search, workers: int, trials: int | None) -> dict[Path, int]:
    """Train in processes of their own until the search is over.

    Each opens the study for itself; what they share is the storage. The cores are divided among
    them, but each has at least one thread: more workers than cores take turns on them.

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
        InvalidProblem: The storage is one that processes cannot share.
        KeyboardInterrupt: On Ctrl-C, after they have ended.
    """
    if search.job.storage is not None and in_memory(search.job.storage):
        raise InvalidProblem(
            f"--workers {workers} need a storage that processes share, and {search.job.storage} "
            f"is in the memory of one. Leave --storage out, or give {STORAGES}."
        )
    shares = [None if trials is None else len(range(i, trials, workers)) for i in range(workers)]
    # Another command may work in the same folder.
    logs = [search.folder / f"worker-{os.getpid()}-{i}.log" for i in range(workers)]
    search.folder.mkdir(parents=True, exist_ok=True)
    # They find this very study, or say why it is not theirs.
    job = dataclasses.replace(search.job, study_name=search.study.study_name)
    # What this process measured with is theirs to train with.
    gc.collect()
    torch.cuda.empty_cache()
    context = multiprocessing.get_context("spawn")  # CUDA cannot be used after a fork.
    processes = [
        context.Process(target=_work, args=(job, share, workers, log))
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
    return max(1, min(threads, cores() // workers))


def _work(job: Job, trials: int | None, workers: int, log: Path) -> None:
    # On the terminal it would tear the display. By descriptor, as libraries in C write there too.
    with log.open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    quiet()
    try:
        # As Ctrl-C in a single process: the training at hand is kept and marked as interrupted.
        with errors_in_a_line(), ends_as_interrupts():
            search = job.open()
            torch.set_num_threads(threads_of(job.threads, workers))
            search.optimize(trials)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


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
        for patience in _PATIENCE:
            for process in started:
                process.terminate()
            deadline = time.monotonic() + patience
            for process in started:
                process.join(max(0.0, deadline - time.monotonic()))
        for process in started:
            process.kill()  # If it is stuck in something that no signal reaches.
            process.join()
