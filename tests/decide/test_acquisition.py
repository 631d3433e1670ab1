from __future__ import annotations

import numpy as np
import pytest
from decide_examples import grid
from decide_examples import small_search
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from optuna_shape.decide.acquisition import cost_improvement
from optuna_shape.decide.acquisition import expected_improvement
from optuna_shape.decide.acquisition import replicate_candidates
from optuna_shape.decide.surrogate import fit
from optuna_shape.decide.surrogate import log_error


def test_expected_improvement_is_the_integral_over_the_mixture() -> None:
    example = small_search()
    posterior, incumbent = example.posterior, float(example.log_errors.max())
    scores = expected_improvement(posterior, incumbent, example.costs)
    for i in (0, 7, 13, 19):

        def density(y: float, i: int = i) -> float:
            return float(posterior.weights @ norm.pdf(y, posterior.mean[:, i], posterior.sd[:, i]))

        top = float((posterior.mean[:, i] + 10 * posterior.sd[:, i]).max())
        integral, _ = quad(
            lambda y: (y - incumbent) * density(y), incumbent, max(top, incumbent), limit=400
        )
        if integral > 1e-8:
            expected = np.log(integral) - 0.5 * np.log(example.costs[i])
            assert scores[i] == pytest.approx(expected, rel=1e-4)


def test_expected_improvement_stays_finite_for_the_hopeless() -> None:
    example = small_search()
    scores = expected_improvement(example.posterior, 1e4, example.costs)
    assert np.isfinite(scores).all()


def test_cost_weighs_by_its_root() -> None:
    example = small_search()
    plain = expected_improvement(example.posterior, 1.5, np.ones(20))
    dear = expected_improvement(example.posterior, 1.5, np.full(20, 16.0))
    np.testing.assert_allclose(plain - dear, np.log(4.0))


@settings(max_examples=25, deadline=None)
@given(st.floats(0.0, 5.0), st.floats(0.0, 5.0))
def test_expected_improvement_falls_with_the_incumbent(one: float, other: float) -> None:
    example = small_search()
    low, high = sorted([one, other])
    below = expected_improvement(example.posterior, low, example.costs)
    above = expected_improvement(example.posterior, high, example.costs)
    assert (above <= below + 1e-9).all()


def test_cost_improvement_is_saving_times_probability() -> None:
    example = small_search()
    goal_costs = np.linspace(1.0, 20.0, 20)
    scores = cost_improvement(example.posterior, 1.6, goal_costs, 9.0, example.costs)
    reached = example.posterior.probability_above(1.6)
    saving = 9.0 - goal_costs
    assert (scores[saving <= 0] == -np.inf).all()
    np.testing.assert_allclose(
        np.exp(scores[saving > 0]),
        (saving * reached / np.sqrt(example.costs))[saving > 0],
        rtol=1e-9,
        atol=1e-300,
    )


@pytest.mark.parametrize("goal_costs", [np.ones(20), np.linspace(1.0, 3.0, 20)])
def test_every_shape_is_allowed_until_one_reaches(goal_costs: np.ndarray) -> None:
    example = small_search()
    for threshold in (1.6, 1e6):
        scores = cost_improvement(example.posterior, threshold, goal_costs, None, example.costs)
        assert np.isfinite(scores).all()


def test_single_shape_gets_a_score() -> None:
    posterior = fit(np.empty((0, 2)), np.empty(0), seed=0).predict(np.zeros((1, 2)))
    assert np.isfinite(cost_improvement(posterior, 2.0, np.ones(1), None, np.ones(1))).all()
    assert np.isfinite(expected_improvement(posterior, 2.0, np.ones(1))).all()


def test_replicates_where_in_doubt_and_worth_it() -> None:
    points = grid(1, 5)
    threshold = float(log_error(0.9))
    # The middle three measured so close to the threshold that luck decides.
    seen = log_error([0.7, 0.8999, 0.9001, 0.899, 0.97])
    trained, goal_costs = np.arange(5), np.array([1.0, 3.0, 2.0, 9.0, 4.0])
    posterior = fit(points, seen, np.full(5, 1e-4), seed=0).predict(points)
    assert replicate_candidates(posterior, threshold, trained, goal_costs, None).tolist() == [
        2,
        1,
        3,
    ]
    # The incumbent (cost 2) is in doubt itself; dearer shapes could not win.
    assert replicate_candidates(posterior, threshold, trained, goal_costs, 2.0).tolist() == [2]
    assert replicate_candidates(posterior, threshold, np.array([0, 4]), goal_costs, None).size == 0
    assert replicate_candidates(posterior, threshold, np.array([]), goal_costs, None).size == 0
