"""A training that treats every shape alike."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import TypeAlias

import torch
from torch import nn

from optuna_shape.errors import InvalidProblem
from optuna_shape.train.data import Data
from optuna_shape.train.heads import HEADS
from optuna_shape.train.progress import Progress
from optuna_shape.train.progress import describe_network
from optuna_shape.train.recipe import Recipe
from optuna_shape.train.recipe import grouped_weights
from optuna_shape.train.recipe import shrink_groups

_logger = logging.getLogger(f"optuna.{__name__}")


@dataclass(frozen=True)
class Teacher:
    """A trained network that tells another what it thinks of each image [Hinton2015]_.

    The loss is ``(1 - weight)`` times that of the recipe, and ``weight`` times ``temperature**2``
    times the divergence of the network's probabilities from the teacher's, both of outputs divided
    by the temperature.

    .. [Hinton2015] Hinton, Vinyals, Dean. Distilling the knowledge in a neural network. 2015.

    Attributes:
        network: Takes the same inputs, tells the same classes apart, and has the same head.
        weight: Share of the loss in [0, 1].
        temperature: How much the teacher's second thoughts count.
    """

    network: nn.Module
    weight: float = 0.5
    temperature: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1 or not 0 < self.temperature < math.inf:
            raise InvalidProblem(
                f"A teacher of weight={self.weight} and temperature={self.temperature} cannot "
                "teach. Give a weight from 0 to 1, and a temperature above 0, such as 2."
            )


_DEFAULT = Recipe()

#: ``loss(inputs, outputs, classes)`` of a batch.
_Loss: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def train(
    model: nn.Module,
    data: Data,
    *,
    epochs: int,
    seed: int,
    device: torch.device | str = "cpu",
    report: Callable[[int, float], None] | None = None,
    recipe: Recipe = _DEFAULT,
    teacher: Teacher | None = None,
    progress: Path | None = None,
    adjust: Callable[[], None] | None = None,
) -> float:
    """Train a network in place and return its accuracy on the validation set.

    On a CPU, the same initial weights, data and seed give the same result to the bit, on the same
    machine with as many threads, and a training that goes on from its ``progress`` gives the
    result of one that was never ended. The initial weights are the caller's, and so are layers
    that draw from torch's global generator. On a GPU, results may differ: the training has cuDNN
    take deterministic algorithms and choose none by its speed, settings of the whole process that
    are put back afterwards, but other kernels may add in another order.

    On a GPU that multiplies in bfloat16, the training does, and takes the loss in 32 bits;
    validation is in the precision of the network, which is also what is measured.

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
        teacher:
            A trained network to learn from besides the classes, left on ``device`` in evaluation
            mode.
        progress:
            A file, ending in ``.safetensors``, that holds the training after each epoch. If the
            training was ended, by what ``report`` raised or by killing the process, it goes on
            after the last epoch kept there, whatever the weights of ``model``; ``report`` is first
            called again for the epochs before. One that was finished is not repeated: delete the
            file once its accuracy is stored. A file that is damaged, or of another training, is
            logged as a warning and replaced; that of one that diverged is deleted.
        adjust:
            Called in each step between the gradients and the optimizer, and may change the
            gradients of the parameters. Trainings that differ in it alone are told apart by no
            ``progress``.

    Returns:
        The validation accuracy after the last epoch, a fraction in [0, 1]. NaN if the training
        diverged, so that a loss or an output for a validation image is not finite: then it ends in
        that epoch, without reporting it, and logs a warning.

    Raises:
        InvalidProblem: There is no epoch to train for.
    """
    if epochs < 1:
        raise InvalidProblem(f"epochs={epochs} is no training. Give 1 or more.")
    device = torch.device(device)
    generator = torch.Generator(device).manual_seed(seed)
    model.to(device).to(memory_format=_memory_format(model, device))
    train_x, train_y = _held(data.train_x, device), data.train_y.to(device)
    validation_x, validation_y = _held(data.validation_x, device), data.validation_y.to(device)

    optimizer = recipe.make_optimizer(model)
    steps = max(1, len(train_x) * data.passes // recipe.batch_size)
    rates = recipe.learning_rates(steps * epochs)
    tell_progress = getattr(model, "set_progress", None)
    identity = _identity(model, data, epochs, seed, device, recipe, teacher)
    kept = Progress(progress, identity, model, optimizer, generator)
    loss_of = _loss(recipe, teacher, device)
    curve = kept.resume()
    if report is not None:
        for epoch, accuracy in enumerate(curve, start=1):
            report(epoch, accuracy)
    with _repeatable(device):
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
                loss_of,
                recipe.group_decay,
                adjust,
            )
            right, finite = _count(model, validation_x, validation_y)
            if not (finite and math.isfinite(loss)):
                kept.discard()
                _logger.warning(
                    f"The training diverged in epoch {epoch}: after learning rates up to "
                    f"{max(rates[: epoch * steps]):g}, its losses or outputs are not finite. "
                    f"Lower the learning rate of the recipe, {recipe.learning_rate:g}."
                )
                return math.nan
            curve.append(right / len(validation_y))
            kept.keep(curve)  # Before the report, which may end the training.
            if report is not None:
                report(epoch, curve[-1])
    return curve[-1]


def evaluate(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, batch_size: int = 400
) -> float:
    """Return the fraction of inputs whose class the network tells; leave it in evaluation mode.

    Args:
        model:
            The network.
        x:
            ``(n, ...)`` tensor of inputs, on any device.
        y:
            ``(n,)`` tensor of their classes, on the device of the network.
        batch_size:
            Inputs per call. It limits the memory and has no effect on the result otherwise.
    """
    right, _ = _count(model, x, y, batch_size)
    return right / len(y)


@torch.inference_mode()
def _count(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, batch_size: int = 400
) -> tuple[int, bool]:
    """Of how many inputs the network tells the class, and whether all its outputs are finite."""
    model.eval()
    right = torch.zeros((), dtype=torch.int64, device=y.device)
    finite = torch.ones((), dtype=torch.bool, device=y.device)
    for inputs, classes in zip(torch.split(x, batch_size), torch.split(y, batch_size)):
        outputs = model(inputs.to(y.device))
        right += (outputs.argmax(dim=1) == classes).sum()
        finite &= outputs.isfinite().all()
    return int(right), bool(finite)  # Asked once, not to wait for a GPU each batch.


def _train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: tuple[torch.Tensor, torch.Tensor],
    data: Data,
    generator: torch.Generator,
    rates: Sequence[float],
    loss_of: _Loss,
    group_decay: float,
    adjust: Callable[[], None] | None,
) -> float:
    """Train for one epoch, a step for each learning rate.

    Args:
        model:
            The network, trained in place and left in training mode.
        optimizer:
            Its optimizer.
        images:
            ``(n, channels, height, width)`` tensor of training images, and ``(n,)`` tensor of
            their classes on the device of the network.
        data:
            Says how images are varied, and how often they come.
        generator:
            Says in which order images come and how they are varied.
        rates:
            Learning rate of each step.
        loss_of:
            The loss of a batch.
        group_decay:
            See :attr:`Recipe.group_decay`.
        adjust:
            May change the gradients of each step.

    Returns:
        The sum of the losses of all steps; not finite if the training diverged.
    """
    model.train()
    x, y = images
    losses = torch.zeros((), device=y.device)
    order = torch.cat(
        [torch.randperm(len(x), generator=generator, device=y.device) for _ in range(data.passes)]
    )
    grouped = grouped_weights(model)
    # Batches of nearly equal size: a last one of a single image would break normalisation.
    for rate, batch in zip(rates, order.tensor_split(len(rates))):
        for group in optimizer.param_groups:
            group["lr"] = rate
        inputs = x[batch.to(x.device)].to(y.device)
        if data.augment is not None:
            inputs = data.augment(inputs, generator)
        with _precision(y.device):
            loss = loss_of(inputs, model(inputs).float(), y[batch])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        if adjust is not None:
            adjust()
        optimizer.step()
        if group_decay:
            shrink_groups(grouped, rate * group_decay)
        losses += loss.detach()
    return float(losses)  # Asked once per epoch, not to wait for a GPU each step.


def _precision(device: torch.device) -> torch.autocast:
    """Multiply in bfloat16 where a GPU is made for it; weights and sums stay in 32 bits."""
    # Of this device: torch.cuda.is_bf16_supported asks for the current one.
    supported = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.autocast(device.type, torch.bfloat16, enabled=supported)


_flags_lock = threading.Lock()
_flags_before: list[tuple[bool, bool]] = []


@contextlib.contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """Have cuDNN take deterministic algorithms, and choose none by its speed."""
    if device.type != "cuda":
        yield
        return
    # Not torch.backends.cudnn.flags, which sets everything else to its defaults, and cuDNN off.
    cudnn = torch.backends.cudnn
    with _flags_lock:
        _flags_before.append((cudnn.deterministic, cudnn.benchmark))
        cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        # The flags are the process's. Of trainings in several threads, in whatever order they
        # end, the last one puts back what was there before the first.
        with _flags_lock:
            cudnn.deterministic, cudnn.benchmark = _flags_before.pop()


def _held(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return images on the device if they leave half of its memory free, else where they are."""
    if device.type == "cuda" and images.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
        return images
    return images.to(device)


def _memory_format(model: nn.Module, device: torch.device) -> torch.memory_format:
    """Channels last: convolutions of few channels run faster so, and those in bfloat16 need it.

    Not on a CPU where a 1 x 1 convolution with a stride has few input channels: oneDNN then writes
    its gradient beyond the memory that it took, and training crashes, hangs or goes wrong
    (https://github.com/uxlfoundation/oneDNN/issues/6035). Seen with fewer than 8 channels, a block
    of AVX2; one of AVX-512 has 16.
    """
    unsafe = device.type == "cpu" and any(
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and max(layer.stride) > 1
        and layer.in_channels // layer.groups < 16
        for layer in model.modules()
    )
    return torch.contiguous_format if unsafe else torch.channels_last


def _loss(recipe: Recipe, teacher: Teacher | None, device: torch.device) -> _Loss:
    head = HEADS[recipe.head]

    def of_classes(_: torch.Tensor, outputs: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        return head.loss(outputs, classes, recipe.label_smoothing)

    if teacher is None:
        return of_classes
    network = teacher.network.to(device).eval()
    weight, temperature = teacher.weight, teacher.temperature

    def taught(inputs: torch.Tensor, outputs: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            opinion = network(inputs).float()
        # Gradients of the divergence shrink with the square of the temperature.
        soft = weight * temperature**2 * head.divergence(outputs, opinion, temperature)
        return (1 - weight) * of_classes(inputs, outputs, classes) + soft

    return taught


def _identity(
    model: nn.Module,
    data: Data,
    epochs: int,
    seed: int,
    device: torch.device,
    recipe: Recipe,
    teacher: Teacher | None,
) -> dict[str, Any]:
    """What a training must have in common with another one to go on from it, as JSON."""
    taught = {} if teacher is None else {"teacher": [teacher.weight, teacher.temperature]}
    return {
        **taught,
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
