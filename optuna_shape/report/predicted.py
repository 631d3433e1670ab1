"""How predictions of the model are told: as accuracies, with an interval."""

from __future__ import annotations

import numpy as np

from optuna_shape.decide._arrays import Floats
from optuna_shape.decide.normal import Normal
from optuna_shape.decide.surrogate import accuracy

#: Intervals of predictions hold the truth with this probability, by the model.
CONFIDENCE = "90 %"
_Z = 1.6449


def accuracy_interval(log_errors: Normal[Floats]) -> tuple[Floats, Floats, Floats]:
    """Accuracies that normal log errors stand for: the median, and the ends of the interval."""
    median, low, high = (
        np.maximum(accuracy(log_errors.mean + z * log_errors.sd), 0.0) for z in (0.0, -_Z, _Z)
    )
    return median, low, high
