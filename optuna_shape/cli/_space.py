"""The design space that the command line asks for, by a built-in family or a user's own.

Only what was typed as ``--family module:function`` is imported. What is read from a study, a
checkpoint or a table never comes here: :func:`optuna_shape.families.rebuild` knows the built-in
families alone.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from optuna_shape.cli._options import Option
from optuna_shape.cli._options import options_of
from optuna_shape.cli._options import read_options
from optuna_shape.cli._options import signature_of
from optuna_shape.cli._options import write
from optuna_shape.errors import BuildFailed
from optuna_shape.errors import InvalidProblem
from optuna_shape.errors import InvalidSpace
from optuna_shape.families import FAMILIES
from optuna_shape.space import DesignSpace

#: What every family takes; further arguments of its function are its options.
_COMMON = ("depth", "width", "input_shape", "classes", "name")

# Code that is not the user's own: of Python, of what is installed, and of this package.
_LIBRARIES = (
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    str(Path(__file__).parents[1]),
)


def options_of_family(function: Callable[..., object]) -> dict[str, Option]:
    """Return what a family's function takes beside the arguments of all families.

    Raises:
        TypeError: It is no function.
        ValueError: It does not tell its arguments, as some written in C.
    """
    return options_of(function, but=_COMMON)


def make_space(
    family: str,
    options: Sequence[str],
    *,
    depth: Sequence[int] | None,
    width: Sequence[int] | None,
    input_shape: tuple[int, ...],
    classes: int,
) -> DesignSpace:
    """Return the design space of a family.

    Args:
        family:
            A key of :data:`FAMILIES`, or ``module:function``. The module is imported, with the
            current folder on :data:`sys.path`.
        options:
            Further arguments of the family, each as ``name=value``.
        depth:
            The depths to choose from; None for the family's default.
        width:
            The widths to choose from, likewise.
        input_shape:
            Shape of one input, without the batch dimension.
        classes:
            Number of outputs.

    Raises:
        InvalidProblem: There is no such family.
        InvalidSpace: The family, or one of its options, makes no space of this; or a user's own
            function cannot be imported or called, or does not return a space for such inputs.
    """
    if family in FAMILIES:
        function: Callable[..., object] = FAMILIES[family]
    elif ":" in family:
        function = _import(family)
    else:
        raise InvalidProblem(
            f"Unknown family {family!r}. Known are {', '.join(sorted(FAMILIES))}; a function of "
            "your own is named as module:function."
        )
    try:
        known = options_of_family(function)
        signature = signature_of(function)
    except (TypeError, ValueError) as error:
        raise InvalidSpace(
            f"{family} does not tell its arguments: {error}. Name a function in Python."
        ) from None
    try:
        values = read_options("--family-option", family, options, known)
    except ValueError as error:
        raise InvalidSpace(str(error)) from None
    arguments: dict[str, Any] = {}
    for name, numbers in (("depth", depth), ("width", width)):
        if numbers is not None:
            arguments[name] = numbers
        elif (
            name in signature.parameters
            and signature.parameters[name].default is inspect.Parameter.empty
        ):
            raise InvalidSpace(
                f"{family} has no default {name}. Give --{name}, such as 1-6 or 4,8."
            )
    arguments.update(input_shape=input_shape, classes=classes, **values)
    if family in FAMILIES:
        return FAMILIES[family](**arguments)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise InvalidSpace(
            f"{family} cannot be called with {', '.join(arguments)}: {error}. It must accept "
            "depth, width, input_shape and classes by name; what else it needs is given by "
            "--family-option name=value."
        ) from None
    return _call(family, function, arguments, values)


def check_network(family: str, space: DesignSpace, classes: int, device: torch.device) -> None:
    """Refuse a user's own family whose smallest network does not tell the classes apart.

    The built-in families have tests. Larger networks are left to the measuring.

    Raises:
        InvalidSpace: It does not run, or returns something else than a score for each class.
    """
    if family in FAMILIES:
        return
    assert space.input_shape is not None  # `_call` saw to it.
    shape = space.shapes[0]
    try:
        network = space.build(shape).to(device).eval()
        with torch.inference_mode():
            scores = network(torch.zeros(2, *space.input_shape, device=device))
    except Exception as error:
        raise InvalidSpace(
            f"{family}: the network of shape {shape} does not run on inputs of "
            f"{space.input_shape}: {type(error).__name__}: {error}{_where(error)}"
        ) from error
    returned = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
    if returned != (2, classes):
        raise InvalidSpace(
            f"{family}: for 2 inputs of {space.input_shape}, the network of shape {shape} returns "
            f"{returned}, and not (2, {classes}): a score for each class. Let it end in "
            "nn.Linear(..., classes)."
        )


def _import(reference: str) -> Callable[..., object]:
    """Return what ``module:function`` names.

    Raises:
        InvalidSpace: It names nothing that can be called, or the module cannot be imported.
    """
    module_name, _, name = reference.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), name)):
        raise InvalidSpace(
            f"--family {reference!r} is no module:function. Write it as Python imports it: "
            "nets:small for the function small in nets.py of this folder."
        )
    # As `python -m` has it. First on the path of a console script is the folder of that script.
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # A script may end Python where it is imported.
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module_name}.".startswith(f"{missing}."):
            raise InvalidSpace(
                f"--family {reference}: there is no module {missing!r}, neither in this folder "
                "nor installed. Write it as Python imports it, without .py."
            ) from None
        raise InvalidSpace(
            f"--family {reference}: importing {module_name} raised "
            f"{type(error).__name__}: {error}{_where(error)}"
        ) from error
    if not hasattr(module, name):
        raise InvalidSpace(
            f"--family {reference}: {module_name} ({module.__file__}) has no function {name!r}."
            " Define it there, or name another."
        )
    function = getattr(module, name)
    if not callable(function):
        raise InvalidSpace(
            f"--family {reference} is of type {type(function).__name__}, not a function. Name a "
            "function that returns a DesignSpace."
        )
    result: Callable[..., object] = function
    return result


def _call(
    family: str,
    function: Callable[..., object],
    arguments: Mapping[str, Any],
    options: Mapping[str, object],
) -> DesignSpace:
    """Call a user's own function, whose errors are told in a line."""
    try:
        space = function(**arguments)
    except Exception as error:
        raise InvalidSpace(
            f"{family} raised {type(error).__name__}: {error}{_where(error)}"
        ) from error
    if not isinstance(space, DesignSpace):
        raise InvalidSpace(
            f"{family} returned {type(space).__name__}, not a DesignSpace. End it with "
            "return DesignSpace(depth, width, build, input_shape=input_shape)."
        )
    if space.input_shape != arguments["input_shape"]:
        raise InvalidSpace(
            f"{family} returned a space with input_shape={space.input_shape}, but the inputs are "
            f"{arguments['input_shape']}. Let it pass on the input_shape that it is given."
        )
    # By its name alone does a study tell a user's own family from another, see `describe`.
    listed = ", ".join(f"{name}={write(value)}" for name, value in sorted(options.items()))
    space.name = f"{family}({listed})" if listed else family
    return space


def _where(error: BaseException) -> str:
    """Say which line of the user's own code an error comes from, if one does."""
    if isinstance(error, BuildFailed) and error.__cause__ is not None:
        error = error.__cause__
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<", *_LIBRARIES))
    ]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
