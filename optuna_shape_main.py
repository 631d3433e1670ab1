"""Where the ``optuna-shape`` command begins."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, and end quietly on Ctrl-C also while it is being loaded.

    It stands beside the package, since whatever is in there loads torch first.
    """
    try:
        from optuna_shape.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
