"""A training that treats every shape alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from optuna_shape.errors import InvalidProblem
from optuna_shape.train.data import Data


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: AdamW, a linear warm-up, then half a cosine down to zero.

    Attributes:
        batch_size: Images per step.
        learning_rate: The highest learning rate.
        weight_decay: Decay of weights; biases and normalisations have none.
        warmup: Fraction of all steps in which the learning rate rises. Deep networks want it long.
        label_smoothing: Probability given to all classes alike in the target.
    """

    batch_size: int = 32
    learning_rate: float = 0.01
    weight_decay: float = 0.1
    warmup: float = 0.3
    label_smoothing: float = 0.1


_DEFAULT = Recipe()


def train(
    model: nn.Module,
    data: Data,
    *,
    epochs: int,
    seed: int,
    device: torch.device | str = "cpu",
    report: Callable[[int, float], None] | None = None,
    recipe: Recipe = _DEFAULT,
) -> float:
    """Train a network in place and return its accuracy on the validation set.

    The same initial weights, data and seed give the same result on the same machine. The initial
    weights are the caller's, and so are layers that draw from torch's global generator.

    Args:
        model:
            The network, trained in place and left on ``device`` in evaluation mode. If it has a
            method ``set_progress``, that is called before each epoch with the share of the
            training that is done.
        data:
            What to train and to validate on.
        epochs:
            How often to go through the training images, ``data.passes`` times each.
        seed:
            Says in which order images come and how they are varied.
        device:
            Where to train.
        report:
            Called after each epoch with its number, counted from 1, and the validation accuracy.
            What it raises ends the training, such as :exc:`optuna.TrialPruned`.
        recipe:
            How to train.

    Returns:
        The validation accuracy after the last epoch, a fraction in [0, 1]. NaN if the training
        diverged: then it ends in that epoch, without reporting it.

    Raises:
        InvalidProblem: There is no epoch to train for.
    """
    if epochs < 1:
        raise InvalidProblem(f"epochs={epochs} is no training. Give 1 or more.")
    device = torch.device(device)
    generator = torch.Generator(device).manual_seed(seed)
    # Convolutions of few channels run faster in this layout.
    model.to(device).to(memory_format=torch.channels_last)
    train_x, train_y = data.train_x.to(device), data.train_y.to(device)
    validation_x, validation_y = data.validation_x.to(device), data.validation_y.to(device)

    steps = max(1, len(train_x) * data.passes // recipe.batch_size)
    optimizer = _optimizer(model, recipe)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, _warmup_then_cosine(steps * epochs, recipe.warmup)
    )
    tell_progress = getattr(model, "set_progress", None)
    accuracy = math.nan
    for epoch in range(1, epochs + 1):
        model.train()
        if callable(tell_progress):
            tell_progress((epoch - 1) / epochs)
        losses = torch.zeros((), device=device)
        order = torch.cat(
            [
                torch.randperm(len(train_x), generator=generator, device=device)
                for _ in range(data.passes)
            ]
        )
        # Batches of nearly equal size: a last one of a single image would break normalisation.
        for batch in order.tensor_split(steps):
            x = train_x[batch]
            if data.augment is not None:
                x = data.augment(x, generator)
            loss = F.cross_entropy(
                model(x), train_y[batch], label_smoothing=recipe.label_smoothing
            )
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            scheduler.step()
            losses += loss.detach()
        if not torch.isfinite(losses):  # Asked once per epoch, not to wait for a GPU each step.
            return math.nan
        accuracy = evaluate(model, validation_x, validation_y)
        if report is not None:
            report(epoch, accuracy)
    return accuracy


def evaluate(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, batch_size: int = 400
) -> float:
    """Return the fraction of inputs whose class the network tells; leave it in evaluation mode.

    Args:
        model:
            The network, on the device of the tensors.
        x:
            ``(n, ...)`` tensor of inputs.
        y:
            ``(n,)`` tensor of their classes.
        batch_size:
            Inputs per call. It limits the memory and has no effect on the result otherwise.
    """
    model.eval()
    with torch.inference_mode():
        right = sum(
            (model(inputs).argmax(dim=1) == classes).sum()
            for inputs, classes in zip(torch.split(x, batch_size), torch.split(y, batch_size))
        )
    return int(right) / len(y)


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    parameters = list(model.parameters())
    return torch.optim.AdamW(
        [
            {
                "params": [p for p in parameters if p.ndim > 1],
                "weight_decay": recipe.weight_decay,
            },
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        fused=True,  # One kernel for all parameters, not several for each.
    )


def _warmup_then_cosine(steps: int, warmup: float) -> Callable[[int], float]:
    """Return the learning rate's factor at each step."""
    rising = max(1, round(warmup * steps))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    return factor
