"""What ``replay.py`` and ``live.py`` let compete with ShapeSampler, behind one small interface.

A rival picks positions ``(i, j)``: indices into the listed depths and widths. Indices, not the
depths and widths themselves, because the lists are spaced as the user would have the search see
them; a sampler of integers could otherwise suggest a depth that is not listed.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import Protocol

import optuna
from optuna.pruners import BasePruner
from optuna.pruners import HyperbandPruner
from optuna.pruners import MedianPruner
from optuna.pruners import NopPruner
from optuna.samplers import BaseSampler
from optuna.trial import Trial
from optuna.trial import TrialState

Position = tuple[int, int]


class Rival(Protocol):
    """A search that is asked for a shape and told what came of it, one at a time.

    ``excess`` holds a number per constraint, above 0 where it is violated.
    """

    def ask(self, forced: Position | None) -> Position:
        """The next pick; ``forced`` is what it has to be, if anything."""

    def report(self, accuracy: float, epoch: int) -> bool:
        """Show the accuracy after an epoch; whether to cut the training here."""

    def complete(self, value: float, excess: Mapping[str, float]) -> None:
        """The goal's value, to be minimised or maximised, of a full training."""

    def cut(self, excess: Mapping[str, float]) -> None:
        """The training was cut short as the rival asked."""

    def reject(self, excess: Mapping[str, float]) -> None:
        """The pick is over a constraint that is known before training."""


class OptunaRival:
    """A sampler and a pruner of Optuna, by ask and tell.

    Constraints are told by ``trial.set_constraint``. A pick over a hard constraint is told as a
    pruned trial, as ``ShapeProblem.suggest`` does for any sampler. Where the goal is minimised the
    pruner sees the error instead of the accuracy. The study needs a name of its seed, as
    HyperbandPruner divides trials by it, and a study without a name has a random one.
    """

    def __init__(
        self,
        name: str,
        sampler: BaseSampler,
        pruner: BasePruner,
        *,
        maximize: bool,
        lengths: Position,
    ) -> None:
        self._maximize = maximize
        self._lengths = lengths
        direction = "maximize" if maximize else "minimize"
        self._study = optuna.create_study(
            study_name=name, direction=direction, sampler=sampler, pruner=pruner
        )
        self._trial: Trial | None = None

    def ask(self, forced: Position | None) -> Position:
        if forced is not None:
            self._study.enqueue_trial({"depth": forced[0], "width": forced[1]})
        self._trial = self._study.ask()
        return (
            self._trial.suggest_int("depth", 0, self._lengths[0] - 1),
            self._trial.suggest_int("width", 0, self._lengths[1] - 1),
        )

    def report(self, accuracy: float, epoch: int) -> bool:
        assert self._trial is not None
        self._trial.report(accuracy if self._maximize else 1 - accuracy, epoch)
        return self._trial.should_prune()

    def complete(self, value: float, excess: Mapping[str, float]) -> None:
        self._tell(excess, values=value)

    def cut(self, excess: Mapping[str, float]) -> None:
        self._tell(excess, state=TrialState.PRUNED)

    def reject(self, excess: Mapping[str, float]) -> None:
        self._tell(excess, state=TrialState.PRUNED)

    def _tell(self, excess: Mapping[str, float], **what: Any) -> None:
        assert self._trial is not None
        for name, value in excess.items():
            self._trial.set_constraint(name, value)
        # GridSampler calls study.stop() after its last shape, which ask and tell cannot obey.
        is_grid = isinstance(self._study.sampler, optuna.samplers.GridSampler)
        with contextlib.suppress(RuntimeError) if is_grid else contextlib.nullcontext():
            self._study.tell(self._trial, **what)


class AxRival:
    """Ax's client with its defaults; it prunes nothing here."""

    def __init__(
        self, seed: int, *, maximize: bool, lengths: Position, constraints: list[str]
    ) -> None:
        from ax.api.client import Client
        from ax.api.configs import RangeParameterConfig
        from ax.utils.common.logger import set_ax_logger_levels

        set_ax_logger_levels(logging.ERROR)
        self._constraints = constraints
        self._client = Client(random_seed=seed)
        self._client.configure_experiment(
            [
                RangeParameterConfig(name, (0, length - 1), "int")
                for name, length in zip(("depth", "width"), lengths)
            ]
        )
        self._client.configure_optimization(
            "goal" if maximize else "-goal", [f"{name} <= 0" for name in constraints]
        )
        self._client.configure_generation_strategy(initialization_random_seed=seed)
        self._trial = -1

    def ask(self, forced: Position | None) -> Position:
        if forced is not None:
            self._trial = self._client.attach_trial({"depth": forced[0], "width": forced[1]})
            return forced
        ((self._trial, picked),) = self._client.get_next_trials(1).items()
        return int(picked["depth"]), int(picked["width"])

    def report(self, accuracy: float, epoch: int) -> bool:
        return False

    def complete(self, value: float, excess: Mapping[str, float]) -> None:
        told = {name: excess[name] for name in self._constraints}
        self._client.complete_trial(self._trial, {"goal": value, **told})

    def cut(self, excess: Mapping[str, float]) -> None:
        raise AssertionError("Ax never asked for it")

    def reject(self, excess: Mapping[str, float]) -> None:
        self._client.mark_trial_abandoned(self._trial)


def _grid(seed: int, lengths: Position) -> BaseSampler:
    axes = {name: list(range(n)) for name, n in zip(("depth", "width"), lengths)}
    return optuna.samplers.GridSampler(axes, seed=seed)


def _botorch(seed: int, lengths: Position) -> BaseSampler:
    from optuna_integration import BoTorchSampler

    return BoTorchSampler(seed=seed)


def _tpe(seed: int, lengths: Position) -> BaseSampler:
    return optuna.samplers.TPESampler(seed=seed)


def _gp(seed: int, lengths: Position) -> BaseSampler:
    return optuna.samplers.GPSampler(seed=seed)


#: Samplers and pruners of Optuna by name: ``sampler(seed, lengths)``, ``pruner(epochs)``.
OPTUNA: dict[str, tuple[Callable[[int, Position], BaseSampler], Callable[[int], BasePruner]]] = {
    "Random": (lambda seed, _: optuna.samplers.RandomSampler(seed), lambda _: NopPruner()),
    "Grid": (_grid, lambda _: NopPruner()),
    "TPE": (_tpe, lambda _: NopPruner()),
    "TPE + Hyperband": (_tpe, lambda epochs: HyperbandPruner(max_resource=epochs)),
    "GP": (_gp, lambda _: NopPruner()),
    "GP + Median": (_gp, lambda _: MedianPruner()),
    "BoTorch": (_botorch, lambda _: NopPruner()),
}
AX = "Ax"
NAMES = (*OPTUNA, AX)
#: Those that think for a second per pick.
SLOW = frozenset({"GP", "GP + Median", "BoTorch", AX})


def make(
    name: str,
    seed: int,
    *,
    maximize: bool,
    lengths: Position,
    epochs: int,
    constraints: list[str],
) -> Rival:
    """Make a rival.

    Raises:
        ImportError: It is not installed.
    """
    if name == AX:
        return AxRival(seed, maximize=maximize, lengths=lengths, constraints=constraints)
    sampler, pruner = OPTUNA[name]
    return OptunaRival(
        f"{name}, {seed}",
        sampler(seed, lengths),
        pruner(epochs),
        maximize=maximize,
        lengths=lengths,
    )
