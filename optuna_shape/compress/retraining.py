"""Training of pruned and shared networks, by the trainer that trained them.

* :func:`retrain_pruned`: weights that are zero stay zero, all others learn on.
* :func:`retrain_shared`: moreover weights that are equal stay equal.
* :func:`adjust_snapshot`: no weight changes, only what is none. [Liang2021]_ propose it for a
  well-trained network, the snapshot, after its unimportant weights were dropped; only their
  abstract was at hand, so what follows is our reading of it: biases, scales and shifts of
  normalisations learn, and batch normalisations take new statistics.

.. [Liang2021] Liang, Yi, Liu. On the efficiency of deep neural networks. 2021. OpenReview
   TlPNpabaoV.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from optuna_shape.compress.sharing import Ties
from optuna_shape.compress.sharing import groups_of
from optuna_shape.compress.weights import weights_of
from optuna_shape.errors import InvalidProblem
from optuna_shape.train.data import Data
from optuna_shape.train.recipe import Recipe
from optuna_shape.train.trainer import evaluate
from optuna_shape.train.trainer import train

_NORMALISATIONS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)
_DEFAULT = Recipe().gentle


def retrain_pruned(
    network: nn.Module,
    data: Data,
    *,
    epochs: int,
    seed: int,
    device: torch.device | str = "cpu",
    recipe: Recipe = _DEFAULT,
) -> float:
    """Train a pruned network on, in place; weights that are zero stay zero.

    Args:
        network:
            The network.
        data:
            What to train and to validate on.
        epochs:
            How often to go through the training images.
        seed:
            Of the order and the variation of images.
        device:
            Where to train.
        recipe:
            How to train.

    Returns:
        The validation accuracy, a fraction; NaN if the training diverged.

    Raises:
        InvalidProblem: There is no epoch to train for, or the network has no weights.
    """
    network.to(device)
    weights = weights_of(network).values()
    kept = [weight.detach() != 0 for weight in weights]

    def adjust() -> None:
        for weight, mask in zip(weights, kept):
            if weight.grad is not None:
                weight.grad.mul_(mask)

    return train(
        network, data, epochs=epochs, seed=seed, device=device, recipe=recipe, adjust=adjust
    )


def retrain_shared(
    network: nn.Module,
    data: Data,
    *,
    epochs: int,
    seed: int,
    device: torch.device | str = "cpu",
    recipe: Recipe = _DEFAULT,
    unified: bool = False,
) -> float:
    """Train a network of shared weights on, in place: equal weights stay equal, zeros zero.

    Each value follows the sum of the gradients of its weights. The recipe's group decay, which
    would pull them apart, is left out.

    Args:
        network:
            The network.
        data:
            What to train and to validate on.
        epochs:
            How often to go through the training images.
        seed:
            Of the order and the variation of images.
        device:
            Where to train.
        recipe:
            How to train.
        unified:
            As :func:`~optuna_shape.compress.sharing.share_weights` was told.

    Returns:
        The validation accuracy, a fraction; NaN if the training diverged.

    Raises:
        InvalidProblem: There is no epoch to train for, or the network has no weights.
    """
    network.to(device)
    ties = [Ties(group) for group in groups_of(network, unified=unified)]

    def adjust() -> None:
        for tie in ties:
            tie.sum_gradients()

    accuracy = train(
        network,
        data,
        epochs=epochs,
        seed=seed,
        device=device,
        recipe=dataclasses.replace(recipe, group_decay=0.0),
        adjust=adjust,
    )
    for tie in ties:
        tie.tie()
    if accuracy != accuracy:
        return accuracy
    return evaluate(network, data.validation_x, data.validation_y.to(device))


def adjust_snapshot(
    network: nn.Module,
    data: Data,
    *,
    epochs: int,
    seed: int,
    device: torch.device | str = "cpu",
    recipe: Recipe = _DEFAULT,
) -> float:
    """Train biases and normalisations alone, in place; all other parameters stay as they are.

    Args:
        network:
            The network.
        data:
            What to train and to validate on.
        epochs:
            How often to go through the training images.
        seed:
            Of the order and the variation of images.
        device:
            Where to train.
        recipe:
            How to train; group decay, which acts on weights, is left out.

    Returns:
        The validation accuracy, a fraction; NaN if the training diverged.

    Raises:
        InvalidProblem: There is no epoch to train for, or nothing that may be trained.
    """
    learning = {
        parameter
        for module in network.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(module, _NORMALISATIONS) or name.endswith("bias")
    }
    frozen = [p for p in network.parameters() if p.requires_grad and p not in learning]
    if not any(parameter.requires_grad for parameter in learning):
        raise InvalidProblem(
            f"{type(network).__name__} has neither biases nor normalisations to adjust. Train its "
            "weights too, by retrain_pruned."
        )
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        return train(
            network,
            data,
            epochs=epochs,
            seed=seed,
            device=device,
            recipe=dataclasses.replace(recipe, group_decay=0.0),
        )
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
            parameter.grad = None
