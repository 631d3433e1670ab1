"""The command line, ``optuna-shape``."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from optuna_shape.cli._common import EXIT_BAD_INPUT
from optuna_shape.cli._common import EXIT_FAILED
from optuna_shape.cli._common import EXIT_INTERRUPTED
from optuna_shape.cli._common import EXIT_NO_ANSWER
from optuna_shape.cli._common import EXIT_NOT_VERIFIED
from optuna_shape.cli._common import EXIT_TOO_NOISY
from optuna_shape.cli._common import errors_in_a_line
from optuna_shape.cli._common import quiet
from optuna_shape.cli._common import say_json
from optuna_shape.cli._compress import compress
from optuna_shape.cli._dashboard import dashboard
from optuna_shape.cli._export import export
from optuna_shape.cli._families import families
from optuna_shape.cli._measure import measure
from optuna_shape.cli._report import report
from optuna_shape.cli._search import search
from optuna_shape.errors import InvalidProblem

__all__ = [
    "EXIT_BAD_INPUT",
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "EXIT_NOT_VERIFIED",
    "EXIT_NO_ANSWER",
    "EXIT_TOO_NOISY",
    "app",
    "main",
]

_CODES = (
    "Exit codes: 0 done, 1 the storage or all workers failed, 2 bad input, 3 no shape fits, 4 an "
    "exported or packed network is not the one that was trained, 5 the machine is too busy to be "
    "measured on, 130 interrupted."
)


class _Program(TyperGroup):
    """Tells every error in one way, whoever finds it."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        as_json = "--json" in given
        with errors_in_a_line(as_json=as_json):
            for before, text in zip(["optuna-shape", *given], given):
                if not text or re.fullmatch(r"--[\w-]+=", text):
                    raise InvalidProblem(
                        f"{text[:-1] or before} is followed by nothing. Leave it out, or look at "
                        "the variable that its value should come from."
                    )
            options["standalone_mode"] = False
            try:
                code = super().main(given or ["--help"], *rest, **options)
            except typer.BadParameter as error:
                if value := _value(error, given):
                    error.message = f"{value!r}. {error.message}."
                raise
            except typer.Abort:  # What Ctrl-C becomes in some versions of typer.
                code = EXIT_INTERRUPTED
        if code == EXIT_INTERRUPTED and as_json:
            say_json({"error": {"kind": "Interrupted", "message": "It was interrupted."}})
        sys.exit(code or 0)


def _value(error: Any, given: Sequence[str]) -> str:
    """Return what an option was given, which not every message says."""
    names = () if error.param is None else error.param.opts
    values = [""]
    for before, text in zip(["", *given], given):
        name, equals, value = text.partition("=")
        if before in names or (name in names and equals):
            values.append(text if before in names else value)
    return values[-1]  # The last one counts.


app = typer.Typer(
    cls=_Program,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


@app.callback(epilog=_CODES)
def _root() -> None:
    """Find the depth and width of a neural network that fits a device."""
    quiet()


for _command in (search, measure, report, dashboard, export, compress, families):
    app.command(epilog=_CODES if _command is search else None)(_command)


def main() -> None:
    """Entry point of the ``optuna-shape`` command."""
    app()
