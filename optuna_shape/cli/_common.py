"""What the commands have in common: options, how they are read, and how errors are told."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import time
import warnings
from collections.abc import Iterator
from collections.abc import Mapping
from types import FrameType
from typing import Annotated
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
from optuna_shape.families import FAMILIES

_T = TypeVar("_T")

# More depths or widths than any search could measure, and no slip of the pen fills the memory.
_MOST_INTEGERS = 10_000

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_NO_ANSWER = 3
EXIT_NOT_VERIFIED = 4
EXIT_INTERRUPTED = 130

# Seconds in which further signals to end say nothing new.
_GRACE = 5.0

# Headings of the help, under which options stand.
NETWORKS, QUESTION, TRAINING = "Networks", "Question", "Training"
DEVICE, WORKERS, KEPT, SAID = "Device", "Workers and length", "What is kept", "What is said"

Family = Annotated[
    str,
    typer.Option(
        help=f"Networks to choose from: {', '.join(FAMILIES)}, or a function of your own as "
        "module:function. `optuna-shape families` says more.",
        rich_help_panel=NETWORKS,
    ),
]
FamilyOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="An option of the family, may be repeated: variant=bottleneck.",
        show_default=False,
        rich_help_panel=NETWORKS,
    ),
]
OwnFunction = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FUNCTION",
        help="Of a network of your own: the function that the search was given.",
        show_default=False,
    ),
]
Depth = Annotated[
    str | None,
    typer.Option(
        help="Depths, such as 1-6 or 1,2,4; by default those of the family.",
        show_default=False,
        rich_help_panel=NETWORKS,
    ),
]
Width = Annotated[
    str | None,
    typer.Option(
        help="Widths, such as 8-12 or 8,16; by default those of the family.",
        show_default=False,
        rich_help_panel=NETWORKS,
    ),
]
Device = Annotated[
    str,
    typer.Option(help="Measure and train on: auto, cpu, cuda or cuda:1.", rich_help_panel=DEVICE),
]
BatchSize = Annotated[
    int,
    typer.Option(
        min=1,
        help="Inputs per call whose latency and energy are measured.",
        rich_help_panel=DEVICE,
    ),
]
Threads = Annotated[
    int,
    typer.Option(min=1, help="CPU threads, of measuring and of training.", rich_help_panel=DEVICE),
]
MaxNoise = Annotated[
    float,
    typer.Option(
        help="How much this machine's pace may vary, as a share, to be measured on.",
        rich_help_panel=DEVICE,
    ),
]
Watts = Annotated[
    float | None,
    typer.Option(
        help="Power of the device under load. Energy is then no measurement, but an estimate of "
        "watts x latency.",
        show_default=False,
        rich_help_panel=DEVICE,
    ),
]
LIMITS = (
    "A limit, may be repeated: 'latency <= 2 ms', 'size <= 500 kB', 'energy <= 40 mJ', "
    "'latency <= 60 % of (9, 16)'"
)


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


@contextlib.contextmanager
def errors_in_a_line(console: Console) -> Iterator[None]:
    """What a user can mend is said in one line; anything else keeps its traceback.

    Raises:
        typer.Exit: Something was said.
    """
    try:
        yield
    except ShapeError as error:
        hint = ""
        if isinstance(error, NoisyMachine) and "max_noise" in str(error):
            hint = " Here: --max-noise 0.5, say."
        elif isinstance(error, EnergyUnavailable):
            hint = " Here: --watts 45."
        _print_error(console, error, f"{error}{hint}")
        no_answer = isinstance(error, NoisyMachine | NoFeasibleShape)
        raise typer.Exit(EXIT_NO_ANSWER if no_answer else EXIT_BAD_INPUT) from None
    except Exception as error:
        cause = _storage_failure(error)
        if cause is None:
            raise
        text = (
            f"The storage fails: {' '.join(str(cause).split())}. What it holds is kept; once it "
            "answers again, go on by the same command."
        )
        _print_error(console, cause, text)
        raise typer.Exit(EXIT_FAILED) from None


def _storage_failure(error: BaseException | None) -> BaseException | None:
    """What became of the storage, if that is behind an error, else None."""
    # Where the end of a trial cannot be stored, Optuna trips over that: look at what was before.
    while error is not None and not isinstance(error, (StorageInternalError, SQLAlchemyError)):
        error = error.__context__
    while error is not None and error.__cause__ is not None:
        error = error.__cause__  # The innermost says what happened.
    return error


def _print_error(console: Console, error: BaseException, text: str) -> None:
    console.print(
        Text.assemble((f"{type(error).__name__}:", "red"), f" {text}"),
        # A program that reads it finds it in one line; a person sees whole words.
        soft_wrap=not console.is_terminal,
    )


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
