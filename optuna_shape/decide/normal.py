"""Normal distributions, and functions of the standard one, on arrays.

torch is imported inside them: it takes seconds, and ``import optuna_shape`` should not.
"""

from __future__ import annotations

import math
from typing import Generic
from typing import NamedTuple
from typing import TypeVar

import numpy as np

from optuna_shape.decide._arrays import Floats

T = TypeVar("T", float, Floats)

_LOG_SQRT_TWO_PI = 0.5 * math.log(2.0 * math.pi)


class Normal(NamedTuple, Generic[T]):
    """A normal distribution, or an array of them.

    Attributes:
        mean: The mean.
        sd: The standard deviation, positive.
    """

    mean: T
    sd: T


def cdf(z: Floats) -> Floats:
    r""":math:`\Phi(z)`, the probability of a smaller value."""
    import torch

    # torch.special.ndtr loses all digits below -8; the complementary error function keeps them.
    scaled = torch.from_numpy(_floats(-z / math.sqrt(2.0)))
    return _floats(0.5 * torch.erfc(scaled).numpy())


def log_improvement(z: Floats) -> Floats:
    r""":math:`\log(\varphi(z) + z \, \Phi(z))`, finite for every finite ``z``.

    With :math:`\mathrm{erfcx}(t) = e^{t^2} \mathrm{erfc}(t)`, for negative ``z``,

    .. math::
        \log \varphi(z)
        + \log\Bigl(1 - \sqrt{\tfrac{\pi}{2}} \, |z| \, \mathrm{erfcx}(|z| / \sqrt2)\Bigr)

    whose second term cancels for very negative ``z`` and then is :math:`-2 \log |z|`
    (Ament et al. 2023, "Unexpected Improvements to Expected Improvement").
    """
    import torch

    z = _floats(z)
    log_density = -0.5 * z**2 - _LOG_SQRT_TWO_PI
    above = np.maximum(z, -1.0)
    direct = np.log(np.exp(-0.5 * above**2 - _LOG_SQRT_TWO_PI) + above * cdf(above))
    size = np.clip(-z, 1.0, 1e4)
    scaled = torch.special.erfcx(torch.from_numpy(_floats(size / math.sqrt(2.0)))).numpy()
    below = log_density + np.log1p(-math.sqrt(0.5 * math.pi) * size * scaled)
    far = log_density - 2.0 * np.log(np.maximum(-z, 1.0))
    return np.where(z > -1.0, direct, np.where(z > -1e4, below, far))


def _floats(values: Floats) -> Floats:
    return np.asarray(values, dtype=np.float64, order="C")
