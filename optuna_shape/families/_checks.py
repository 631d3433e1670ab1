"""Checks that all families make of what they are asked for."""

from __future__ import annotations

import operator
from collections.abc import Iterable

from optuna_shape.errors import InvalidSpace


def check_input_shape(input_shape: Iterable[int]) -> tuple[int, ...]:
    """Return the shape of one input as a tuple of positive ints.

    Raises:
        InvalidSpace: It is empty, or holds something that is no positive integer.
    """
    try:
        numbers = tuple(operator.index(n) for n in input_shape)
    except TypeError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise InvalidSpace(
            f"input_shape={input_shape!r} is no shape of one input. "
            "Give positive integers without the batch dimension, for example (3, 32, 32)."
        )
    return numbers


def check_classes(classes: int) -> None:
    """Refuse a number of classes between which nothing could be told apart.

    Raises:
        InvalidSpace: It is no integer of 2 or more.
    """
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
        raise InvalidSpace(f"classes={classes!r} is no number of classes. Give 2 or more.")
