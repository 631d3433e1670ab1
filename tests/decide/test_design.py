from __future__ import annotations

import numpy as np
import pytest
from decide_examples import grid

from optuna_shape.decide.design import initial_design
from optuna_shape.decide.design import spread


def test_first_is_the_cheapest_and_then_distance_counts() -> None:
    points = np.array([[0.0, 0.0], [0.1, 0.0], [1.0, 0.0], [1.0, 1.0]])
    assert initial_design(points, np.array([1.0, 1.0, 1.0, 1.0]), 3).tolist() == [0, 3, 2]
    # sqrt(2) / sqrt(4) is less than 1 / sqrt(1): the far corner is too dear now.
    assert initial_design(points, np.array([1.0, 1.0, 1.0, 4.0]), 3).tolist() == [0, 2, 3]
    assert initial_design(points, np.array([3.0, 2.0, 2.0, 2.0]), 1).tolist() == [1]


def test_brute_force_maximin() -> None:
    rng = np.random.default_rng(0)
    points, costs = rng.random((30, 2)), rng.uniform(1, 50, 30)
    chosen = initial_design(points, costs, 6, exponent=0.7)
    assert chosen[0] == np.argmin(costs)
    for step in range(1, 6):
        before = points[chosen[:step]]
        distance = np.linalg.norm(points[:, None] - before[None], axis=-1).min(axis=1)
        distance[chosen[:step]] = -1.0
        assert chosen[step] == np.argmax(distance / costs**0.7)


def test_ties_go_to_the_lower_cost_then_index() -> None:
    points = np.array([[0.5, 0.5], [0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    costs = np.array([1.0, 2.0, 2.0, 2.0, 2.0])
    assert initial_design(points, costs, 5).tolist() == [0, 1, 2, 3, 4]
    assert initial_design(points, np.array([1, 3, 2, 3, 3.0]), 2, exponent=0).tolist() == [0, 2]


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e9])
def test_unit_of_cost_does_not_matter(unit: float) -> None:
    points = grid(6, 6)
    costs = np.exp(4 * points.sum(axis=1))
    np.testing.assert_array_equal(
        initial_design(points, costs), initial_design(points, unit * costs)
    )


def test_small_spaces_are_taken_whole() -> None:
    assert sorted(initial_design(grid(1, 3), np.ones(3), 5).tolist()) == [0, 1, 2]
    assert initial_design(np.empty((0, 2)), np.empty(0), 5).tolist() == []
    same = np.zeros((3, 2))
    assert initial_design(same, np.array([2.0, 3.0, 1.0]), 3).tolist() == [2, 0, 1]


def test_spread_takes_corners() -> None:
    points = grid(9, 9)
    assert set(spread(points, 4).tolist()) == {0, 8, 72, 80}
