"""Properties, their units, and the constraints a user writes as text.

Values are SI everywhere inside the package: seconds, joules, bytes, counts; accuracy is a
fraction. This module is the one place where units exist.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from optuna_shape.errors import InvalidConstraint
from optuna_shape.space import Shape

_COUNT = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BYTES = {
    "B": 1.0,
    "kB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
}

#: Units of every property, and their size in SI. The order is the one used for printing.
UNITS: dict[str, dict[str, float]] = {
    "accuracy": {"%": 0.01, "": 1.0},
    "latency": {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0},
    "energy": {"nJ": 1e-9, "uJ": 1e-6, "µJ": 1e-6, "mJ": 1e-3, "J": 1.0, "kJ": 1e3},
    "size": _BYTES,
    "memory": _BYTES,
    "parameters": _COUNT,
    "flops": _COUNT,
}
#: What a search may be asked to improve.
GOALS = ("accuracy", "latency", "energy", "size")
#: Those of them that are known before training, and shown of every shape.
GOAL_COSTS = GOALS[1:]
#: What can be known before training.
COSTS = tuple(name for name in UNITS if name != "accuracy")
_PRINTED = {
    "latency": ("us", "ms", "s"),
    "energy": ("uJ", "mJ", "J", "kJ"),
    "size": ("B", "kB", "MB", "GB"),
    "memory": ("B", "kB", "MB", "GB"),
    "parameters": ("", "k", "M", "G"),
    "flops": ("", "k", "M", "G", "T"),
}

# Beyond that and its inverse, arithmetic loses digits or all of it.
_LEAST = 1e-250

_NUMBER = r"[-+]?(?:\d+(?:_\d+)*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_CONSTRAINT = re.compile(
    rf"\s*(?P<property>[A-Za-z_]+)\s*(?P<relation><=|>=|==|=|<|>|≤|≥)\s*"
    rf"(?P<value>{_NUMBER}|nan|inf)\s*(?P<unit>[A-Za-zµμ%]*)"
    r"(?:\s+of\s+\(?\s*(?P<depth>\d{1,9})\s*[,x]\s*(?P<width>\d{1,9})\s*\)?)?\s*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Constraint:
    """One bound on one property: an upper one on a cost, a lower one on accuracy.

    Attributes:
        property: ``"accuracy"``, ``"latency"``, ``"energy"``, ``"size"``, ``"memory"``,
            ``"parameters"`` or ``"flops"``.
        bound: The bound in SI units, or, with ``reference``, the share of that shape's value.
        reference: The shape whose measured value the bound is a share of, or :obj:`None`.

    Example:
        >>> Constraint.parse("latency <= 2 ms")
        Constraint(property='latency', bound=0.002, reference=None)
        >>> str(Constraint.parse("latency <= 60 % of (9, 16)"))
        'latency <= 60 % of (9, 16)'
    """

    property: str
    bound: float
    reference: Shape | None = None

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Read a constraint such as ``"latency <= 2 ms"`` or ``"accuracy >= 92 %"``.

        Units are those of :data:`~optuna_shape.constraints.UNITS`; a kB is 1000 bytes.

        Raises:
            InvalidConstraint: The text is no constraint; the message says what would be one.

        Example:
            >>> Constraint.parse("accuracy >= 92 %").bound
            0.92
            >>> Constraint.parse("size <= 500")
            Traceback (most recent call last):
            ...
            optuna_shape.errors.InvalidConstraint: 'size <= 500' has no unit. \
Units of size: B, kB, MB, GB, KiB, MiB, GiB.
        """
        match = _CONSTRAINT.fullmatch(text)
        if match is None:
            raise InvalidConstraint(
                f"Cannot read the constraint {text!r}. Write it like 'latency <= 2 ms', "
                "'size <= 500 kB', 'accuracy >= 92 %' or 'latency <= 60 % of (9, 16)'."
            )
        name = match["property"].lower()
        if name not in UNITS:
            raise InvalidConstraint(
                f"Unknown property {match['property']!r} in {text!r}. "
                f"Known are {', '.join(UNITS)}."
            )
        relation = ">=" if name == "accuracy" else "<="
        if match["relation"] not in (relation, {"<=": "≤", ">=": "≥"}[relation]):
            raise InvalidConstraint(
                f"{text!r} bounds {name} by {match['relation']!r}; "
                f"{name} can only be bounded by '{name} {relation} ...'."
            )
        value = _checked(float(match["value"]), text)
        if match["depth"] is not None:
            if match["unit"] != "%" or name == "accuracy":
                raise InvalidConstraint(
                    f"{text!r} compares with a shape; only a percentage of a cost "
                    f"({', '.join(COSTS)}) can, like 'latency <= 60 % of (9, 16)'."
                )
            share = _checked(value / 100, text)
            return cls(name, share, Shape(int(match["depth"]), int(match["width"])))
        bound = _checked(value * _unit(match["unit"], name, text), text)
        if name == "accuracy" and bound > 1:
            hint = f" Did you mean {value:g} %?" if match["unit"] == "" and value <= 100 else ""
            raise InvalidConstraint(
                f"{text!r} asks for an accuracy of {bound:.6g}; it is a fraction in (0, 1] "
                f"or a percentage up to 100 %.{hint}"
            )
        return cls(name, bound)

    def __str__(self) -> str:
        if self.reference is not None:
            return f"{self.property} <= {self.bound * 100:.12g} % of {self.reference}"
        relation = ">=" if self.property == "accuracy" else "<="
        # Twelve digits: the text is what a study stores, and it has to read back the same bound.
        return (
            f"{self.property} {relation} {format_quantity(self.property, self.bound, digits=12)}"
        )


def format_quantity(name: str, value: float, *, digits: int = 3) -> str:
    """Print an SI value of a property in the unit that a person would choose.

    Example:
        >>> format_quantity("latency", 0.00193)
        '1.93 ms'
        >>> format_quantity("size", 431_000)
        '431 kB'
        >>> format_quantity("accuracy", 0.9173)
        '91.7 %'
    """
    if math.isinf(value):
        return "out of memory" if name != "accuracy" else "inf"
    if name == "accuracy":
        return f"{value * 100:.{digits}g} %"
    units = _PRINTED[name]
    chosen = units[0]
    for unit in units:
        # Rounding first: 999.9 us is printed as 1 ms.
        if float(f"{value:.{digits}g}") >= UNITS[name][unit] * (1 - 1e-12):
            chosen = unit
    number = value / UNITS[name][chosen]
    whole = f"{number:.{digits}g}"
    if "e+" in whole:
        whole = f"{number:.0f}"
    return f"{whole} {chosen}".rstrip()


def _checked(bound: float, text: str) -> float:
    if not _LEAST <= bound <= 1 / _LEAST:
        raise InvalidConstraint(
            f"The bound in {text!r} is {bound:g}; it must be a number above 0, and no larger "
            "than what can be measured."
        )
    return bound


def _unit(written: str, name: str, text: str) -> float:
    units = UNITS[name]
    written = written.replace("μ", "µ")  # the Greek letter and the micro sign look the same
    if written in units:
        return units[written]
    expected = ", ".join(unit for unit in units if unit)
    close = [unit for unit in units if unit and unit.lower() == written.lower()]
    if written == "":
        problem = f"{text!r} has no unit"
    else:
        problem = f"Unknown unit {written!r} for {name} in {text!r}"
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    raise InvalidConstraint(f"{problem}. Units of {name}: {expected}.{hint}")
