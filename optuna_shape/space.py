"""Shapes, and the finite space of them that a search may choose from."""

from __future__ import annotations

import operator
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import NamedTuple

from optuna_shape.errors import BuildFailed
from optuna_shape.errors import InvalidSpace

if TYPE_CHECKING:
    from torch import nn


class Shape(NamedTuple):
    """Depth and width of a network.

    What the two integers count is for the family of networks to say: for residual networks,
    depth is the number of blocks per stage and width the channels of the first stage.

    Example:
        >>> shape = Shape(depth=3, width=16)
        >>> print(shape)
        (3, 16)
        >>> shape == (3, 16)
        True
    """

    depth: int
    width: int

    def __str__(self) -> str:
        return f"({self.depth}, {self.width})"


class DesignSpace:
    """The finite set of shapes ``depth x width``, and how a network is built from one.

    Args:
        depth:
            The depths to choose from, positive integers in any order; duplicates are dropped.
        width:
            The widths to choose from, likewise.
        build:
            ``build(shape)`` returns a fresh :class:`torch.nn.Module`. :obj:`None` serves a problem
            whose properties all come from a table.
        input_shape:
            Shape of one input without the batch dimension, such as ``(3, 32, 32)``. Needed where
            the network has to run: latency, energy, memory and FLOPs.
        name:
            What reports call this space.

    Attributes:
        shapes: All shapes, the shallowest first, and of one depth the narrowest first.
        depths: The depths to choose from, ascending.
        widths: The widths to choose from, ascending.

    Raises:
        InvalidSpace: A list is empty, or holds something that is no positive integer.

    Example:
        >>> from torch import nn
        >>> def build(shape):
        ...     layers = [nn.Flatten()]
        ...     for _ in range(shape.depth):
        ...         layers += [nn.LazyLinear(shape.width), nn.ReLU()]
        ...     return nn.Sequential(*layers, nn.LazyLinear(10))
        >>> space = DesignSpace(range(1, 4), [8, 16], build, input_shape=(1, 12, 12))
        >>> space.shapes[:3]
        (Shape(depth=1, width=8), Shape(depth=1, width=16), Shape(depth=2, width=8))
        >>> len(space), Shape(3, 16) in space, Shape(3, 12) in space
        (6, True, False)
        >>> len(space.build(Shape(3, 16)))
        8
    """

    def __init__(
        self,
        depth: Iterable[int],
        width: Iterable[int],
        build: Callable[[Shape], nn.Module] | None = None,
        *,
        input_shape: Sequence[int] | None = None,
        name: str = "",
    ) -> None:
        self.depths = _positive_integers(depth, "depth")
        self.widths = _positive_integers(width, "width")
        self.input_shape = (
            None
            if input_shape is None
            else tuple(_positive_integer(n, "input_shape") for n in input_shape)
        )
        self.name = name
        self.builder = build
        self.shapes = tuple(Shape(d, w) for d in self.depths for w in self.widths)
        self._members = frozenset(self.shapes)

    def build(self, shape: Shape) -> nn.Module:
        """Return a fresh network of this shape.

        Raises:
            BuildFailed: The user's ``build`` raised, or returned no module.
        """
        from torch import nn  # The rest of this module serves tables without torch.

        if self.builder is None:
            raise BuildFailed(
                f"Cannot build shape {shape}: this design space has no `build`. "
                "Pass DesignSpace(..., build=callable)."
            )
        try:
            network = self.builder(shape)
        except Exception as error:
            raise BuildFailed(
                f"build({shape}) raised {type(error).__name__}: {error}. "
                "It must return a torch.nn.Module for every shape of the space."
            ) from error
        if not isinstance(network, nn.Module):
            raise BuildFailed(
                f"build({shape}) returned {type(network).__name__}, not a torch.nn.Module."
            )
        return network

    def __contains__(self, shape: object) -> bool:
        return shape in self._members

    def __len__(self) -> int:
        return len(self.shapes)

    def __repr__(self) -> str:
        name = f"{self.name}: " if self.name else ""
        return f"<DesignSpace {name}depth {list(self.depths)} x width {list(self.widths)}>"


def _positive_integers(values: Iterable[int], name: str) -> tuple[int, ...]:
    try:
        numbers = sorted({_positive_integer(value, name) for value in values})
    except TypeError:
        raise InvalidSpace(
            f"{name}={values!r} is not a list of positive integers. "
            f"Give, for example, {name}=range(1, 10)."
        ) from None
    if not numbers:
        raise InvalidSpace(f"{name} is empty. Give at least one, for example {name}=[1, 2, 4].")
    return tuple(numbers)


def _positive_integer(value: int, name: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidSpace(f"{name} holds {value!r}, which is not an integer.") from None
    if isinstance(value, bool) or number < 1:
        raise InvalidSpace(f"{name} holds {value!r}; every value must be 1 or more.")
    return number
