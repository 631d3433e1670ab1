"""The meter of this machine."""

from __future__ import annotations

import gc
import math
import os
import platform
import warnings
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from functools import cached_property
from functools import partial
from pathlib import Path
from typing import Any
from typing import Literal

import pynvml
import torch

from optuna_shape.constraints import COSTS
from optuna_shape.errors import InvalidProblem
from optuna_shape.errors import MeasurementUnavailable
from optuna_shape.errors import NoisyMachine
from optuna_shape.measure._checks import is_count
from optuna_shape.measure._checks import is_positive
from optuna_shape.measure.board import Board
from optuna_shape.measure.counters import find_counter
from optuna_shape.measure.counting import COUNTED
from optuna_shape.measure.counting import measure_count
from optuna_shape.measure.elsewhere import in_second_process
from optuna_shape.measure.energy import measure_energy
from optuna_shape.measure.latency import CPU
from optuna_shape.measure.latency import CUDA
from optuna_shape.measure.latency import measure_latency
from optuna_shape.measure.latency import settle
from optuna_shape.measure.measurement import ESTIMATE
from optuna_shape.measure.measurement import Measurement
from optuna_shape.measure.memory import measure_memory
from optuna_shape.measure.running import Setting
from optuna_shape.measure.running import Timing
from optuna_shape.measure.running import by_device
from optuna_shape.measure.running import set_switches
from optuna_shape.measure.running import switches
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape


class DeviceMeter:
    """Measures on a device of this machine, before anything is trained.

    Latency and energy are per call of the network, in eval mode, on one batch of random input.

    .. note::
        Latency on a CPU is that of a process whose heap keeps the memory it once had, as a
        long-lived process does. Short-lived ones, with glibc's defaults, may take longer.

    Args:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``; ``"auto"`` is CUDA if there is any.
        batch_size: Inputs per call.
        quantile: Which quantile of the latency counts: 0.5, or a tail such as 0.9 or 0.99, which
            takes 7 or 70 times as many calls to be sure of.
        dtype: Of weights and inputs, such as ``"float32"`` or ``"bfloat16"``. Sizes are counted
            in the type that ``build`` gives.
        channels_last: Whether images lie in memory with the channels last.
        compile: Whether networks run under :func:`torch.compile`.
        threads: Of PyTorch, while a CPU is measured. Default: as many as are set at present.
        timing: ``"host"``: from the call until the device is done, as a program sees it.
            ``"device"``: what a CUDA device takes for a CUDA graph of the call, without what the
            host needs to launch it.
        energy: ``"counter"`` reads the device's own. ``"estimate"`` stands for ``watts`` x
            latency, and every measurement says so.
        watts: Power of the device under load, for ``energy="estimate"``.
        guard: Relative difference between sessions to allow for; default 5 % on a CPU, 2 % on
            CUDA. ``optuna-shape measure --repeat`` shows that of your device. A network below a
            bound by less than this is measured in a second process, and both have to agree.
        alpha: Probability that sampling errs, per bound and shape.
        max_noise: How much the pace of the machine may vary to be measured on; default 0.1.
        seed: Of weights, inputs and the order of measuring.

    Raises:
        MeasurementUnavailable: The device is not there.
        InvalidProblem: A setting is impossible.

    Example:
        >>> from optuna_shape.families import mlp
        >>> space = mlp(depth=[1, 2], width=[32], input_shape=(64,))
        >>> meter = DeviceMeter("cpu", batch_size=8, threads=1)
        >>> meter.fingerprint.count("1 threads"), meter.fingerprint.count("batch 8")
        (1, 1)
        >>> bytes_of = meter.measure(space, space.shapes, "size")
        >>> [measurement.value for measurement in bytes_of.values()]
        [9640.0, 13864.0]
    """

    def __init__(
        self,
        device: str | torch.device = "auto",
        batch_size: int = 1,
        *,
        quantile: float = 0.5,
        dtype: str = "float32",
        channels_last: bool = False,
        compile: bool = False,
        threads: int | None = None,
        timing: Timing = "host",
        energy: Literal["counter", "estimate"] = "counter",
        watts: float | None = None,
        guard: float | None = None,
        alpha: float = 0.01,
        max_noise: float = 0.1,
        seed: int = 0,
    ) -> None:
        _require(is_count(batch_size), "batch_size", batch_size, "a whole number above 0")
        _require(threads is None or is_count(threads), "threads", threads, "a number above 0")
        _require(0 < quantile < 1, "quantile", quantile, "between 0 and 1, like 0.5 or 0.9")
        _require(0 < alpha < 0.5, "alpha", alpha, "a small probability, like 0.01")
        _require(max_noise > 0, "max_noise", max_noise, "a share above 0, like 0.1")
        _require(energy in ("counter", "estimate"), "energy", energy, "'counter' or 'estimate'")
        _require(
            is_positive(watts) if energy == "estimate" else watts is None,
            "watts",
            watts,
            "the power of the device, like 45.0, with energy='estimate', and left out otherwise",
        )
        _require(timing in ("host", "device"), "timing", timing, "'host' or 'device'")
        _require(guard is None or 0 < guard < 1, "guard", guard, "a share, like 0.05")
        self.setting = Setting(
            _find_device(device),
            batch_size,
            _find_dtype(dtype),
            channels_last,
            compile,
            timing,
            seed,
        )
        on_cuda = self.setting.device.type == "cuda"
        _require(on_cuda or timing == "host", "timing", timing, "'host' on a CPU")
        usual = CUDA if on_cuda else CPU
        self.protocol = replace(
            usual,
            quantile=quantile,
            alpha=alpha,
            guard=usual.guard if guard is None else guard,
            noise=max_noise,
            drift=usual.drift * max_noise / usual.noise,
        )
        self.threads = None if on_cuda else (threads or torch.get_num_threads())
        self.watts = None if watts is None else float(watts)

    @cached_property
    def fingerprint(self) -> str:
        """Device, settings and versions; what measurements depend on."""
        setting = self.setting
        if setting.device.type == "cuda":
            properties = torch.cuda.get_device_properties(setting.device)
            device = [f"{properties.name} {properties.uuid}", f"CUDA {torch.version.cuda}"]
            device.append(f"driver {_driver_version()}")
        else:
            device = [f"{_processor()} x {os.cpu_count()}", f"{self.threads} threads"]
        return ", ".join(
            [
                *device,
                f"torch {torch.__version__}",
                f"batch {setting.batch_size}",
                str(setting.dtype).removeprefix("torch."),
                "channels last" if setting.channels_last else "channels first",
                "compiled" if setting.compile else "eager",
                f"p{100 * self.protocol.quantile:g}",
                f"guard {self.protocol.guard:.2%}",
                f"alpha {self.protocol.alpha:g}",
                *([] if setting.timing == "host" else ["device time"]),
                *(f"{name} {value}" for name, value in switches().items()),
                *([] if self.watts is None else [f"energy estimated at {self.watts:g} W"]),
            ]
        )

    def measure(
        self,
        space: DesignSpace,
        shapes: Sequence[Shape],
        quantity: str,
        bound: float | None = None,
    ) -> Mapping[Shape, Measurement]:
        """Measure latency, energy or memory, or count size, parameters or FLOPs.

        Args:
            space: Where the networks come from.
            shapes: What to measure.
            quantity: ``"latency"`` in seconds or ``"energy"`` in joules, per call on one batch;
                ``"memory"`` or ``"size"`` in bytes, ``"parameters"``, or ``"flops"`` per input.
            bound: A bound in SI units: measuring stops as soon as the side of it is sure.

        Raises:
            MeasurementUnavailable: Not on this device, or not without an ``input_shape``.
            EnergyUnavailable: There is no counter, and no estimate was asked for.
            NoisyMachine: The machine is too busy.
            BuildFailed: ``build(shape)`` raised.
        """
        if quantity in COUNTED:
            return {
                shape: measure_count(space, shape, quantity, self.fingerprint) for shape in shapes
            }
        # The host launches what is metered, also where the device keeps the time of a call.
        prepare = partial(replace(self.setting, timing="host").prepare, space)
        board = _find_board(self.setting.device)
        if board is not None:
            _warn_of_strangers(board)
        with _threads(self.threads):
            if quantity == "latency":
                return self._latency(space, shapes, bound)
            if quantity == "energy" and self.watts is not None:
                return self._estimate(space, shapes, bound, self.watts)
            if quantity == "energy":
                return measure_energy(
                    shapes,
                    prepare,
                    find_counter(self.setting.device),
                    self.fingerprint,
                    bound=bound,
                    seed=self.setting.seed,
                    disturbance=_disturbance(board),
                )
            if quantity == "memory":
                return measure_memory(shapes, prepare, self.setting.device, self.fingerprint)
        raise MeasurementUnavailable(
            f"A device has no {quantity!r} to measure. Known are {', '.join(COSTS)}."
        )

    def _latency(
        self, space: DesignSpace, shapes: Sequence[Shape], bound: float | None
    ) -> dict[Shape, Measurement]:
        """Measure latency so that its intervals hold beyond this process."""

        def again(close: list[Shape]) -> Mapping[Shape, Measurement]:
            try:
                _empty_cache(self.setting.device)
                return in_second_process(_session_of, self, switches(), space, close, bound)
            except NoisyMachine:
                raise
            except Exception as error:
                warnings.warn(
                    f"No second process could measure {', '.join(map(str, close))}, so that they "
                    "count as too close to the bound. A build that other processes can import, "
                    f"or that cloudpickle can send, helps. {type(error).__name__}: {error}",
                    RuntimeWarning,
                    stacklevel=2,
                )
                return {}

        session = self._session(space, shapes, bound)
        return settle(session, self.protocol.guard, bound, again)

    def _session(
        self, space: DesignSpace, shapes: Sequence[Shape], bound: float | None
    ) -> dict[Shape, Measurement]:
        """Measure latency as this process finds it."""
        device = self.setting.device
        return measure_latency(
            shapes,
            partial(self.setting.prepare, space),
            self.setting.reference(),
            self.protocol,
            self.fingerprint,
            bound=bound,
            seed=self.setting.seed,
            disturbance=_disturbance(_find_board(device)),
            stopwatch=by_device(device) if self.setting.timing == "device" else None,
        )

    def _estimate(
        self, space: DesignSpace, shapes: Sequence[Shape], bound: float | None, watts: float
    ) -> dict[Shape, Measurement]:
        seconds = self._latency(space, shapes, None if bound is None else bound / watts)
        return {
            shape: replace(
                m,
                value=m.value * watts,
                low=m.low * watts,
                high=m.high * watts,
                note=f"{ESTIMATE}: {watts:g} W x latency" if math.isfinite(m.value) else m.note,
            )
            for shape, m in seconds.items()
        }


def _session_of(
    meter: DeviceMeter,
    switches: Mapping[str, Any],
    space: DesignSpace,
    shapes: Sequence[Shape],
    bound: float | None,
) -> dict[Shape, Measurement]:
    """Measure in this process as in the one that asks, and leave its memory to that one."""
    set_switches(switches)
    with _threads(meter.threads):
        try:
            return meter._session(space, shapes, bound)
        finally:
            _empty_cache(meter.setting.device)


def _empty_cache(device: torch.device) -> None:
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def _disturbance(board: Board | None) -> Callable[[], str]:
    return (lambda: "") if board is None else board.slowed_by


@cache
def _find_board(device: torch.device) -> Board | None:
    """Return the board behind a CUDA device, if its driver tells anything of it."""
    if device.type != "cuda":
        return None
    try:
        board = Board(device)
    except pynvml.NVMLError:
        return None
    torch.cuda.synchronize(device)  # Now this process is one of those on the board.
    return board


def _warn_of_strangers(board: Board) -> None:
    others = board.strangers()
    if others > 0:
        warnings.warn(
            f"{others} other process(es) use {board.uuid}: what they do there is part of the "
            "latencies and energies measured. `nvidia-smi` names them.",
            RuntimeWarning,
            stacklevel=3,
        )


def _require(condition: bool, name: str, value: object, expected: str) -> None:
    if not condition:
        raise InvalidProblem(f"DeviceMeter({name}={value!r}): {name} must be {expected}.")


def _find_device(device: str | torch.device) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise MeasurementUnavailable(
            f"Cannot measure on device={str(device)!r}; it can be 'auto', 'cpu', 'cuda' or "
            "'cuda:1'. For other devices, pass your own script: FunctionMeter(callable)."
        )
    if found.type == "cpu":
        return torch.device("cpu")
    if (found.index or 0) >= torch.cuda.device_count():
        raise MeasurementUnavailable(
            f"There is no device {found}: torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices. Look at `nvidia-smi` and "
            "CUDA_VISIBLE_DEVICES, install a build of torch with CUDA, or use device='cpu'."
        )
    return torch.device("cuda", found.index if found.index is not None else 0)


def _find_dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if isinstance(dtype, torch.dtype) and dtype.is_floating_point:
        return dtype
    raise InvalidProblem(
        f"DeviceMeter(dtype={name!r}): dtype must be a floating point type of torch, like "
        "'float32' or 'bfloat16'."
    )


def _driver_version() -> str:
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return "unknown"


def _processor() -> str:
    """Return the name of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
