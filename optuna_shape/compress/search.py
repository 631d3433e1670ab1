"""How far a trained network can be compressed: a study of its own, on validation images.

Each trial prunes the trained network, retrains it, shares its weights and retrains the values that
are left. The study minimises the bits of the packed tensors, and holds the loss of validation
accuracy as a constraint. The format is no parameter of it, since it needs no training: of each
tensor all formats are tried, and the smallest is taken.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from typing import Literal

import optuna
import torch
from torch import nn

from optuna_shape.compress.measures import measure
from optuna_shape.compress.measures import total
from optuna_shape.compress.pruning import prune
from optuna_shape.compress.quantizers import QUANTIZERS
from optuna_shape.compress.retraining import retrain_pruned
from optuna_shape.compress.retraining import retrain_shared
from optuna_shape.compress.sharing import share_weights
from optuna_shape.compress.weights import weights_of
from optuna_shape.errors import InvalidProblem
from optuna_shape.train.checkpoint import copied
from optuna_shape.train.data import Data
from optuna_shape.train.recipe import Recipe
from optuna_shape.train.trainer import evaluate

#: Percentiles of the magnitudes to prune up to. They are few, so that trials have trainings in
#: common, and the denser the fewer weights are left.
PERCENTILES = (0.0, 30.0, 50.0, 60.0, 70.0, 80.0, 85.0, 90.0, 93.0, 95.0, 96.5, 98.0, 99.0)
#: Fewest and most values that weights of a layer share.
VALUES = (2, 256)
# What is tried first, from mild to harsh: percentile and number of values.
_FIRST = ((0.0, 256), (50.0, 64), (80.0, 32), (90.0, 32), (95.0, 16))
# Shared values learn slower than weights: each follows the gradients of many.
_SLOWER = 0.1
# Of accuracies, that are counts of images by their number.
_ROUNDING = 1e-9
_DEFAULT = Recipe()

#: Which bits of a :class:`Point`.
Size = Literal["bits", "representation_bits"]


@dataclass(frozen=True)
class Setting:
    """How a network is compressed.

    Attributes:
        percentile: Of the magnitudes of all weights; those up to it become zero.
        k: Values that the weights of each layer share.
        method: By which, one of :data:`~optuna_shape.compress.quantizers.QUANTIZERS`.
        rounded: Whether all numbers that are no weights become bfloat16 numbers.
    """

    percentile: float
    k: int
    method: str
    rounded: bool


@dataclass(frozen=True)
class Point:
    """What came of a setting.

    Attributes:
        setting: How the network was compressed; None for the network as it was trained.
        bits: Of its packed tensors.
        representation_bits: See :mod:`optuna_shape.compress.measures`.
        accuracy: On the validation images, a fraction.
    """

    setting: Setting | None
    bits: int
    representation_bits: float
    accuracy: float


@dataclass(frozen=True)
class Compression:
    """What a search has found.

    Attributes:
        points: All networks that were tried, the one as it was trained first.
        best: The one of the fewest bits within the allowed drop.
    """

    points: tuple[Point, ...]
    best: Point

    @property
    def trained(self) -> Point:
        """The network as it was trained."""
        return self.points[0]


def curve(points: Iterable[Point], by: Size = "bits") -> list[Point]:
    """Return the accuracy-against-bits curve: the points that no other one is better than.

    They come by bits, and each is more accurate than all that take as few or fewer. Packed bits
    depend on the formats at hand, ``representation_bits`` on the network alone.
    """
    result: list[Point] = []
    for point in sorted(points, key=lambda point: (getattr(point, by), -point.accuracy)):
        if not result or point.accuracy > result[-1].accuracy:
            result.append(point)
    return result


@torch.no_grad()
def round_others(network: nn.Module) -> None:
    """Round all floating-point numbers that are no weights to bfloat16 numbers, in place."""
    weights = {weight.data_ptr() for weight in weights_of(network).values()}
    for tensor in network.state_dict().values():
        # By its memory: a weight may have two names.
        if tensor.data_ptr() not in weights and tensor.is_floating_point():
            tensor.copy_(tensor.bfloat16())


def compress(
    network: nn.Module,
    data: Data,
    *,
    drop: float,
    trials: int,
    epochs: int,
    seed: int,
    device: torch.device | str = "cpu",
    recipe: Recipe = _DEFAULT,
    formats: Collection[str] | None = None,
    report: Callable[[Point], None] | None = None,
) -> Compression:
    """Search the fewest bits within a drop of validation accuracy; the network becomes that one.

    On a CPU, the same arguments give the same result, but for layers that draw from torch's global
    generator, which is the caller's.

    Args:
        network:
            A trained network, changed in place and left on ``device`` in evaluation mode.
        data:
            What to retrain and to validate on. Its test images are not looked at.
        drop:
            Of validation accuracy that is allowed, a fraction: 0.002 is 0.2 percentage points.
        trials:
            How many settings to try. The network as it was trained is none of them.
        epochs:
            To retrain for, each time: after pruning, and after sharing.
        seed:
            Of the decisions, of the trainings, and of the method ``probabilistic``.
        device:
            Where to train.
        recipe:
            How the network was trained. It is retrained by its gentle form.
        formats:
            To pack by, see :mod:`optuna_shape.compress.coding`.
        report:
            Called with each point, that of the trained network first.

    Raises:
        InvalidProblem: The drop is no fraction, there is no trial or epoch, or the network has no
            weights.
        InvalidCheckpoint: The network keeps something that is no tensor of real numbers.
    """
    if not 0 <= drop < 1:
        raise InvalidProblem(f"drop={drop!r} is no drop of accuracy. Give 0 or more, and below 1.")
    if trials < 1 or epochs < 1:
        raise InvalidProblem(f"trials={trials} and epochs={epochs} search nothing. Give 1 each.")
    network.to(device)
    tries = _Tries(network, data, epochs, seed, torch.device(device), recipe.gentle, formats)
    points = [tries.measured(None)]
    best, weights = points[0], copied(network.state_dict())
    known: dict[Setting, Point | None] = {}  # None where the training diverged.
    if report is not None:
        report(best)

    def objective(trial: optuna.Trial) -> float:
        nonlocal best, weights
        setting = _suggest(trial)
        new = setting not in known
        if new:
            known[setting] = tries.run(setting)
        point = known[setting]
        if point is None:
            trial.set_constraint("drop", 1.0)
            raise optuna.TrialPruned("The training diverged.")
        excess = points[0].accuracy - point.accuracy - drop - _ROUNDING
        trial.set_constraint("drop", excess)
        if new:
            points.append(point)
            if excess <= 0 and point.bits < best.bits:
                best, weights = point, copied(network.state_dict())
            if report is not None:
                report(point)
        return float(point.bits)

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    for percentile, k in _FIRST:
        level = PERCENTILES.index(percentile)
        study.enqueue_trial({"level": level, "k": k, "method": "kmeans", "rounded": True})
    study.optimize(objective, n_trials=trials)
    network.load_state_dict(weights)
    return Compression(tuple(points), best)


def _suggest(trial: optuna.Trial) -> Setting:
    return Setting(
        # By its place: percentiles are ordered, but not evenly.
        percentile=PERCENTILES[trial.suggest_int("level", 0, len(PERCENTILES) - 1)],
        k=trial.suggest_int("k", *VALUES, log=True),
        method=trial.suggest_categorical("method", list(QUANTIZERS)),
        rounded=trial.suggest_categorical("rounded", [True, False]),
    )


class _Tries:
    """Compresses a network, time and again from how it was trained."""

    def __init__(
        self,
        network: nn.Module,
        data: Data,
        epochs: int,
        seed: int,
        device: torch.device,
        recipe: Recipe,
        formats: Collection[str] | None,
    ) -> None:
        self._network = network
        self._data = data
        self._training: dict[str, Any] = {"epochs": epochs, "seed": seed, "device": device}
        self._recipe = recipe
        self._formats = formats
        self._labels = data.validation_y.to(device)
        # By percentile; None where the training diverged. What is not pruned is not retrained.
        self._trained = copied(network.state_dict())
        self._pruned: dict[float, dict[str, torch.Tensor] | None] = {0.0: self._trained}

    def run(self, setting: Setting) -> Point | None:
        """Let the network become that of a setting; return None if a training diverges."""
        weights = self._prune(setting.percentile)
        if weights is None:
            return None
        self._network.load_state_dict(weights)
        share_weights(self._network, setting.k, method=setting.method, seed=self._training["seed"])
        slow = dataclasses.replace(
            self._recipe,
            learning_rate=_SLOWER * self._recipe.learning_rate,
            weight_decay=0.0,
        )
        accuracy = retrain_shared(self._network, self._data, **self._training, recipe=slow)
        if math.isnan(accuracy):
            return None
        if setting.rounded:
            round_others(self._network)
        return self.measured(setting)

    def measured(self, setting: Setting | None) -> Point:
        """Measure the network as it is."""
        whole = total(measure(self._network, self._formats).values())
        accuracy = evaluate(self._network, self._data.validation_x, self._labels)
        return Point(setting, 8 * whole.packed_bytes, whole.representation_bits, accuracy)

    def _prune(self, percentile: float) -> dict[str, torch.Tensor] | None:
        """Return the weights after pruning and retraining; None if that diverges."""
        if percentile not in self._pruned:
            self._network.load_state_dict(self._trained)
            prune(self._network, percentile / 100, scope="global")
            accuracy = retrain_pruned(
                self._network, self._data, **self._training, recipe=self._recipe
            )
            diverged = math.isnan(accuracy)
            self._pruned[percentile] = None if diverged else copied(self._network.state_dict())
        return self._pruned[percentile]
