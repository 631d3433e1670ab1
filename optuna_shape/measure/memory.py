"""Peak memory of one call of a network on a CUDA device."""

from __future__ import annotations

import gc
from collections.abc import Callable
from collections.abc import Sequence

import torch

from optuna_shape.errors import MeasurementUnavailable
from optuna_shape.measure.measurement import Measurement
from optuna_shape.measure.running import Call
from optuna_shape.measure.running import impossible
from optuna_shape.space import Shape


def measure_memory(
    shapes: Sequence[Shape],
    prepare: Callable[[Shape], Call],
    device: torch.device,
    fingerprint: str,
) -> dict[Shape, Measurement]:
    """Measure the peak of the memory that each network takes, in bytes.

    These are the tensors (weights, input, activations, workspace) as the allocator counts them,
    without the CUDA context, what libraries keep for good, and what others hold.

    Raises:
        MeasurementUnavailable: The device is not a CUDA device.
    """
    if device.type != "cuda":
        raise MeasurementUnavailable(
            f"Peak memory is counted by the allocator of CUDA, and there is none for {device}. "
            "Constrain 'size' or 'parameters' instead, or use DeviceMeter(device='cuda')."
        )

    def measure(shape: Shape) -> Measurement:
        try:
            # cuBLAS keeps a workspace from its first call on: not this network's.
            prepare(shape)()
            gc.collect()  # A network may hold itself, and would be freed at any time.
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            prepare(shape)()
        except Exception as error:
            return impossible(error, fingerprint)
        return Measurement.exact(torch.cuda.max_memory_allocated(device) - before, fingerprint)

    return {shape: measure(shape) for shape in shapes}
