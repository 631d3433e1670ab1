from __future__ import annotations

import signal
from collections.abc import Callable
from collections.abc import Iterator

import optuna
import pytest
from problems import table

from optuna_shape import DesignSpace
from optuna_shape import ShapeProblem

# Where a shell runs the tests in the background, they ignore Ctrl-C, and so would all they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


@pytest.fixture
def make_problem() -> Callable[..., ShapeProblem]:
    """A problem over a small grid, properties from a table."""

    def make(
        goal: str = "accuracy",
        constraints: tuple[str, ...] = (),
        *,
        depth: object = range(1, 7),
        width: object = (4, 8, 12, 16, 24),
        **options: object,
    ) -> ShapeProblem:
        space = DesignSpace(depth, width)  # type: ignore[arg-type]
        options.setdefault("meter", table(space))
        options.setdefault("training_cost", lambda shape: shape.depth * shape.width**2)
        return ShapeProblem(space, goal, constraints, **options)  # type: ignore[arg-type]

    return make
