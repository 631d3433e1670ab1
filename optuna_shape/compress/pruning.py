"""Pruning: the weights of the least magnitude become zero.

By [Marino2020]_, weights up to a percentile of their magnitudes, those of one layer or of all.

.. [Marino2020] Marino, Ghidoli, Frasca, Malchiodi. Compression strategies and space-conscious
   representations for deep neural networks. ICPR 2020. arXiv 2007.07967.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import nn

from optuna_shape.compress.weights import numbers_of
from optuna_shape.compress.weights import weights_of
from optuna_shape.errors import InvalidProblem


@torch.no_grad()
def prune(
    network: nn.Module, share: float, *, scope: Literal["layer", "global"] = "layer"
) -> float:
    """Set the weights of the least magnitude to zero, in place.

    Args:
        network:
            Any network, on any device.
        share:
            Of the weights to set to zero, from 0 to below 1; so one of each layer stays.
        scope:
            ``"layer"``: that share of each layer. ``"global"``: of all weights together, so that
            layers of small weights lose more. Of equal magnitudes the first ones go.

    Returns:
        The share of the weights that is zero now.

    Raises:
        InvalidProblem: The share is out of range, or the network has no weights.
    """
    if not 0 <= share < 1:
        raise InvalidProblem(f"share={share!r} cannot be pruned. Give 0 or more, and below 1.")
    weights = weights_of(network)
    groups = [[weight] for weight in weights.values()]
    if scope == "global":
        groups = [list(weights.values())]
    for group in groups:
        magnitudes = np.abs(np.concatenate([numbers_of(weight) for weight in group]))
        lost = np.argsort(magnitudes, kind="stable")[: int(share * len(magnitudes))]
        kept = np.ones(len(magnitudes), dtype=np.bool_)
        kept[lost] = False
        masks = torch.split(torch.from_numpy(kept), [weight.numel() for weight in group])
        for weight, mask in zip(group, masks):
            here = mask.to(weight.device).view(weight.shape)
            weight.copy_(torch.where(here, weight, 0.0))  # A product would leave minus zeros.
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    return zeros / sum(weight.numel() for weight in weights.values())
