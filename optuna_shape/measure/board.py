"""What the driver of an NVIDIA board says of it, through NVML."""

from __future__ import annotations

import os
from typing import Any

import pynvml
import torch

from optuna_shape.errors import NoisyMachine

#: Reasons for slow clocks that are no part of a board's usual state. Its power limit is one.
_FAULTS = {
    0x08: "hardware slow-down",
    0x20: "thermal limit, by software",
    0x40: "thermal limit, by hardware",
    0x80: "power brake",
}
_BOARD = 0  # scope of a power reading: the board, not the module around it


def slowed_down(reason: str) -> NoisyMachine:
    """Return the error that says so."""
    return NoisyMachine(
        f"The device is being slowed down ({reason}) most of the time, so that what it measures "
        "is not its usual state. Let it cool or mend its power supply, see `nvidia-smi -q -d "
        "PERFORMANCE,TEMPERATURE`, and start again."
    )


class Board:
    """The board behind a CUDA device, found by its UUID, since NVML counts boards otherwise.

    Args:
        device: A CUDA device of torch.

    Raises:
        pynvml.NVMLError: There is no driver, or it does not know the device.
    """

    def __init__(self, device: torch.device) -> None:
        self.uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        pynvml.nvmlInit()
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(self.uuid)

    def slowed_by(self) -> str:
        """Return why the clocks are slower than load and power limit explain; empty if not."""
        try:
            reasons = pynvml.nvmlDeviceGetCurrentClocksEventReasons(self._handle)
        except pynvml.NVMLError:
            return ""  # Not every board tells.
        return ", ".join(text for bit, text in _FAULTS.items() if reasons & bit)

    def strangers(self) -> int:
        """Return the number of processes on the board that are not of this process's group.

        The group is that of a job of the shell: what this process has started is part of it.
        Where processes have other numbers in here than the driver knows, as in containers, 0.
        """
        try:
            running = pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except pynvml.NVMLError:
            return 0
        pids = {process.pid for process in running}
        return sum(_group(pid) != os.getpgrp() for pid in pids) if os.getpid() in pids else 0

    def joules(self) -> float:
        """Return the energy since the driver was loaded.

        Raises:
            pynvml.NVMLError: The board has no counter.
        """
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3

    def watts(self) -> float | None:
        """Return the power at this moment, or None if the board does not tell.

        Not ``nvmlDeviceGetPowerUsage``: that is the mean of a second on most boards.
        """
        field: Any
        try:
            (field,) = pynvml.nvmlDeviceGetFieldValues(
                self._handle, [(pynvml.NVML_FI_DEV_POWER_INSTANT, _BOARD)]
            )
        except pynvml.NVMLError:
            return None
        return field.value.uiVal / 1e3 if field.nvmlReturn == pynvml.NVML_SUCCESS else None


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None
