"""Options that are written as ``name=value``: arguments of a function, by what it declares."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from types import NoneType
from types import UnionType
from typing import Literal
from typing import Union
from typing import get_args
from typing import get_origin

# The most telling first: "3" for `int | str` is a number.
_READERS: dict[type, Callable[[str], object]] = {
    NoneType: lambda text: {"none": None}[text.lower()],
    bool: lambda text: {"true": True, "false": False}[text.lower()],
    int: int,
    float: float,
    str: str,
}
_NAMED = {"None": NoneType, "bool": bool, "int": int, "float": float, "str": str}
_SAID = {
    NoneType: "none",
    bool: "true|false",
    int: "integer",
    float: "number",
    str: "text",
}


@dataclass(frozen=True)
class Option:
    """An argument that can be given as text.

    Attributes:
        name: Of the argument.
        default: Its default, or :attr:`inspect.Parameter.empty`.
        types: What it may be, of the types that a text can give.
        choices: The only values that it may have; empty if there are others.
    """

    name: str
    default: object
    types: tuple[type, ...]
    choices: tuple[object, ...]

    def read(self, text: str) -> object:
        """Return the value that a text stands for.

        Raises:
            ValueError: It stands for none.
        """
        for kind in self.types:
            try:
                value = _READERS[kind](text)
            except (KeyError, ValueError):
                continue
            if not self.choices or value in self.choices:
                return value
        if self.types:
            raise ValueError(f"cannot be {text!r}. Give: {'|'.join(self._values())}.")
        raise ValueError(
            "is of a type that no text can give. Set it in a function of your own, and name that "
            "as --family module:function."
        )

    def __str__(self) -> str:
        """What can be written, the default first."""
        texts = self._values()
        if self.default is not inspect.Parameter.empty:
            default = write(self.default)
            # The default of a plain number says what it is.
            several = self.choices or self.default is None
            texts = [default, *(t for t in texts if several and t != default)]
        return f"{self.name}={'|'.join(texts)}"

    def _values(self) -> list[str]:
        if self.choices:
            return [write(choice) for choice in self.choices]
        return [_SAID[kind] for kind in self.types]


def options_of(function: Callable[..., object], *, but: Sequence[str] = ()) -> dict[str, Option]:
    """Return the arguments of a function by name.

    Args:
        function:
            A function or a class.
        but:
            Names that are left out.

    Raises:
        TypeError: It is no function.
        ValueError: It does not tell its arguments, as some written in C.
    """
    return {
        parameter.name: _option(parameter)
        for parameter in signature_of(function).parameters.values()
        if parameter.name not in but
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


def read_options(
    flag: str, owner: str, texts: Sequence[str], known: Mapping[str, Option]
) -> dict[str, object]:
    """Return the values that were given, by name.

    Args:
        flag:
            How the command line calls them.
        owner:
            Whose they are.
        texts:
            Each as ``name=value``.
        known:
            What may be given.

    Raises:
        ValueError: One has no value, is unknown, or cannot be what it is set to.
    """
    values: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"{flag} {text!r} has no value. Write name=value.")
        if name not in known:
            listed = ", ".join(str(option) for option in known.values())
            raise ValueError(
                f"{owner} has no option {name!r}. "
                + (f"It has: {listed}." if known else "It has none.")
            )
        try:
            values[name] = known[name].read(value)
        except ValueError as error:
            raise ValueError(f"{flag} {name} {error}") from None
    return values


def signature_of(function: Callable[..., object]) -> inspect.Signature:
    """Return the signature, its annotations evaluated where they can be."""
    try:
        return inspect.signature(function, eval_str=True)
    except Exception:  # An annotation may name what is imported for type checkers alone.
        return inspect.signature(function)


def write(value: object) -> str:
    """Write a value as :meth:`Option.read` reads it."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _option(parameter: inspect.Parameter) -> Option:
    hint, default = parameter.annotation, parameter.default
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    hints: tuple[object, ...] = (hint,)
    if choices:
        hints = tuple(type(choice) for choice in choices)
    elif get_origin(hint) in (Union, UnionType):
        hints = get_args(hint)
    elif isinstance(hint, str):  # It could not be evaluated, but may be as plain as "int | None".
        hints = tuple(_NAMED.get(part.strip()) for part in hint.split("|"))
    types = tuple(kind for kind in _READERS if kind in hints)
    if not types and (hint is parameter.empty or isinstance(hint, str)):
        guess = str if default is parameter.empty else type(default)
        types = tuple(kind for kind in _READERS if kind is guess)
    return Option(parameter.name, default, types, choices)
