"""``optuna-shape families``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from collections.abc import Sequence

import torch
from rich import box
from rich.table import Table

from optuna_shape.cli._common import make_console
from optuna_shape.cli._common import say
from optuna_shape.cli._space import options_of_family
from optuna_shape.constraints import format_quantity
from optuna_shape.families import FAMILIES
from optuna_shape.space import DesignSpace

_INPUT, _CLASSES = (3, 32, 32), 10
_NOTE = (
    "Of each --family-option, the default comes first. Parameters are those of the smallest and "
    "the largest shape by default, for images of 3x32x32 and 10 classes."
)
_OWN = (
    "A family of your own: --family module:function, where function(depth, width, input_shape, "
    "classes) returns a DesignSpace."
)


def families() -> None:
    """List the built-in families: what depth and width mean, defaults and options."""
    console = make_console()
    table = Table(box=box.SIMPLE, show_lines=True)
    table.add_column("family", style="bold", no_wrap=True)
    table.add_column("depth and width")
    table.add_column("by default, and options", no_wrap=True)
    for name, function in FAMILIES.items():
        space = function(input_shape=_INPUT, classes=_CLASSES)
        details = [
            f"--depth {_listed(space.depths)}",
            f"--width {_listed(space.widths)}",
            f"{_parameters(space)} parameters",
            *(str(option) for option in options_of_family(function).values()),
        ]
        if console.is_terminal:
            table.add_row(name, _picture(function), "\n".join(details))
        else:  # A line each, to be searched and cut by programs.
            line = f"{name}: {_picture(function)} {'; '.join(details)}"
            say(console, line)
    if console.is_terminal:
        console.print(table, highlight=False, markup=False)
    for line in (_NOTE, _OWN):
        console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal)


def _picture(function: Callable[..., DesignSpace]) -> str:
    """The first line of the docstring, which says what depth and width mean."""
    return (inspect.getdoc(function) or "").partition("\n")[0]


def _parameters(space: DesignSpace) -> str:
    with torch.device("meta"):  # No memory, no arithmetic.
        ends = [space.build(shape) for shape in (space.shapes[0], space.shapes[-1])]
    numbers = [sum(p.numel() for p in network.parameters()) for network in ends]
    return " to ".join(format_quantity("parameters", number) for number in numbers)


def _listed(values: Sequence[int]) -> str:
    """Write numbers as ``--depth`` and ``--width`` read them."""
    if len(values) > 2 and values[-1] - values[0] == len(values) - 1:
        return f"{values[0]}-{values[-1]}"
    return ",".join(str(value) for value in values)
