"""The energy counters of this machine: of an NVIDIA board, of processor packages."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pynvml
import torch

from optuna_shape.errors import EnergyUnavailable
from optuna_shape.measure.board import Board

Clock = Callable[[], float]

POWERCAP = Path("/sys/class/powercap")

REMEDY = (
    "Measure where a counter can be read, leave energy out of goal and constraints, or accept an "
    "estimate: DeviceMeter(energy='estimate', watts=45) for 45 W x latency."
)


class EnergyCounter(Protocol):
    """A meter that counts joules since some moment."""

    def read(self) -> tuple[float, float]:
        """Return joules so far, and the seconds on the clock when they were read."""
        ...

    def watts(self) -> float | None:
        """Return the power at this moment by a sensor of its own, or None if there is none."""
        ...


class NvmlCounter:
    """The energy counter of an NVIDIA board (Volta or newer): the board, not its host.

    Args:
        device: A CUDA device of torch.
        clock: Tells seconds.

    Raises:
        EnergyUnavailable: There is no driver, no such board or no counter on it.
    """

    def __init__(self, device: torch.device, clock: Clock = time.perf_counter) -> None:
        self._clock = clock
        try:
            self._board = Board(device)
        except pynvml.NVMLError as error:
            raise EnergyUnavailable(f"NVML does not know {device}: {error}. {REMEDY}") from error
        self.read()

    def read(self) -> tuple[float, float]:
        try:
            joules = self._board.joules()
        except pynvml.NVMLError as error:
            raise EnergyUnavailable(
                f"NVML reads no energy from this board: {error}. {REMEDY}"
            ) from error
        return joules, self._clock()

    def watts(self) -> float | None:
        return self._board.watts()


class RaplCounter:
    """The energy counters of all processor packages: of everything that runs on them.

    Args:
        root: Where the kernel shows them.
        clock: Tells seconds.

    Raises:
        EnergyUnavailable: There are none, or they may not be read.
    """

    def __init__(self, root: Path = POWERCAP, clock: Clock = time.perf_counter) -> None:
        self._clock = clock
        # Packages only: cores are parts of them, and "psys" is a whole that they are part of.
        self._packages = [
            zone
            for zone in sorted(root.glob("intel-rapl:*"))
            if (zone / "name").read_text().startswith("package")
        ]
        if not self._packages:
            raise EnergyUnavailable(
                f"RAPL: no processor package in {root}, as in most virtual machines and "
                f"containers. {REMEDY}"
            )
        self._ranges = [self._number(zone / "max_energy_range_uj") for zone in self._packages]
        self._last = self._microjoules()
        self._joules = 0.0

    def read(self) -> tuple[float, float]:
        now = self._microjoules()
        for before, after, size in zip(self._last, now, self._ranges):
            self._joules += (after - before) % size / 1e6  # It starts again from 0.
        self._last = now
        return self._joules, self._clock()

    def watts(self) -> float | None:
        return None

    def _microjoules(self) -> list[int]:
        return [self._number(zone / "energy_uj") for zone in self._packages]

    def _number(self, path: Path) -> int:
        try:
            return int(path.read_text())
        except (OSError, ValueError) as error:
            raise EnergyUnavailable(
                f"RAPL: cannot read {path}: {error}. Since Linux 5.10 only root may; "
                f"`sudo chmod a+r {path.parent.parent}/*/energy_uj` opens it until the next boot. "
                f"{REMEDY}"
            ) from error


def find_counter(device: torch.device) -> EnergyCounter:
    """Return the energy counter of a device.

    Raises:
        EnergyUnavailable: There is none; the message says what was tried, and what helps.
    """
    return NvmlCounter(device) if device.type == "cuda" else RaplCounter()
