"""What the commands have in common: how they speak, how errors are told, how texts are read."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any
from typing import TypeVar

import optuna
import typer
from optuna.exceptions import StorageInternalError
from rich.console import Console
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from optuna_shape.errors import EnergyUnavailable
from optuna_shape.errors import InvalidProblem
from optuna_shape.errors import InvalidSpace
from optuna_shape.errors import NoFeasibleShape
from optuna_shape.errors import NoisyMachine
from optuna_shape.errors import ShapeError
from optuna_shape.report.measured import check_writable

_T = TypeVar("_T")

# More depths or widths than any search could measure, and no slip of the pen fills the memory.
_MOST_INTEGERS = 10_000

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_NO_ANSWER = 3
EXIT_NOT_VERIFIED = 4
EXIT_TOO_NOISY = 5
EXIT_INTERRUPTED = 130

# Seconds in which further signals to end say nothing new.
_GRACE = 5.0

# Of typer's own copy of click, or of the one that is installed.
_UsageError: Any = typer.BadParameter.__base__


class WorkersFailed(ShapeError):
    """No worker of a search has ended as it should."""


class NotWritten(ShapeError):
    """A file that was asked for cannot be written."""


#: Errors that do not mean that the question has to be asked otherwise.
_CODES: dict[type[ShapeError], int] = {
    NoFeasibleShape: EXIT_NO_ANSWER,
    NoisyMachine: EXIT_TOO_NOISY,
    WorkersFailed: EXIT_FAILED,
}


def quiet() -> None:
    """Leave the terminal to the display."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # What ended a training stands in the table; Optuna would print a traceback into it.
    logging.getLogger("optuna.study").setLevel(logging.ERROR)
    # GPyTorch's sparse-solver dependency compiles with an old API of torch; nobody here can act.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.jit")


def make_console(*, quiet: bool = False, stderr: bool = False) -> Console:
    """Return what the commands print to; in a module's name, ``:one:`` is no emoji."""
    return Console(emoji=False, quiet=quiet, stderr=stderr)


def say(console: Console, *lines: str) -> None:
    """Print lines as they are: what is read by a program, or copied, stays in one line."""
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def say_json(value: Mapping[str, object]) -> None:
    """Print the one object that ``--json`` promises."""
    typer.echo(json.dumps(value, indent=2))


def warn(text: str) -> None:
    """Say something that ends nothing."""
    _tell("Warning", "yellow", text)


@contextlib.contextmanager
def errors_in_a_line(*, as_json: bool = False) -> Iterator[None]:
    """What a user can mend is said in one line; anything else keeps its traceback.

    It goes to standard error; for a program, one JSON object goes to standard output.

    Raises:
        SystemExit: Something was said.
    """
    try:
        yield
    except Exception as error:
        kind, text, code = _explain(error)
        _tell(kind, "red", text)
        if as_json:
            say_json({"error": {"kind": kind, "message": text}})
        sys.exit(code)


def _explain(error: Exception) -> tuple[str, str, int]:
    """Return the name of an error that can be mended, what to say of it, and the exit code.

    Raises:
        Exception: Itself, if it is none.
    """
    kind, text = type(error).__name__, str(error)
    if isinstance(error, ShapeError):
        if isinstance(error, NoisyMachine) and "max_noise" in text:
            text += " Here: --max-noise 0.5, say."
        elif isinstance(error, EnergyUnavailable):
            text += " Here: --watts 45."
        codes = (code for one, code in _CODES.items() if isinstance(error, one))
        return kind, text, next(codes, EXIT_BAD_INPUT)
    if isinstance(error, _UsageError):
        return kind, error.format_message(), EXIT_BAD_INPUT
    cause = _storage_failure(error)
    if cause is None:
        raise error
    text = (
        f"The storage fails: {' '.join(str(cause).split())}. What it holds is kept; once it "
        "answers again, go on by the same command."
    )
    return type(cause).__name__, text, EXIT_FAILED


def _storage_failure(error: BaseException | None) -> BaseException | None:
    """What became of the storage, if that is behind an error, else None."""
    # Where the end of a trial cannot be stored, Optuna trips over that: look at what was before.
    while error is not None and not isinstance(error, (StorageInternalError, SQLAlchemyError)):
        error = error.__context__
    while error is not None and error.__cause__ is not None:
        error = error.__cause__  # The innermost says what happened.
    return error


def _tell(kind: str, style: str, text: str) -> None:
    console = make_console(stderr=True)
    console.print(
        Text.assemble((f"{kind}:", style), f" {text}"),
        # A program that reads it finds it in one line; a person sees whole words.
        soft_wrap=not console.is_terminal,
    )


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell a file or folder that cannot be written by its name.

    Raises:
        NotWritten: It cannot.
    """
    try:
        yield
    except OSError as error:
        raise NotWritten(
            f"Cannot write {error.filename or path}: {error.strerror}. Name a place of your own "
            "by --output."
        ) from None


def make_room(*files: Path) -> None:
    """Make the folder of files, and find out whether they can be written, without touching any.

    Raises:
        NotWritten: One cannot.
    """
    for path in files:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            check_writable(path)


def cores() -> int:
    """Return how many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def ends_as_interrupts() -> Iterator[None]:
    """Let what ends a process otherwise, from a scheduler or a closing terminal, act as Ctrl-C.

    Whatever is under way is then kept, and others are told.
    """

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

    last = -math.inf

    def interrupt(_: int, frame: FrameType | None) -> None:
        nonlocal last
        # Ending takes its time, and one that was lost, as in a finalizer, may come again.
        before, last = last, time.monotonic()
        if last - before > _GRACE:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def integers(text: str | None, option: str) -> tuple[int, ...] | None:
    """Read ``1-6`` or ``1,2,4`` or both mixed; None stays None.

    Raises:
        InvalidSpace: It is something else.
    """
    if text is None:
        return None
    result: list[int] = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        try:
            values = range(int(low), int(high if dash else low) + 1)
        except ValueError:
            raise InvalidSpace(
                f"{option} {text!r} is no list of integers; write it like 1-6 or 4,8,16."
            ) from None
        if len(result) + len(values[:_MOST_INTEGERS]) >= _MOST_INTEGERS:
            raise InvalidSpace(
                f"{option} {text!r} is too many; give fewer than {_MOST_INTEGERS} integers."
            )
        if not values:
            raise InvalidSpace(f"{option} {text!r} counts down; write it like 1-6 or 4,8,16.")
        result += values
    return tuple(result)


def sizes(text: str) -> tuple[int, ...]:
    """Read ``3x32x32``."""
    try:
        return tuple(int(size) for size in text.split("x"))
    except ValueError:
        raise InvalidSpace(
            f"--input-shape {text!r} is no shape of one input; write it like 3x32x32."
        ) from None


def choose(registry: Mapping[str, _T], name: str, kind: str) -> _T:
    """Look a name up.

    Raises:
        InvalidProblem: It is unknown.
    """
    if name not in registry:
        raise InvalidProblem(f"Unknown {kind} {name!r}. Known are {', '.join(sorted(registry))}.")
    return registry[name]
