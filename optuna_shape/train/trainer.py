"""A training that treats every shape alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from optuna_shape.errors import InvalidProblem
from optuna_shape.train.data import Data
from optuna_shape.train.progress import Progress
from optuna_shape.train.progress import describe_network


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
    progress: Path | None = None,
) -> float:
    """Train a network in place and return its accuracy on the validation set.

    The same initial weights, data and seed give the same result on the same machine. The initial
    weights are the caller's, and so are layers that draw from torch's global generator. A training
    that goes on from its ``progress`` gives the result of one that was never ended.

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
        progress:
            A file, ending in ``.safetensors``, that holds the training after each epoch but the
            last, until it finishes. If the training was ended before, by what ``report`` raised or
            by killing the process, it goes on after the last epoch kept there, whatever the
            weights of ``model``; ``report`` is first called again for the epochs before. A file
            that is damaged, or of another training, is logged as a warning and replaced.

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

    optimizer = _optimizer(model, recipe)
    steps = max(1, len(train_x) * data.passes // recipe.batch_size)
    rates = _learning_rates(steps * epochs, recipe)
    tell_progress = getattr(model, "set_progress", None)
    identity = _identity(model, data, epochs, seed, device, recipe)
    kept = Progress(progress, identity, model, optimizer, generator)
    curve = kept.resume()
    if report is not None:
        for epoch, accuracy in enumerate(curve, start=1):
            report(epoch, accuracy)
    for epoch in range(len(curve) + 1, epochs + 1):
        if callable(tell_progress):
            tell_progress((epoch - 1) / epochs)
        loss = _train_epoch(
            model,
            optimizer,
            (train_x, train_y),
            data,
            generator,
            rates[(epoch - 1) * steps : epoch * steps],
            recipe.label_smoothing,
        )
        if not math.isfinite(loss):
            kept.discard()
            return math.nan
        curve.append(evaluate(model, validation_x, validation_y))
        if epoch < epochs:
            kept.keep(curve)  # Before the report, which may end the training.
        if report is not None:
            report(epoch, curve[-1])
    kept.discard()
    return curve[-1]


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


def _train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: tuple[torch.Tensor, torch.Tensor],
    data: Data,
    generator: torch.Generator,
    rates: Sequence[float],
    label_smoothing: float,
) -> float:
    """Train for one epoch, a step for each learning rate.

    Args:
        model:
            The network, trained in place and left in training mode.
        optimizer:
            Its optimizer.
        images:
            ``(n, channels, height, width)`` tensor of training images and ``(n,)`` tensor of their
            classes, on the device of the network.
        data:
            Says how images are varied, and how often they come.
        generator:
            Says in which order images come and how they are varied.
        rates:
            Learning rate of each step.
        label_smoothing:
            Probability given to all classes alike in the target.

    Returns:
        The sum of the losses of all steps; not finite if the training diverged.
    """
    model.train()
    x, y = images
    losses = torch.zeros((), device=x.device)
    order = torch.cat(
        [torch.randperm(len(x), generator=generator, device=x.device) for _ in range(data.passes)]
    )
    # Batches of nearly equal size: a last one of a single image would break normalisation.
    for rate, batch in zip(rates, order.tensor_split(len(rates))):
        for group in optimizer.param_groups:
            group["lr"] = rate
        inputs = x[batch]
        if data.augment is not None:
            inputs = data.augment(inputs, generator)
        loss = F.cross_entropy(model(inputs), y[batch], label_smoothing=label_smoothing)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses += loss.detach()
    return float(losses)  # Asked once per epoch, not to wait for a GPU each step.


def _identity(
    model: nn.Module, data: Data, epochs: int, seed: int, device: torch.device, recipe: Recipe
) -> dict[str, Any]:
    """What a training must have in common with another one to go on from it, as JSON."""
    return {
        "epochs": epochs,
        "seed": seed,
        "recipe": asdict(recipe),
        "data": data.name,
        "passes": data.passes,
        # Of another split, the network may have seen what it is validated on.
        "labels": data.digest,
        "network": describe_network(model),
        "device": device.type,
        "torch": torch.__version__,
    }


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


def _learning_rates(steps: int, recipe: Recipe) -> list[float]:
    """Return the learning rate of each step: a linear rise, then half a cosine down to zero."""
    rising = max(1, round(recipe.warmup * steps))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    return [recipe.learning_rate * factor(step) for step in range(steps)]
