"""Rules of thumb on tables small enough to work out by hand."""

from __future__ import annotations

import math

import limits
import pytest
import replay
from replay import Replay
from replay import Run
from replay import Step
from replay import Task
from test_replay_benchmark import ACCURACY
from test_replay_benchmark import make_table
from test_replay_benchmark import two_by_two

from optuna_shape import Shape

LATENCY = Task("latency", "latency", {}, threshold=0.75)


def nine() -> replay.Table:
    """Every cost is depth times width, accuracy grows with both."""
    shapes = [(d, w) for d in (1, 2, 4) for w in (1, 3, 5)]
    return make_table({shape: [0.5 + 0.01 * shape[0] * shape[1]] * 3 for shape in shapes})


def test_one_training_rules_take_what_they_say() -> None:
    everything = Replay(nine(), ACCURACY, 0)
    assert limits.largest(everything) == [Shape(4, 5)]
    assert limits.depth_scaled(everything) == [Shape(4, 3)]
    limited = Replay(nine(), Task("limited", "accuracy", {"latency": 6e-3}), 0)
    assert limits.largest(limited) == [Shape(2, 3)]
    assert limits.depth_scaled(limited) == [Shape(2, 3)]
    narrow = Replay(nine(), Task("narrow", "accuracy", {"latency": 2e-3}), 0)
    assert limits.depth_scaled(narrow) == [Shape(2, 1)]


def test_cheapest_first_ends_with_the_first_that_reaches() -> None:
    found = limits.cheapest_first(Replay(two_by_two(), LATENCY, 0))
    # (1, 2) and (2, 1) cost the same; 0.8 is enough, 0.7 is not.
    assert found == [Shape(1, 1), Shape(1, 2), Shape(2, 1)]


def test_random_order_spends_a_share_and_no_shape_twice() -> None:
    run = Replay(nine(), ACCURACY, 0)
    for seed in range(20):
        trained = limits.random_order(run, seed, 0.3)
        assert len(set(trained)) == len(trained)
        costs = [s.depth * s.width for s in trained]
        assert sum(costs) >= 0.3 * 63 > sum(costs[:-1])
    assert len(limits.random_order(run, 0, 1.0)) == 9


def test_outcomes_of_ours_are_those_at_its_stop() -> None:
    table = two_by_two()
    steps = [Step(Shape(2, 2), 4, full=True), Step(Shape(1, 1), 4, full=True)]
    run = Run(
        table.name,
        ACCURACY.name,
        replay.UNPRUNED,
        0,
        1.0,
        tuple(steps),
        stop=1,
        kind="certain",
        probabilities=(0.01, 0.01),
        answers=(Shape(2, 2), Shape(1, 1)),
    )
    judged = replay.Judged(run, Replay(table, ACCURACY, 0))
    found = {o.rule: o for o in limits.outcomes([judged])}
    assert set(found) == {"ShapeSampler", "random", "largest", "depth-scaled"}
    assert found["ShapeSampler"].cost == pytest.approx(4 / 9)
    assert found["ShapeSampler"].regret == pytest.approx(0)
    assert found["largest"] == limits.Outcome(
        "made",
        "accuracy",
        "largest",
        pytest.approx(4 / 9),
        pytest.approx(math.nan, nan_ok=True),
        pytest.approx(0),
        good=True,
    )
    assert not limits.outcome(judged.replay, "x", [Shape(1, 1)]).good
    short = Replay(table, LATENCY, 0)
    assert limits.outcome(short, "x", [Shape(1, 1)]).regret == math.inf


def test_figures_are_medians_by_group() -> None:
    regrets = {0.1: 0.0, 0.2: 0.5, 0.4: math.inf}
    made = [
        limits.Outcome("t", "a", "largest", c, 2 * c, r, good=r < 1) for c, r in regrets.items()
    ]
    share, seconds, regret, good = limits.figures(made)
    assert seconds.value == 0.4
    assert (share.part, share.value) == ("t, a, largest", 0.2)
    assert share.low == pytest.approx(0.15)
    assert (regret.value, regret.high) == (0.5, math.inf)
    assert good.value == pytest.approx(2 / 3)
    assert good.detail == "2 of 3"
