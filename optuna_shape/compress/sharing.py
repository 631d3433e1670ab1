"""Weight sharing: the weights of a layer, or of many, take a few values only.

Zeros stay zeros, so that pruned networks stay so; the values are for the other weights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from optuna_shape.compress.quantizers import QUANTIZERS
from optuna_shape.compress.weights import kind_of
from optuna_shape.compress.weights import numbers_of
from optuna_shape.compress.weights import weights_of
from optuna_shape.errors import InvalidProblem


def share_weights(
    network: nn.Module,
    k: int,
    *,
    method: str = "kmeans",
    unified: bool = False,
    seed: int = 0,
) -> None:
    """Give the weights that are not zero at most ``k`` values per codebook, in place.

    Args:
        network:
            Any network, on any device.
        k:
            Values per codebook, 1 or more.
        method:
            One of :data:`~optuna_shape.compress.quantizers.QUANTIZERS`.
        unified:
            One codebook for all weights that are matrices and another for all convolutions, in
            place of one for each. Frozen weights (``requires_grad=False``), which no training
            moves along with the others, have codebooks of their own.
        seed:
            Of the method ``probabilistic``.

    Raises:
        InvalidProblem: There is no such method, ``k`` is below 1, or the network has no weights,
            or such that are not finite.
    """
    if method not in QUANTIZERS:
        raise InvalidProblem(f"method={method!r} is none. Give one of {', '.join(QUANTIZERS)}.")
    if k < 1:
        raise InvalidProblem(f"k={k} values cannot be shared. Give 1 or more.")
    for group in groups_of(network, unified=unified):
        numbers = np.concatenate([numbers_of(weight) for weight in group])
        if not np.isfinite(numbers).all():
            raise InvalidProblem("The network has weights that are not finite. Train it again.")
        kept = np.flatnonzero(numbers)
        if len(kept) == 0:
            continue
        shared = QUANTIZERS[method](numbers[kept], k, seed)
        numbers[kept] = shared.codebook[shared.indices]
        _write(group, torch.from_numpy(numbers + 0.0))  # No minus zero.


def groups_of(network: nn.Module, *, unified: bool) -> list[list[nn.Parameter]]:
    """Return the weights that have a codebook in common, group by group."""
    weights = weights_of(network)
    groups: dict[str, list[nn.Parameter]] = defaultdict(list)
    for name, weight in weights.items():
        kind = f"{kind_of(weight)} {weight.requires_grad}"
        groups[kind if unified else name].append(weight)
    return list(groups.values())


class Ties:
    """Keeps weights that are equal equal while they are trained, and zeros zero.

    The gradient of a shared value is the sum of the gradients of its weights: each of them is
    given that sum, so that an optimizer that treats each number by itself moves them alike.

    Args:
        group: Weights with a codebook in common, on the device that they are trained on.
    """

    def __init__(self, group: Sequence[torch.Tensor]) -> None:
        self._group = group
        flat = torch.cat([weight.detach().reshape(-1) for weight in group])
        values, self._index = torch.unique(flat, return_inverse=True)
        self._kept = values != 0
        # A weight for each value, which it is read from again.
        order = torch.argsort(self._index, stable=True)
        counts = torch.bincount(self._index, minlength=len(values))
        self._first = order[counts.cumsum(0) - counts]

    @torch.no_grad()
    def sum_gradients(self) -> None:
        """Give each weight the sum of the gradients of its value, and zeros none."""
        if all(weight.grad is None for weight in self._group):
            return
        for weight in self._group:
            if weight.grad is None:  # It had no part in the loss, but its value may have.
                weight.grad = torch.zeros_like(weight)
        gradients = [weight.grad for weight in self._group if weight.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        sums = torch.zeros(len(self._kept), dtype=flat.dtype, device=flat.device)
        sums.index_add_(0, self._index, flat)
        spread = (sums * self._kept)[self._index]
        for gradient, part in zip(gradients, _split(spread, gradients)):
            gradient.copy_(part.view(gradient.shape))

    @torch.no_grad()
    def tie(self) -> None:
        """Make equal again what an optimizer moved apart by rounding."""
        flat = torch.cat([weight.detach().reshape(-1) for weight in self._group])
        _write(self._group, flat[self._first][self._index])


@torch.no_grad()
def _write(group: Sequence[torch.Tensor], flat: torch.Tensor) -> None:
    for weight, part in zip(group, _split(flat, group)):
        weight.copy_(part.view(weight.shape))


def _split(flat: torch.Tensor, like: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    return torch.split(flat, [tensor.numel() for tensor in like])
