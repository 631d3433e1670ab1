from __future__ import annotations

import math

import numpy as np
import pytest

from optuna_shape.errors import InvalidProblem
from optuna_shape.measure.repeat import spread
from optuna_shape.space import Shape

A, B = Shape(1, 8), Shape(2, 8)


def test_deviations_are_from_the_median_of_each_shape() -> None:
    # Deviations: 0.1, 0, 0.1 and 0.2, 0, 0.4, whatever the level of the shape.
    result = spread({A: [0.9, 1.0, 1.1], B: [80.0, 100.0, 140.0]})
    assert result.median == pytest.approx(0.1)
    assert result.ninetieth == pytest.approx(0.3)
    assert result.largest == pytest.approx(0.4)


def test_sigma_of_two_sessions_in_closed_form() -> None:
    result = spread({A: [1.0, math.exp(0.1)], B: [math.exp(0.1), 1.0]})
    assert result.sigma == pytest.approx(1.4826 * 0.1 / math.sqrt(2))
    assert result.guard == pytest.approx(2 * result.sigma)


@pytest.mark.parametrize("sessions", [2, 3, 7])
def test_sigma_does_not_depend_on_the_number_of_sessions(sessions: int) -> None:
    rng = np.random.default_rng(0)
    values = np.exp(0.05 * rng.standard_normal((4000, sessions)))
    result = spread({Shape(i + 1, 8): list(row) for i, row in enumerate(values)})
    assert result.sigma == pytest.approx(0.05, rel=0.05)


def test_sessions_that_agree_leave_the_least_guard() -> None:
    result = spread({A: [1.0, 1.0]})
    assert (result.largest, result.sigma, result.guard) == (0.0, 0.0, 0.02)


def test_no_guard_allows_for_sessions_that_are_far_apart() -> None:
    assert spread({A: [1.0, 1.5]}).guard is not None
    assert spread({A: [1.0, 3.0]}).guard is None


@pytest.mark.parametrize("values", [[1.0], [], [1.0, math.inf], [1.0, 0.0], [1.0, math.nan]])
def test_what_cannot_be_compared_is_named(values: list[float]) -> None:
    with pytest.raises(InvalidProblem, match=r"sessions of shape \(2, 8\)"):
        spread({A: [1.0, 1.0], B: values})


def test_no_shapes_have_no_spread() -> None:
    with pytest.raises(InvalidProblem, match="no shape"):
        spread({})
