from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from optuna_shape.decide.normal import cdf
from optuna_shape.decide.normal import log_improvement


def test_cdf_is_that_of_scipy() -> None:
    z = np.linspace(-30.0, 10.0, 81)
    np.testing.assert_allclose(cdf(z), norm.cdf(z), rtol=1e-12)


@pytest.mark.parametrize("z", [-6.0, -1.001, -1.0, -0.3, 0.0, 2.0, 9.0])
def test_improvement_is_the_integral_that_defines_it(z: float) -> None:
    integral, _ = quad(lambda t: t * norm.pdf(t - z), 0.0, max(z, 0.0) + 12.0)
    assert np.exp(log_improvement(np.array([z])))[0] == pytest.approx(integral, rel=1e-8)


def test_improvement_rises_without_jumps_however_small_it_is() -> None:
    z = np.concatenate([-np.geomspace(1e8, 0.5, 4001), np.linspace(-0.499, 50.0, 1001)])
    values = log_improvement(z)
    assert np.isfinite(values).all()
    assert (np.diff(values) > 0).all()
    for joint in (-1.0, -1e4):
        below, above = log_improvement(joint + np.array([-1e-9, 1e-9]) * abs(joint))
        assert below == pytest.approx(above, rel=1e-7)


def test_functions_take_any_shape() -> None:
    for shape in ((), (0,), (2, 3)):
        assert cdf(np.zeros(shape)).shape == shape
        assert log_improvement(np.zeros(shape)).shape == shape
