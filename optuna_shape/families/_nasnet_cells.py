"""The two cells of NASNet-A [Zoph2018]_, and the operations that they are made of.

A cell takes the outputs of the two cells before it, makes five sums of two operations each, and
concatenates all states that no sum has used. Which operations and states was found by the search
of the publication; the wiring here is that of its authors' implementation (TensorFlow Slim).

.. [Zoph2018] Zoph, Vasudevan, Shlens, Le. Learning transferable architectures for scalable image
   recognition. CVPR 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import nn

#: How the output of the cell before the last relates to that of the last: it is the same tensor,
#: another of the same size, or one twice as high and wide.
Relation: TypeAlias = Literal["itself", "same", "larger"]


@dataclass(frozen=True)
class Wiring:
    """What a cell computes.

    States 0 and 1 are the output of the cell before and of the one before that, brought to the
    cell's filters; states 2 to 6 are the sums.

    Attributes:
        sums: For each sum, its two terms: an operation and the state that it is applied to.
        outputs: The states that are concatenated.
        stride: Stride of the operations on states 0 and 1.
    """

    sums: tuple[tuple[tuple[str, int], tuple[str, int]], ...]
    outputs: tuple[int, ...]
    stride: int


NORMAL = Wiring(
    sums=(
        (("separable 5", 0), ("separable 3", 1)),
        (("separable 5", 1), ("separable 3", 1)),
        (("average", 0), ("same", 1)),
        (("average", 1), ("average", 1)),
        (("separable 3", 0), ("same", 0)),
    ),
    outputs=(1, 2, 3, 4, 5, 6),
    stride=1,
)

REDUCTION = Wiring(
    sums=(
        (("separable 5", 0), ("separable 7", 1)),
        (("maximum", 0), ("separable 7", 1)),
        (("average", 0), ("separable 5", 1)),
        (("same", 3), ("average", 2)),
        (("separable 3", 2), ("maximum", 0)),
    ),
    outputs=(3, 4, 5, 6),
    stride=2,
)


class Cell(nn.Module):
    """One cell: ``(x, previous) -> y``.

    ``x`` is ``(n, inputs, h, w)``. ``y`` is ``(n, outputs, h, w)``, or half as high and wide,
    rounded up, of a reduction cell.

    Args:
        wiring: :data:`NORMAL` or :data:`REDUCTION`.
        inputs: Channels of ``x``.
        previous: Channels of ``previous``.
        filters: Channels of each state.
        relation: How ``previous`` relates to ``x``.
        drop_path: Probability by which a path is dropped at the end of the training.
    """

    def __init__(
        self,
        wiring: Wiring,
        *,
        inputs: int,
        previous: int,
        filters: int,
        relation: Relation,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.entry = _activated_conv(inputs, filters)
        # What is the input itself enters as it is: the operations adapt its channels.
        self.previous_entry: nn.Module = nn.Identity()
        if relation == "larger":
            self.previous_entry = _FactorizedReduction(previous, filters)
        elif relation == "same":
            self.previous_entry = _activated_conv(previous, filters)
        channels = [filters, inputs if relation == "itself" else filters]
        channels += [filters] * len(wiring.sums)
        self.terms = nn.ModuleList(
            _term(
                operation,
                channels[state],
                filters,
                wiring.stride if state < 2 else 1,
                drop_path,
            )
            for pair in wiring.sums
            for operation, state in pair
        )
        self.exits = nn.ModuleList(
            nn.Identity() if channels[state] == filters else _conv(channels[state], filters)
            for state in wiring.outputs
        )
        self.wiring = wiring
        self.outputs = filters * len(wiring.outputs)

    def forward(self, x: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
        states = [self.entry(x), self.previous_entry(previous)]
        terms = iter(self.terms)
        for (_, left), (_, right) in self.wiring.sums:
            states.append(next(terms)(states[left]) + next(terms)(states[right]))
        return torch.cat(
            [leave(states[state]) for leave, state in zip(self.exits, self.wiring.outputs)], dim=1
        )


class DropPath(nn.Module):
    """While training, drop all of an input of the batch, and make up for it in the others.

    Attributes:
        highest: The probability at the end of the training.
        progress: Share of the training that is done, in [0, 1].
    """

    def __init__(self, highest: float) -> None:
        super().__init__()
        self.highest = highest
        self.progress = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        probability = self.highest * self.progress
        if not self.training or probability == 0:
            return x
        kept = 1 - probability
        return x * x.new_empty(len(x), 1, 1, 1).bernoulli_(kept).div_(kept)


class _FactorizedReduction(nn.Module):
    """Halve an image without losing pixels: half of the channels see it shifted by one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(inputs, outputs // 2, kernel_size=1, bias=False)
        self.odd = nn.Conv2d(inputs, outputs - outputs // 2, kernel_size=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(x)
        odd = F.pad(x, (0, 1, 0, 1))[:, :, 1::2, 1::2]
        y: torch.Tensor = self.norm(
            torch.cat([self.even(x[:, :, ::2, ::2]), self.odd(odd)], dim=1)
        )
        return y


def _term(operation: str, inputs: int, outputs: int, stride: int, drop_path: float) -> nn.Module:
    """Return an operation and what follows it in a sum: channels adapted, paths dropped."""
    if operation == "same":
        return nn.Identity() if inputs == outputs else _activated_conv(inputs, outputs)
    kind, _, kernel = operation.partition(" ")
    layers: list[nn.Module]
    if kind == "separable":
        layers = [
            *_separable(inputs, outputs, int(kernel), stride),
            *_separable(outputs, outputs, int(kernel), stride=1),
        ]
    else:
        layers = [_pooling(kind, stride)]
        if inputs != outputs:
            layers.append(_conv(inputs, outputs))
    return nn.Sequential(*layers, DropPath(drop_path))


def _pooling(kind: str, stride: int) -> nn.Module:
    if kind == "maximum":
        return nn.MaxPool2d(kernel_size=3, stride=stride, padding=1)
    return nn.AvgPool2d(kernel_size=3, stride=stride, padding=1, count_include_pad=False)


def _separable(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    depthwise = nn.Conv2d(
        inputs, inputs, kernel, stride=stride, padding=kernel // 2, groups=inputs, bias=False
    )
    return [nn.ReLU(), depthwise, *_conv(inputs, outputs)]


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size=1, bias=False), nn.BatchNorm2d(outputs)
    )


def _activated_conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), *_conv(inputs, outputs))
