"""What the outputs of a network mean, and the loss that makes them mean it.

Both heads read the same ``(n, classes)`` outputs ``z`` of a last linear layer.

``softmax``: the outputs are unnormalised log probabilities, and the loss is the cross-entropy of

    p_c = exp(z_c) / sum_k exp(z_k).

``llr``: each output is the log-likelihood ratio of its class against all others,
``z_c = log p(x | c) - log p(x | not c)``, without normalisation across classes. If all ``C``
classes are equally likely beforehand, the log odds of a class are ``l_c = z_c - log(C - 1)``, and
the loss is the sum over classes of the logistic loss of one class versus the rest,

    log(1 + exp(-t_c l_c)),    with t_c = 1 for the true class and -1 for the others.

The idea is that of [Liang2021]_, who hold the normalisation of softmax to blame for weights that
grow without need: it leaves a shift of all outputs free, and rewards ever larger differences. Only
their abstract was at hand; these formulas are our reading of it.

.. [Liang2021] Liang, Yi, Liu. On the efficiency of deep neural networks. 2021. OpenReview
   TlPNpabaoV.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch
import torch.nn.functional as F


class Head(Protocol):
    """A reading of outputs; ``argmax`` of the outputs is the class told by either."""

    def loss(self, outputs: torch.Tensor, classes: torch.Tensor, smoothing: float) -> torch.Tensor:
        """Return the mean loss of a batch.

        Args:
            outputs: ``(n, c)`` tensor.
            classes: ``(n,)`` int64 tensor of the true classes.
            smoothing: Share of the target that goes to all classes alike, in [0, 1).
        """

    def divergence(
        self, outputs: torch.Tensor, teacher: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        """Return the mean Kullback-Leibler divergence from a teacher's probabilities.

        Args:
            outputs: ``(n, c)`` tensor.
            teacher: ``(n, c)`` tensor of the outputs of the teacher.
            temperature: Divides the logits of both, above 0.
        """

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the probability of each class, ``(n, c)``; only of softmax do they sum to 1."""


class Softmax:
    """Normalised across classes."""

    def loss(self, outputs: torch.Tensor, classes: torch.Tensor, smoothing: float) -> torch.Tensor:
        return F.cross_entropy(outputs, classes, label_smoothing=smoothing)

    def divergence(
        self, outputs: torch.Tensor, teacher: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        return F.kl_div(
            F.log_softmax(outputs / temperature, dim=1),
            F.log_softmax(teacher / temperature, dim=1),
            reduction="batchmean",
            log_target=True,
        )

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        return F.softmax(outputs, dim=1)


class LogLikelihoodRatio:
    """One versus the rest, for each class by itself."""

    def loss(self, outputs: torch.Tensor, classes: torch.Tensor, smoothing: float) -> torch.Tensor:
        truth = F.one_hot(classes, outputs.shape[1])
        target = (1 - smoothing) * truth + smoothing / outputs.shape[1]
        return _logistic(_log_odds(outputs), target)

    def divergence(
        self, outputs: torch.Tensor, teacher: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        logits = _log_odds(teacher) / temperature
        target = logits.sigmoid()
        own = _logistic(_log_odds(outputs) / temperature, target)
        return own - _logistic(logits, target)

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        return _log_odds(outputs).sigmoid()


#: The heads by name.
HEADS: Mapping[str, Head] = {"softmax": Softmax(), "llr": LogLikelihoodRatio()}


def _log_odds(outputs: torch.Tensor) -> torch.Tensor:
    return outputs - math.log(outputs.shape[1] - 1)


def _logistic(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Sum over classes, mean over the batch, as a cross-entropy is."""
    total = F.binary_cross_entropy_with_logits(logits, target.to(logits), reduction="sum")
    return total / len(logits)
