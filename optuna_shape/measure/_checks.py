"""Checks of what a user passes."""

from __future__ import annotations

import numbers
from typing import TypeGuard


def is_positive(value: object) -> TypeGuard[float]:
    """Return whether this is a real number above 0 that fits into a float, and no bool."""
    try:
        return isinstance(value, numbers.Real) and not isinstance(value, bool) and float(value) > 0
    except OverflowError:
        return False


def is_count(value: object) -> bool:
    """Return whether this is a whole number above 0."""
    return isinstance(value, numbers.Integral) and is_positive(value)
