"""Checks that all families make of what they are asked for."""

from __future__ import annotations

import operator
from collections.abc import Collection
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


def check_image(input_shape: Iterable[int], smallest: int, network: str) -> tuple[int, ...]:
    """Return the shape ``(channels, height, width)`` of an image as a tuple of positive ints.

    Args:
        input_shape: What was asked for.
        smallest: Pixels that the network needs along either side.
        network: What the message calls the network, with its article.

    Raises:
        InvalidSpace: It has other than three dimensions, or fewer pixels.
    """
    numbers = check_input_shape(input_shape)
    if len(numbers) != 3 or min(numbers[1:]) < smallest:
        raise InvalidSpace(
            f"input_shape={numbers} is no image for {network}. "
            f"Give (channels, height, width) with height and width of {smallest} or more."
        )
    return numbers


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Refuse a value that is none of the choices.

    Raises:
        InvalidSpace: It is none of them.
    """
    if value not in choices:
        raise InvalidSpace(f"{name}={value!r} is unknown. Choose one of {tuple(choices)}.")


def check_flag(name: str, value: object) -> None:
    """Refuse what is neither True nor False.

    Raises:
        InvalidSpace: It is something else.
    """
    if not isinstance(value, bool):
        raise InvalidSpace(f"{name}={value!r} is neither True nor False. Give one of them.")


def check_positive(name: str, value: object) -> None:
    """Refuse what is no positive integer.

    Raises:
        InvalidSpace: It is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidSpace(f"{name}={value!r} is no positive integer. Give 1 or more.")


def check_multiples(widths: Iterable[int], factor: int, reason: str) -> None:
    """Refuse widths that are no multiples of a factor, and name the nearest that are.

    Args:
        widths: Positive integers.
        factor: What has to divide them.
        reason: Where the factor comes from, to end the first sentence of the message.

    Raises:
        InvalidSpace: One is no multiple.
    """
    for width in widths:
        if width % factor:
            below = width // factor * factor
            works = f"{below} or {below + factor}" if below else f"{factor}"
            raise InvalidSpace(
                f"width={width} is no multiple of {factor}: {reason}. Nearest that works: {works}."
            )
