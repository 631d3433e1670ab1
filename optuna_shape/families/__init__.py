"""Networks with a depth and a width, and the registry that stores them by name.

A function of :data:`FAMILIES` returns a :class:`~optuna_shape.space.DesignSpace` whose builder is
a frozen dataclass. So a space can be described in JSON and rebuilt in another process:

>>> space = resnet(depth=range(1, 4), width=[8, 16], input_shape=(1, 12, 12))
>>> description = describe(space)
>>> description["family"]
'resnet'
>>> rebuild(description, depth=[2], width=[8])
<DesignSpace resnet: depth [2] x width [8]>
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

from optuna_shape.errors import InvalidSpace
from optuna_shape.families.densenet import DenseNet
from optuna_shape.families.densenet import densenet
from optuna_shape.families.mlp import MLP
from optuna_shape.families.mlp import mlp
from optuna_shape.families.nasnet import NASNet
from optuna_shape.families.nasnet import nasnet
from optuna_shape.families.resnet import ResNet
from optuna_shape.families.resnet import resnet
from optuna_shape.families.vit import ViT
from optuna_shape.families.vit import vit
from optuna_shape.space import DesignSpace

__all__ = ["FAMILIES", "densenet", "describe", "mlp", "nasnet", "rebuild", "resnet", "vit"]

#: The first line of each docstring says what depth and width mean.
FAMILIES: dict[str, Callable[..., DesignSpace]] = {
    "densenet": densenet,
    "mlp": mlp,
    "nasnet": nasnet,
    "resnet": resnet,
    "vit": vit,
}

_BUILDERS: dict[type, str] = {
    DenseNet: "densenet",
    MLP: "mlp",
    NASNet: "nasnet",
    ResNet: "resnet",
    ViT: "vit",
}


def describe(space: DesignSpace) -> dict[str, Any] | None:
    """Return what :func:`rebuild` needs to make this space's networks, ready for JSON.

    Returns:
        ``{"family": name, "options": {...}}``, or :obj:`None` for a ``build`` of the user's own.
    """
    builder = space.builder
    family = _BUILDERS.get(type(builder))
    if family is None:
        return None
    options = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(builder).items()}
    return {"family": family, "options": options}


def rebuild(
    description: Mapping[str, Any],
    depth: Iterable[int],
    width: Iterable[int],
    *,
    name: str | None = None,
) -> DesignSpace:
    """Return the design space that :func:`describe` described.

    Args:
        description:
            What :func:`describe` returned.
        depth:
            The depths to choose from.
        width:
            The widths to choose from.
        name:
            What reports call the space, by default the family.

    Raises:
        InvalidSpace: The description is malformed, or names a family that is not known here.
    """
    try:
        family, options = description["family"], dict(description["options"])
        function = FAMILIES[family]
        return function(depth, width, **options, name=family if name is None else name)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InvalidSpace):
            raise
        raise InvalidSpace(
            f"No design space can be rebuilt from {description!r}: "
            f"{type(error).__name__}: {error}. Families known here: {', '.join(FAMILIES)}."
        ) from error
