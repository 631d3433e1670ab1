r"""How large a network is: bytes of its file, bits that represent it, and the entropy below both.

Of a tensor of :math:`N` numbers of which a share :math:`s` is not zero, and these have the entropy
:math:`H` by the frequencies of their values,

.. math:: N \bigl(h(s) + s H\bigr)

bits is its zero-order entropy, with :math:`h` the binary entropy: no code that takes each number
by itself needs fewer, if the values themselves are known. The first part says which connections
exist, the second one which values they have. As *representation bits* each of :math:`k` distinct
values costs its width too, unless plain numbers take less:

.. math:: N h(s) + \min\bigl(s N H + 32 k,\; 32 s N\bigr).

[Liang2021]_ propose to compare networks by accuracy against the bits of parameters and
connections; only their abstract was at hand, so this count is our reading of it.

.. [Liang2021] Liang, Yi, Liu. On the efficiency of deep neural networks. 2021. OpenReview
   TlPNpabaoV.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import fields

import numpy as np
import torch
from torch import nn

from optuna_shape.compress.coding import as_columns
from optuna_shape.compress.packed import PackedTensor
from optuna_shape.compress.packed import pack


@dataclass(frozen=True)
class Bits:
    """The size of a tensor, or of several.

    Attributes:
        numbers: How many numbers.
        nonzero: How many of them are not zero.
        plain_bytes: What they take as they are.
        packed_bytes: What they take in the format that makes them smallest.
        connection_bits: To say which numbers are not zero.
        value_bits: The entropy of those that are not.
        parameter_bits: That and their distinct values, or plain numbers if these take less.
    """

    numbers: int
    nonzero: int
    plain_bytes: int
    packed_bytes: int
    connection_bits: float
    value_bits: float
    parameter_bits: float

    @property
    def entropy_bits(self) -> float:
        """The zero-order entropy, which no code of single numbers is below."""
        return self.connection_bits + self.value_bits

    @property
    def representation_bits(self) -> float:
        """Bits for parameters and connections."""
        return self.connection_bits + self.parameter_bits

    @property
    def overhead(self) -> float:
        """Packed bits per bit of entropy; infinite where there is none."""
        return 8 * self.packed_bytes / self.entropy_bits if self.entropy_bits else float("inf")

    @property
    def ratio(self) -> float:
        """Plain bytes per packed byte."""
        return self.plain_bytes / self.packed_bytes if self.packed_bytes else float("inf")


def measure(network: nn.Module, formats: Collection[str] | None = None) -> dict[str, Bits]:
    """Measure every parameter and buffer that a checkpoint would hold, by name.

    Args:
        network:
            Any network, on any device.
        formats:
            To pack by, see :mod:`optuna_shape.compress.coding`.

    Raises:
        InvalidCheckpoint: The network keeps something that is no tensor of real numbers.
    """
    state = network.state_dict()
    return {
        packed.name: measure_tensor(state[packed.name], packed)
        for packed in pack(network, formats)
    }


def measure_tensor(tensor: torch.Tensor, packed: PackedTensor) -> Bits:
    """Measure a tensor that was packed."""
    flat = as_columns(tensor).reshape(-1)
    values = flat[flat != 0]
    _, counts = np.unique(values, return_counts=True)
    zeros = len(flat) - len(values)
    width = 8 * tensor.element_size()
    entropy = _entropy(counts)
    return Bits(
        numbers=len(flat),
        nonzero=len(values),
        plain_bytes=tensor.nbytes,
        packed_bytes=len(packed.content),
        connection_bits=_entropy(np.array([zeros, len(values)])),
        value_bits=entropy,
        parameter_bits=min(entropy + width * len(counts), float(width * len(values))),
    )


def total(parts: Iterable[Bits]) -> Bits:
    """Sum the sizes of several tensors, such as those of a whole network."""
    every = list(parts)
    return Bits(*(sum(getattr(part, field.name) for part in every) for field in fields(Bits)))


def _entropy(counts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> float:
    """Return the bits of all symbols that occur so often."""
    counts = counts[counts > 0]
    return float(counts @ (np.log2(counts.sum()) - np.log2(counts))) if len(counts) else 0.0
