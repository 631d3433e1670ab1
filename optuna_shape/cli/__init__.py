"""The command line, ``optuna-shape``."""

from __future__ import annotations

import typer

from optuna_shape.cli._common import EXIT_BAD_INPUT
from optuna_shape.cli._common import EXIT_FAILED
from optuna_shape.cli._common import EXIT_INTERRUPTED
from optuna_shape.cli._common import EXIT_NO_ANSWER
from optuna_shape.cli._common import EXIT_NOT_VERIFIED
from optuna_shape.cli._common import quiet
from optuna_shape.cli._compress import compress
from optuna_shape.cli._dashboard import dashboard
from optuna_shape.cli._export import export
from optuna_shape.cli._families import families
from optuna_shape.cli._measure import measure
from optuna_shape.cli._report import report
from optuna_shape.cli._search import search

__all__ = [
    "EXIT_BAD_INPUT",
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "EXIT_NOT_VERIFIED",
    "EXIT_NO_ANSWER",
    "app",
    "main",
]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


@app.callback()
def _root() -> None:
    """Find the depth and width of a neural network that fits a device."""
    quiet()


for _command in (search, measure, report, dashboard, export, compress, families):
    app.command()(_command)


def main() -> None:
    """Entry point of the ``optuna-shape`` command."""
    app()
