from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from optuna_shape.measure.sequential import confidence_sequence
from optuna_shape.measure.sequential import fewest
from optuna_shape.measure.sequential import log_evidence

levels = st.sampled_from([0.1, 0.5, 0.9])
alphas = st.sampled_from([0.2, 0.05, 0.01])


@pytest.mark.parametrize(("alpha", "n"), [(0.05, 7), (0.01, 9), (0.001, 13)])
def test_samples_on_one_side_decide_as_soon_as_published(alpha: float, n: int) -> None:
    assert fewest(0.5, alpha) == n
    assert confidence_sequence([2.0] * (n - 1), alpha=alpha) == (0.0, math.inf)
    assert confidence_sequence([2.0] * n, alpha=alpha) == (2.0, 2.0)


@pytest.mark.parametrize(("quantile", "n"), [(0.9, 62), (0.1, 62), (0.99, 644)])
def test_tails_need_more_samples(quantile: float, n: int) -> None:
    assert fewest(quantile, 0.01) == n
    low, high = confidence_sequence([2.0] * n, quantile)
    assert (low, high) == (2.0, 2.0)


def test_no_samples_say_nothing() -> None:
    assert confidence_sequence([]) == (0.0, math.inf)


@pytest.mark.parametrize(("k", "n", "p"), [(0, 1, 0.5), (3, 4, 0.5), (9, 9, 0.9), (12, 20, 0.3)])
def test_evidence_is_the_mixture_of_likelihood_ratios(k: int, n: int, p: float) -> None:
    integral, _ = quad(lambda t: (t / p) ** k * ((1 - t) / (1 - p)) ** (n - k), p, 1)
    assert float(log_evidence(k, n, p)) == pytest.approx(math.log(integral / (1 - p)))


def test_evidence_in_closed_form() -> None:
    # All hits against 1/2: 2 * integral of (2 t)^n from 1/2 to 1.
    for n in (1, 5, 9):
        expected = math.log((2 ** (n + 1) - 1) / (n + 1))
        assert float(log_evidence(n, n, 0.5)) == pytest.approx(expected)


def test_evidence_is_fair() -> None:
    # Under the boundary of the hypothesis the expected evidence is 1 for every n.
    for p in (0.1, 0.5, 0.9):
        for n in (1, 6, 25):
            k = np.arange(n + 1)
            weight = np.array([math.comb(n, int(i)) * p**i * (1 - p) ** (n - i) for i in k])
            assert float(weight @ np.exp(log_evidence(k, n, p))) == pytest.approx(1.0)


@given(
    samples=st.lists(st.integers(1, 12).map(float), max_size=90),
    bound=st.integers(0, 13).map(float),
    quantile=levels,
    alpha=alphas,
)
def test_interval_is_the_set_of_bounds_that_neither_test_rejects(
    samples: list[float], bound: float, quantile: float, alpha: float
) -> None:
    n, inside = len(samples), sum(x <= bound for x in samples)
    is_within = float(log_evidence(inside, n, quantile)) >= -math.log(alpha)
    is_over = float(log_evidence(n - inside, n, 1 - quantile)) >= -math.log(alpha)
    low, high = confidence_sequence(samples, quantile, alpha)
    assert (high <= bound) == is_within
    assert (low > bound) == is_over


@given(samples=st.lists(st.floats(1e-6, 10), max_size=120), quantile=levels, alpha=alphas)
def test_interval_holds_the_quantile_of_the_samples(
    samples: list[float], quantile: float, alpha: float
) -> None:
    low, high = confidence_sequence(samples, quantile, alpha)
    assert low <= high
    if samples:
        assert low <= np.quantile(samples, quantile) * (1 + 1e-12)
        assert high >= np.quantile(samples, quantile) * (1 - 1e-12)


@pytest.mark.parametrize("quantile", [0.5, 0.9])
def test_looking_after_every_sample_errs_no_more_often_than_promised(quantile: float) -> None:
    """Latencies with a heavy tail; the true quantile is looked for after each of 150 samples."""
    alpha, runs, longest = 0.05, 300, 150
    rng = np.random.default_rng(0)
    truth = math.exp(0.2 * _normal_quantile(quantile))
    wrong_low = wrong_high = 0
    for _ in range(runs):
        samples = np.exp(0.2 * rng.standard_normal(longest)).tolist()
        bounds = [confidence_sequence(samples[:n], quantile, alpha) for n in range(longest)]
        wrong_low += any(low > truth for low, _ in bounds)
        wrong_high += any(high < truth for _, high in bounds)
    tolerated = runs * alpha + 3 * math.sqrt(runs * alpha)
    assert wrong_low <= tolerated
    assert wrong_high <= tolerated


def test_looking_at_an_ordinary_interval_errs_far_more_often() -> None:
    """Why the sequence is needed: the same game with a fixed-sample interval of the median."""
    alpha, runs, longest = 0.05, 300, 150
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(runs):
        over = np.cumsum(rng.random(longest) > 0.5)
        n = np.arange(1, longest + 1)
        z = (over - n / 2) / np.sqrt(n / 4)
        wrong += bool((z[8:] > 1.645).any())
    assert wrong > 4 * runs * alpha


def test_more_samples_narrow_the_interval() -> None:
    rng = np.random.default_rng(1)
    samples = (1 + 0.05 * rng.standard_normal(2000)).tolist()
    widths = []
    for n in (10, 50, 300, 2000):
        low, high = confidence_sequence(samples[:n])
        assert low <= 1 <= high
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.015


def _normal_quantile(p: float) -> float:
    return {0.5: 0.0, 0.9: 1.2815515655446004}[p]
