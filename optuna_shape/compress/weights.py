"""Which parameters of a network are weights: those of linear layers, convolutions and attention.

Biases, normalisations and embeddings are none.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from optuna_shape.errors import InvalidProblem
from optuna_shape.train.recipe import decayed_weights

Kind = Literal["dense", "convolution"]


def weights_of(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights by name, in the order of the network's parameters.

    Raises:
        InvalidProblem: The network has none.
    """
    weights = set(decayed_weights(network))
    result = {name: p for name, p in network.named_parameters() if p in weights}
    if not result:
        raise InvalidProblem(
            f"{type(network).__name__} has no linear layer, convolution or attention, whose "
            "weights could be pruned or shared."
        )
    return result


def kind_of(weight: torch.Tensor) -> Kind:
    """Tell weights of linear layers and attention, which are matrices, from those with kernels."""
    return "dense" if weight.ndim == 2 else "convolution"


def numbers_of(weight: torch.Tensor) -> npt.NDArray[np.float64]:
    """Return a weight as a flat array."""
    return weight.detach().to("cpu", torch.float64).reshape(-1).numpy()
