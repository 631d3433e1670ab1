from __future__ import annotations

import numpy as np
import pytest
from decide_examples import grid
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from scipy.stats import norm

from optuna_shape.decide.curves import combine
from optuna_shape.decide.curves import curve_jitter
from optuna_shape.decide.curves import predict_final
from optuna_shape.decide.curves import probability_reaches
from optuna_shape.decide.curves import replay
from optuna_shape.decide.normal import Normal
from optuna_shape.decide.surrogate import fit_with_errors


def trainings(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, log errors at a third of training, and finals: a gap that grows with depth."""
    rng = np.random.default_rng(seed)
    points = grid(5, 6)[rng.permutation(30)[:count]]
    luck = 0.05 * rng.standard_normal(count)
    finals = 1.0 + points[:, 1] + luck
    gap = 0.3 + 0.2 * points[:, 0]
    return points, finals - gap + 0.02 * rng.standard_normal(count), finals


def test_predicts_by_the_gap_and_not_by_the_level() -> None:
    points, now, finals = trainings(10)
    point = np.array([0.5, 0.5])
    for value in (0.2, 1.0):
        prediction = predict_final(points, now, finals, point, value)
        assert prediction is not None
        assert prediction.mean == pytest.approx(value + 0.4, abs=0.04)
        assert isinstance(prediction.mean, float)
        assert isinstance(prediction.sd, float)


def test_is_the_gap_model_plus_the_repeat_noise_of_a_gap() -> None:
    points, now, finals = trainings(8)
    point, value = np.array([0.3, 0.9]), 1.1
    errors = np.sqrt(np.exp(-now) * np.exp(-finals))
    model = fit_with_errors(points, finals - now, errors, np.zeros(8), seed=4)
    gap, latent = model.predict(point[None]).marginal()
    final = value + gap[0]
    members = model._gp.members
    relative = np.exp(-(value + final) / 2) / errors.min()
    noise = model.weights @ (members.repeat_noise * relative**members.noise_growth).numpy() ** 2
    prediction = predict_final(points, now, finals, point, value, seed=4)
    assert prediction == pytest.approx((final, np.sqrt(latent[0] ** 2 + noise)), rel=1e-9)


def test_is_honest() -> None:
    z = []
    for seed in range(25):
        points, now, finals = trainings(9, seed)
        prediction = predict_final(points[1:], now[1:], finals[1:], points[0], float(now[0]))
        assert prediction is not None
        z.append((finals[0] - prediction.mean) / prediction.sd)
    assert abs(np.mean(z)) < 0.5
    assert 0.4 < np.std(z) < 1.5


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_curves_predict_nothing(count: int) -> None:
    assert predict_final(*trainings(count), np.array([0.5, 0.5]), 1.0) is None


def test_few_curves_predict_vaguely() -> None:
    points, now, finals = trainings(20)
    point = np.array([1.0, 1.0])
    vague = predict_final(points[:3], now[:3], finals[:3], point, 1.5)
    sharp = predict_final(points, now, finals, point, 1.5)
    assert vague is not None
    assert sharp is not None
    assert vague.sd > 1.5 * sharp.sd


def test_order_of_curves_does_not_matter() -> None:
    points, now, finals = trainings(9)
    order = np.random.default_rng(1).permutation(9)
    point = np.array([0.2, 0.7])
    assert predict_final(points, now, finals, point, 1.0) == predict_final(
        points[order], now[order], finals[order], point, 1.0
    )


@pytest.mark.parametrize("finals", [np.zeros(4), np.full(4, 9.21), np.array([0, 9.21, 0, 9.21])])
def test_extreme_curves_give_finite_predictions(finals: np.ndarray) -> None:
    points = grid(2, 2)
    prediction = predict_final(points, np.zeros(4), finals, points[0], 0.0)
    assert prediction is not None
    assert np.isfinite(prediction).all()


@settings(deadline=None)
@given(st.floats(-5, 5), st.floats(0.01, 3), st.floats(-5, 5), st.floats(0, 5))
def test_probability_of_reaching(mean: float, sd: float, target: float, more: float) -> None:
    stated = probability_reaches(Normal(mean, sd), target)
    assert stated == pytest.approx(norm.sf(target, mean, sd), abs=1e-12)
    assert probability_reaches(Normal(mean, sd), target + more) <= stated


def test_replay_spares_the_winners_of_well_behaved_curves() -> None:
    points, now, finals = trainings(12)
    assert replay(points, now[:, None], finals, float(np.max(finals)), delta=0.05) == 0.0


def test_replay_finds_the_winner_that_starts_slowly() -> None:
    points, now, finals = trainings(12)
    winner = int(np.argmax(finals))
    now[winner] -= 1.5
    target = float(finals[winner])
    early_and_late = np.column_stack([now, finals - 0.01])
    assert replay(points, early_and_late, finals, target, delta=0.05) == 1.0


def test_replay_judges_each_by_all_others() -> None:
    """Against refits without the curve, where hyper-parameters matter little."""
    points, now, finals = trainings(14)
    target = float(np.quantile(finals, 0.4))
    good = np.flatnonzero(finals >= target)
    cut = []
    for i in good:
        rest = np.arange(14) != i
        prediction = predict_final(points[rest], now[rest], finals[rest], points[i], float(now[i]))
        assert prediction is not None
        cut.append(probability_reaches(prediction, target) < 0.4)
    share = replay(points, now[:, None], finals, target, delta=0.4)
    assert share == pytest.approx(np.mean(cut), abs=0.15)


def test_replay_without_anything_to_judge() -> None:
    points, now, finals = trainings(6)
    assert replay(points, now[:, None], finals, 99.0, delta=0.05) == 0.0
    assert replay(points[:3], now[:3, None], finals[:3], 0.0, delta=0.05) == 0.0


def test_jitter_of_noisy_lines_is_their_noise() -> None:
    rng = np.random.default_rng(0)
    lines = np.linspace(0.5, 1.5, 8) + rng.uniform(0, 1, (4000, 1))
    noisy = lines + 0.03 * rng.standard_normal(lines.shape)
    assert curve_jitter(noisy) == pytest.approx(0.03, rel=0.05)
    assert curve_jitter(lines) == pytest.approx(0.0, abs=1e-12)
    assert curve_jitter(lines[:, :2]) == np.inf


def test_jitter_makes_predictions_careful() -> None:
    points, now, finals = trainings(10)
    point = np.array([0.5, 0.5])
    calm = predict_final(points, now, finals, point, 1.0)
    jittery = predict_final(points, now, finals, point, 1.0, jitter=0.2)
    assert calm is not None
    assert jittery is not None
    assert jittery.sd > max(0.2, 2 * calm.sd)


def test_combining_equals_the_product_of_densities() -> None:
    first, second = Normal(1.0, 0.2), Normal(1.6, 0.4)
    both = combine(first, second)
    x = np.linspace(-1, 4, 20001)
    density = norm.pdf(x, *first) * norm.pdf(x, *second)
    density /= density.sum()
    mean = float((x * density).sum())
    assert both.mean == pytest.approx(mean)
    assert both.sd == pytest.approx(float(np.sqrt((density * (x - mean) ** 2).sum())), rel=1e-4)
