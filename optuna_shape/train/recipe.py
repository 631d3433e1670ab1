"""How a network is trained: the optimizer, its learning rates, and what keeps weights small."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from optuna_shape.errors import InvalidProblem
from optuna_shape.train.heads import HEADS


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. Learning rates rise linearly, then fall as half a cosine to zero.

    Attributes:
        optimizer: ``"adamw"`` [Loshchilov2019]_, or ``"sgd"`` with a Nesterov momentum of 0.9; its
            usual settings are those of :meth:`usual`.
        batch_size: Images per step.
        learning_rate: The highest learning rate.
        weight_decay: Decay of the weights of linear layers, convolutions and attention. All else
            has none, such as biases, normalisations, and embeddings.
        group_decay: Structural regularisation: the weights of each output channel (a filter, a
            neuron) are a group whose length shrinks in each step by this times the learning rate
            times the root of its number of weights, down to exactly zero. It is the proximal step
            of the group lasso [Yuan2006]_, [Wen2016]_. It acts on what ``weight_decay`` acts on,
            but for the last layer: the linear layer or convolution that is registered last in the
            network. Of a transposed convolution, input channels are the groups.
        warmup: Fraction of all steps in which the learning rate rises. Deep networks want it long.
        label_smoothing: Share of the target that goes to all classes alike.
        head: What the outputs mean, a key of :data:`~optuna_shape.train.heads.HEADS`.

    Raises:
        InvalidProblem: A value is out of its range.

    .. [Loshchilov2019] Loshchilov, Hutter. Decoupled weight decay regularization. ICLR 2019.
    .. [Yuan2006] Yuan, Lin. Model selection and estimation in regression with grouped variables.
       J. R. Stat. Soc. B 68, 2006.
    .. [Wen2016] Wen et al. Learning structured sparsity in deep neural networks. NeurIPS 2016.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    batch_size: int = 32
    learning_rate: float = 0.01
    weight_decay: float = 0.1
    group_decay: float = 0.0
    warmup: float = 0.3
    label_smoothing: float = 0.1
    head: Literal["softmax", "llr"] = "softmax"

    def __post_init__(self) -> None:
        _require(self, "optimizer", self.optimizer in _USUAL, f"one of {', '.join(_USUAL)}")
        _require(self, "head", self.head in HEADS, f"one of {', '.join(HEADS)}")
        _require(self, "batch_size", self.batch_size >= 1, "1 or more")
        rate = self.learning_rate
        _require(self, "learning_rate", 0 < rate < math.inf, "a number above 0")
        for name in ("weight_decay", "group_decay"):
            _require(self, name, 0 <= getattr(self, name) < math.inf, "0 or more")
        _require(self, "warmup", 0 <= self.warmup <= 1, "a share from 0 to 1")
        smoothing = self.label_smoothing
        _require(self, "label_smoothing", 0 <= smoothing < 1, "a share from 0 to below 1")

    @classmethod
    def usual(cls, optimizer: str, **changes: object) -> Recipe:
        """Return the recipe with an optimizer's usual settings, but for some changes.

        Example:
            >>> Recipe.usual("sgd", batch_size=128).learning_rate
            0.05

        Raises:
            InvalidProblem: There is no such optimizer, or a value is out of its range.
        """
        settings: dict[str, object] = {"optimizer": optimizer, **_USUAL.get(optimizer, {})}
        return cls(**{**settings, **changes})  # type: ignore[arg-type]

    @property
    def gentle(self) -> Recipe:
        """The recipe for a network that has learned before.

        Half the learning rate that random weights want, and soon reached.
        """
        return dataclasses.replace(self, learning_rate=self.learning_rate / 2, warmup=0.1)

    def learning_rates(self, steps: int) -> list[float]:
        """Return the learning rate of each step of a training."""
        rising = max(1, round(self.warmup * steps))

        def factor(step: int) -> float:
            if step < rising:
                return (step + 1) / rising
            return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

        return [self.learning_rate * factor(step) for step in range(steps)]

    def make_optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of a network, which is on the device it will be trained on.

        The first of its two groups holds the weights that decay, the second all other parameters,
        either in the order of the network's parameters.
        """
        weights = decayed_weights(network)
        decayed = set(weights)
        groups = [
            {"params": weights, "weight_decay": self.weight_decay},
            {
                "params": [p for p in network.parameters() if p not in decayed],
                "weight_decay": 0.0,
            },
        ]
        # Fused: one kernel for all parameters, not several for each.
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                groups, lr=self.learning_rate, momentum=0.9, nesterov=True, fused=True
            )
        return torch.optim.AdamW(groups, lr=self.learning_rate, fused=True)


# Per optimizer, what differs from the defaults of the recipe.
_USUAL: dict[str, dict[str, object]] = {
    "adamw": {},
    "sgd": {"learning_rate": 0.05, "weight_decay": 5e-4},
}


# Layers whose weights are rows of channels. Attention has such rows beside those of its layers.
_LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def decayed_weights(network: nn.Module) -> list[nn.Parameter]:
    """See :attr:`Recipe.weight_decay`; in the order of the network's parameters."""
    weights = {
        parameter
        for module in network.modules()
        if isinstance(module, (*_LAYERS, nn.MultiheadAttention))
        for name, parameter in module.named_parameters(recurse=False)
        if name.endswith("weight")
    }
    return [parameter for parameter in network.parameters() if parameter in weights]


def grouped_weights(network: nn.Module) -> list[nn.Parameter]:
    """Return the weights that group decay shrinks, see :attr:`Recipe.group_decay`.

    Without the last layer, whose rows are classes. That is the linear layer or convolution that
    was registered last: a network does not say in which order it runs its layers.
    """
    layers = [module.weight for module in network.modules() if isinstance(module, _LAYERS)]
    last = set(layers[-1:])
    return [weight for weight in decayed_weights(network) if weight not in last]


@torch.no_grad()
def shrink_groups(weights: Iterable[torch.Tensor], amount: float) -> None:
    """Take the proximal step of the group lasso, in place.

    With the ``d`` weights ``w`` of one output channel,

        w <- max(0, 1 - amount sqrt(d) / |w|) w.

    Args:
        weights:
            ``(o, ...)`` tensors, whose first dimension counts output channels.
        amount:
            Learning rate times group decay.
    """
    for weight in weights:
        rows = weight.flatten(1)
        lengths = rows.norm(dim=1).clamp_min(torch.finfo(weight.dtype).tiny)
        kept = (1 - amount * math.sqrt(rows.shape[1]) / lengths).clamp_min(0.0)
        weight.mul_(kept.view(-1, *[1] * (weight.ndim - 1)))


def _require(recipe: Recipe, name: str, holds: bool, expected: str) -> None:
    if not holds:
        raise InvalidProblem(
            f"{name}={getattr(recipe, name)!r} is no setting of a training. Give {expected}."
        )
