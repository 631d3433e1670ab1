"""Networks on their device, ready to be called: what latency, energy and memory have in common."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from typing import Literal

import torch
from torch import nn

from optuna_shape.errors import BuildFailed
from optuna_shape.errors import MeasurementUnavailable
from optuna_shape.measure.counting import preserved_randomness
from optuna_shape.measure.measurement import Measurement
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape

#: One forward pass of one batch; returns when the device is done, or, where the device keeps the
#: time, when it has been told.
Call = Callable[[], None]
Timing = Literal["host", "device"]

NO_INPUT = (
    "Networks have to run to be measured, and the shape of their input is not known. "
    "State it: DesignSpace(..., input_shape=(3, 32, 32))."
)

# Allocators other than the caching one of CUDA raise a plain RuntimeError.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")


@dataclass(frozen=True)
class Setting:
    """How a network is deployed, and hence how it is measured.

    Attributes:
        device: Where it runs.
        batch_size: Inputs per call.
        dtype: Of weights and inputs.
        channels_last: Whether images and weights lie in memory with the channels last.
        compile: Whether :func:`torch.compile` is applied.
        timing: Whether a call is what the ``"host"`` waits for, or what the ``"device"`` does:
            then it is captured as a CUDA graph, which leaves the host no work to be slow at.
        seed: Of weights and inputs.
    """

    device: torch.device
    batch_size: int = 1
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    compile: bool = False
    timing: Timing = "host"
    seed: int = 0

    def prepare(self, space: DesignSpace, shape: Shape) -> Call:
        """Build a network and return what runs it on one batch.

        Raises:
            BuildFailed: ``build(shape)`` raised.
            MeasurementUnavailable: The space states no input, or none that fits the settings.
        """
        if space.input_shape is None:
            raise MeasurementUnavailable(NO_INPUT)
        if self.channels_last and len(space.input_shape) != 3:
            raise MeasurementUnavailable(
                "channels_last=True needs inputs of three dimensions (channels, height, width); "
                f"here input_shape is {space.input_shape}. Leave channels_last out."
            )
        with preserved_randomness():
            torch.default_generator.manual_seed(self.seed)
            return self._ready(space.build(shape), space.input_shape)

    def reference(self) -> Call:
        """Return a small network that is always the same: the pace of the machine.

        Its activations (half a megabyte each) are large enough to feel a neighbour in the caches
        and to be shared between threads, as those of the networks to be measured are.
        """
        with preserved_randomness():
            torch.default_generator.manual_seed(0)
            network = nn.Sequential(
                nn.Conv2d(3, 16, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(16, 16, 3, padding=1),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(16, 10),
            )
            # On a GPU it must be work for the device too, not for the launching host alone.
            batch_size = 2048 if self.device.type == "cuda" else 32
            setting = Setting(self.device, batch_size, timing=self.timing)
            return setting._ready(network, (3, 16, 16))

    def _ready(self, network: nn.Module, input_shape: tuple[int, ...]) -> Call:
        if self.device.type == "cpu":
            settle_heap()
        network = network.to(self.device, self.dtype).eval()
        # Not zeros: they cost a GPU less power, and so less time.
        batch = torch.randn(self.batch_size, *input_shape).to(self.device, self.dtype)
        if self.channels_last:
            network = network.to(memory_format=torch.channels_last)
            batch = batch.to(memory_format=torch.channels_last)
        run = _compiled(network) if self.compile else network

        def launch() -> None:
            with torch.inference_mode():
                run(batch)

        if self.device.type != "cuda":
            return launch
        if self.timing == "device":
            return _captured(launch, self.device)

        def call() -> None:
            launch()
            torch.cuda.synchronize(self.device)

        return call


def by_device(device: torch.device) -> Callable[[Call], float]:
    """Return a stopwatch that times what a CUDA device does, by events on its stream."""
    start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def stopwatch(call: Call) -> float:
        with torch.cuda.device(device):
            start.record()
            call()
            end.record()
            end.synchronize()
        return float(start.elapsed_time(end)) / 1e3  # It tells milliseconds.

    return stopwatch


def _captured(launch: Call, device: torch.device) -> Call:
    """Capture a call as a CUDA graph, and return what replays it.

    Raises:
        MeasurementUnavailable: The network does something that no graph can hold.
    """
    with torch.cuda.device(device):
        # Libraries set themselves up in the first calls, which a graph may not hold.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                launch()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                launch()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise MeasurementUnavailable(
                "The network cannot be captured as a CUDA graph: "
                f"{next(iter(str(error).splitlines()), error)}. It may wait for the device "
                "(.item(), .cpu()) or be different from call to call; use timing='host'."
            ) from error
    return partial(_replay, graph, launch)


def _replay(graph: torch.cuda.CUDAGraph, launch: Call) -> None:
    # The graph only knows where weights and input lie; that they still do is up to "launch".
    graph.replay()


def _compiled(network: nn.Module) -> Callable[[torch.Tensor], object]:
    def forward(batch: torch.Tensor) -> object:
        return network(batch)

    # Variants are kept per code object, eight of them: a ninth network of the same class would
    # run uncompiled, with no more than a warning. So each gets a code object of its own.
    forward.__code__ = forward.__code__.replace()
    return torch.compile(forward, dynamic=False)


# What else in a process decides on kernels: how to ask, how to set, and what is usual.
_SWITCHES: dict[str, tuple[Callable[[], Any], Callable[[Any], None], Any]] = {
    "matmul precision": (
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
        "highest",
    ),
    "deterministic": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
        False,
    ),
    "cudnn benchmark": (
        lambda: torch.backends.cudnn.benchmark,
        lambda value: setattr(torch.backends.cudnn, "benchmark", value),
        False,
    ),
    "cudnn TF32": (
        lambda: torch.backends.cudnn.allow_tf32,
        lambda value: setattr(torch.backends.cudnn, "allow_tf32", value),
        True,
    ),
    "mkldnn": (
        lambda: torch.backends.mkldnn.enabled,
        lambda value: setattr(torch.backends.mkldnn, "enabled", value),
        True,
    ),
}


def switches() -> dict[str, Any]:
    """Return the settings of this process that decide on kernels, where they are not the usual."""
    present = {name: ask() for name, (ask, _, _) in _SWITCHES.items()}
    return {name: value for name, value in present.items() if value != _SWITCHES[name][2]}


def set_switches(wanted: Mapping[str, Any]) -> None:
    """Set what :func:`switches` returned in another process, and the usual otherwise."""
    for name, (_, put, usual) in _SWITCHES.items():
        put(wanted.get(name, usual))


def settle_heap() -> None:
    """Bring the heap of the C library to where that of a long-lived process is.

    glibc returns large blocks to the system when they are freed, and what "large" is rises with
    the largest block freed so far, up to 32 MiB. Below that, every tensor of a forward pass may
    cost page faults anew, or may not, as the heap happens to lie: the same network took 0.6 or
    1.9 ms here. Freeing one block of that size ends it; elsewhere it does nothing.
    """
    torch.empty((32 << 20) - (1 << 16), dtype=torch.uint8)


def out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error, or the one behind it, says that memory ran out."""
    if isinstance(error, BuildFailed):
        return out_of_memory(error.__cause__)
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _NO_MEMORY)


def impossible(error: Exception, fingerprint: str) -> Measurement:
    """Return what a network that cannot run measures.

    Raises:
        Exception: The error itself where it is not the network's: ``build`` is broken, the
            settings are, or the device.
    """
    first_line = next(iter(str(error).splitlines()), "")
    if out_of_memory(error):
        return Measurement.impossible(fingerprint, f"out of memory: {first_line}")
    # A fault of a CUDA device stays: whatever ran next would fail as well.
    if isinstance(error, (BuildFailed, MeasurementUnavailable, torch.AcceleratorError)):
        raise error
    return Measurement.impossible(
        fingerprint, f"does not run: {type(error).__name__}: {first_line}"
    )
