"""How the weights of a wider network are made of those of a narrower one.

Net2WiderNet [Chen2016]_: a channel of the child continues one of the parent, several may continue
the same, and then those who read it divide its weight among them. With weights ``V`` that read the
channels of the parent and ``g(j)`` the channel that channel ``j`` of the child continues,

    W[i, j] = share[i, j] V[g(i), g(j)],    where the shares of all j of the same g(j) sum to 1.

The publication takes equal shares, and adds noise because equal replicas would learn the same
forever. Here the shares are drawn for each reader instead: replicas see different gradients, and
the function stays what it was.

.. [Chen2016] Chen, Goodfellow, Shlens. Net2Net: accelerating learning via knowledge transfer.
   ICLR 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

_NEW = -1


@dataclass(frozen=True)
class Channels:
    """Which channel of the parent each channel of the child continues.

    Attributes:
        sources: ``(c,)`` tensor of the parent's channels, -1 for a channel that is new.
        count: How many channels the parent has.
    """

    sources: torch.Tensor
    count: int

    @classmethod
    def spread(cls, child: int, parent: int) -> Channels:
        """The parent's channels in turn, again and again; only the first ones of a wider parent.

        Example:
            >>> Channels.spread(5, 3).sources.tolist()
            [0, 1, 2, 0, 1]
        """
        return cls(torch.arange(child) % parent, parent) if parent else cls.new(child)

    @classmethod
    def new(cls, child: int) -> Channels:
        """Channels that the parent has not."""
        return cls(torch.full((child,), _NEW), 0)

    @classmethod
    def joined(cls, parts: Sequence[Channels]) -> Channels:
        """The channels of several tensors, concatenated in the child as in the parent."""
        sources, count = [], 0
        for part in parts:
            sources.append(torch.where(part.old, part.sources + count, _NEW))
            count += part.count
        return cls(torch.cat(sources), count)

    @property
    def old(self) -> torch.Tensor:
        """``(c,)`` tensor: whether a channel continues one of the parent."""
        return self.sources != _NEW

    @property
    def complete(self) -> bool:
        """Whether every channel of the parent goes on."""
        return len({*self.sources[self.old].tolist()}) == self.count

    def shares(self, readers: int, generator: torch.Generator) -> torch.Tensor:
        """Draw what part of the parent's weight each channel gets, 0 for a new one.

        Returns:
            ``(readers, c)`` tensor. In each row, channels that continue the same one sum to 1.
        """
        drawn = torch.rand((readers, len(self.sources)), generator=generator) + 0.5
        drawn = torch.where(self.old, drawn, 0.0)
        sources = self.sources.clamp(min=0)
        totals = torch.zeros(readers, self.count).index_add_(1, sources, drawn)
        return torch.where(self.old, drawn / totals[:, sources], 0.0)


@torch.no_grad()
def fill_weight(
    child: torch.Tensor,
    parent: torch.Tensor,
    outputs: Channels,
    inputs: Channels,
    generator: torch.Generator,
) -> None:
    """Fill the weight of a linear map or of a convolution.

    A new output keeps its weights: whatever it tells, nobody who continues the parent listens.

    Args:
        child:
            ``(o, i, ...)`` tensor, changed in place.
        parent:
            Likewise, of the parent's channels.
        outputs:
            The ``o`` channels.
        inputs:
            The ``i`` channels.
        generator:
            Draws the shares.
    """
    source = parent.detach().cpu()[outputs.sources[outputs.old]]
    shares = inputs.shares(len(source), generator).to(source.dtype)
    shares = shares.reshape(*shares.shape, *[1] * (source.ndim - 2))
    _write(child, outputs, source[:, inputs.sources.clamp(min=0)] * shares)


@torch.no_grad()
def fill_rows(child: torch.Tensor, parent: torch.Tensor, channels: Channels) -> None:
    """Fill what each channel has of its own: a bias, a depthwise filter, a statistic.

    Args:
        child:
            ``(c, ...)`` tensor, changed in place.
        parent:
            Likewise, of the parent's channels.
        channels:
            The ``c`` channels.
    """
    _write(child, channels, parent.detach().cpu()[channels.sources[channels.old]])


@torch.no_grad()
def fill_norm(child: nn.Module, parent: nn.Module, channels: Channels) -> None:
    """Fill a normalisation, with its running statistics if it has any."""
    theirs = parent.state_dict()
    for name, tensor in child.state_dict().items():  # They share memory with the module's own.
        if tensor.ndim == 0:
            tensor.copy_(theirs[name])  # Number of batches seen.
        else:
            fill_rows(tensor, theirs[name], channels)


@torch.no_grad()
def fill_overlap(child: nn.Module, parent: nn.Module) -> bool:
    """Copy the leading part that tensors of the same name have in common.

    Returns:
        Whether there was any.
    """
    theirs = parent.state_dict()
    found = False
    for name, tensor in child.state_dict().items():
        other = theirs.get(name)
        if other is None or other.ndim != tensor.ndim:
            continue
        found = True
        part = tuple(slice(min(sizes)) for sizes in zip(tensor.shape, other.shape))
        tensor[part].copy_(other[part])
    return found


def _write(child: torch.Tensor, channels: Channels, rows: torch.Tensor) -> None:
    child[channels.old.to(child.device)] = rows.to(child)
