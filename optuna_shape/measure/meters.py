"""The meters: this machine, a recorded table, a script of the user's own."""

from __future__ import annotations

import csv
import hashlib
import math
import numbers
import os
import platform
import sys
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from functools import partial
from pathlib import Path
from typing import Literal
from typing import TypeGuard

import pynvml
import torch

from optuna_shape.constraints import COSTS
from optuna_shape.errors import InvalidProblem
from optuna_shape.errors import MeasurementUnavailable
from optuna_shape.measure.counting import COUNTED
from optuna_shape.measure.counting import measure_count
from optuna_shape.measure.energy import find_counter
from optuna_shape.measure.energy import measure_energy
from optuna_shape.measure.latency import CPU
from optuna_shape.measure.latency import CUDA
from optuna_shape.measure.latency import measure_latency
from optuna_shape.measure.measurement import Measurement
from optuna_shape.measure.memory import measure_memory
from optuna_shape.measure.running import Call
from optuna_shape.measure.running import Setting
from optuna_shape.measure.running import out_of_memory
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
        energy: ``"counter"`` reads the device's own. A number of watts makes an *estimate* of
            watts x latency, and every measurement says so.
        alpha: Probability that sampling errs, per bound and shape.
        max_noise: How much the pace of the machine may vary to be measured on; default 0.1.
        seed: Of weights, inputs and the order of measuring.

    Raises:
        MeasurementUnavailable: The device is not there.
        InvalidProblem: A setting is impossible.
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
        energy: float | Literal["counter"] = "counter",
        alpha: float = 0.01,
        max_noise: float = 0.1,
        seed: int = 0,
    ) -> None:
        _require(_is_count(batch_size), "batch_size", batch_size, "a whole number above 0")
        _require(threads is None or _is_count(threads), "threads", threads, "a number above 0")
        _require(0 < quantile < 1, "quantile", quantile, "between 0 and 1, like 0.5 or 0.9")
        _require(0 < alpha < 0.5, "alpha", alpha, "a small probability, like 0.01")
        _require(max_noise > 0, "max_noise", max_noise, "a share above 0, like 0.1")
        _require(
            energy == "counter" or _is_positive(energy), "energy", energy, "'counter' or watts"
        )
        self.setting = Setting(
            _find_device(device), batch_size, _find_dtype(dtype), channels_last, compile, seed
        )
        on_cuda = self.setting.device.type == "cuda"
        usual = CUDA if on_cuda else CPU
        self.protocol = replace(
            usual,
            quantile=quantile,
            alpha=alpha,
            noise=max_noise,
            drift=usual.drift * max_noise / usual.noise,
        )
        self.threads = None if on_cuda else (threads or torch.get_num_threads())
        self.watts = None if energy == "counter" else float(energy)

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
        prepare = partial(self.setting.prepare, space)
        with _threads(self.threads):
            if quantity == "latency":
                return self._latency(prepare, shapes, bound)
            if quantity == "energy" and self.watts is not None:
                return self._estimate(prepare, shapes, bound, self.watts)
            if quantity == "energy":
                return measure_energy(
                    shapes,
                    prepare,
                    find_counter(self.setting.device),
                    self.fingerprint,
                    bound=bound,
                    seed=self.setting.seed,
                )
            if quantity == "memory":
                return measure_memory(shapes, prepare, self.setting.device, self.fingerprint)
        raise MeasurementUnavailable(
            f"A device has no {quantity!r} to measure. Known are {', '.join(COSTS)}."
        )

    def _latency(
        self, prepare: Callable[[Shape], Call], shapes: Sequence[Shape], bound: float | None
    ) -> dict[Shape, Measurement]:
        return measure_latency(
            shapes,
            prepare,
            self.setting.reference(),
            self.protocol,
            self.fingerprint,
            bound=bound,
            seed=self.setting.seed,
        )

    def _estimate(
        self,
        prepare: Callable[[Shape], Call],
        shapes: Sequence[Shape],
        bound: float | None,
        watts: float,
    ) -> dict[Shape, Measurement]:
        seconds = self._latency(prepare, shapes, None if bound is None else bound / watts)
        return {
            shape: replace(
                m,
                value=m.value * watts,
                low=m.low * watts,
                high=m.high * watts,
                note=m.note or f"estimate: {watts:g} W x latency",
            )
            for shape, m in seconds.items()
        }


class TableMeter:
    """Looks costs up in a table that was recorded before.

    Args:
        source:
            ``{Shape(1, 8): {"latency": 0.0021, "size": 310_000}, ...}``, or the path of a CSV file
            with the columns ``depth``, ``width`` and any of ``latency``, ``energy``, ``size``,
            ``memory``, ``parameters``, ``flops``; other columns are ignored, and empty cells are
            missing values. All in SI units: seconds, joules, bytes. ``inf`` is for shapes that
            cannot run.

    Raises:
        MeasurementUnavailable: The table cannot be read; the message says where.

    Example:
        >>> meter = TableMeter({(1, 8): {"latency": 0.0021}})
        >>> meter.measure(DesignSpace([1], [8]), [Shape(1, 8)], "latency")[Shape(1, 8)].value
        0.0021
    """

    def __init__(
        self, source: Mapping[tuple[int, int], Mapping[str, float]] | str | os.PathLike[str]
    ) -> None:
        if isinstance(source, Mapping):
            self._table = {
                _shape(key, "The table"): _costs(row, f"The table at {key}", limit=math.inf)
                for key, row in source.items()
            }
        else:
            self._table = _read_csv(Path(source))
        content = repr(sorted((shape, sorted(row.items())) for shape, row in self._table.items()))
        self.fingerprint = f"table {hashlib.sha256(content.encode()).hexdigest()[:16]}"

    def measure(
        self,
        space: DesignSpace,
        shapes: Sequence[Shape],
        quantity: str,
        bound: float | None = None,
    ) -> Mapping[Shape, Measurement]:
        """Look one quantity of some shapes up.

        Raises:
            MeasurementUnavailable: The table does not hold it.
        """
        return {shape: self._look_up(shape, quantity) for shape in shapes}

    def _look_up(self, shape: Shape, quantity: str) -> Measurement:
        row = self._table.get(shape)
        if row is None:
            raise MeasurementUnavailable(
                f"The table has no shape {shape}; it has {len(self._table)} others. "
                "Add its row, or take the shape out of the design space."
            )
        value = _pick(row, quantity, f"The table has no {quantity!r} of shape {shape}")
        if math.isinf(value):
            return Measurement.impossible(self.fingerprint, "cannot run, says the table")
        return Measurement.exact(value, self.fingerprint)


class FunctionMeter:
    """Asks a function of the user's: a phone on a cable, a simulator, a formula.

    Args:
        function:
            ``function(shape)`` returns ``{"latency": seconds, "energy": joules, "size": bytes}``,
            any subset. It is called once per shape. :exc:`MemoryError` says that the shape does
            not fit.
        fingerprint:
            Names the device and its settings: measurements with another one are not reused.
            Default: the name of the function.
    """

    def __init__(
        self, function: Callable[[Shape], Mapping[str, float]], *, fingerprint: str | None = None
    ) -> None:
        named = function if hasattr(function, "__qualname__") else type(function)
        self._name = f"{named.__module__}.{named.__qualname__}"
        self._function = function
        self._known: dict[Shape, Mapping[str, float] | None] = {}
        self.fingerprint = fingerprint or f"function {self._name}"

    def measure(
        self,
        space: DesignSpace,
        shapes: Sequence[Shape],
        quantity: str,
        bound: float | None = None,
    ) -> Mapping[Shape, Measurement]:
        """Ask for one quantity of some shapes.

        Raises:
            MeasurementUnavailable: The function raised, or returned no such quantity or no number.
        """
        return {shape: self._ask(shape, quantity) for shape in shapes}

    def _ask(self, shape: Shape, quantity: str) -> Measurement:
        asked = f"{self._name}({shape})"
        if shape not in self._known:
            self._known[shape] = self._call(shape, asked)
        row = self._known[shape]
        if row is None:
            return Measurement.impossible(self.fingerprint, f"out of memory, says {asked}")
        value = _pick(row, quantity, f"{asked} returned no {quantity!r}")
        return Measurement.exact(value, self.fingerprint)

    def _call(self, shape: Shape, asked: str) -> Mapping[str, float] | None:
        try:
            answer = self._function(shape)
        except Exception as error:
            if out_of_memory(error):
                return None
            raise MeasurementUnavailable(
                f"{asked} raised {type(error).__name__}: {error}. It must return a dictionary "
                "like {'latency': 0.002}; MemoryError says that a shape does not fit."
            ) from error
        if not isinstance(answer, Mapping):
            raise MeasurementUnavailable(
                f"{asked} returned {answer!r}. It must return a dictionary like "
                "{'latency': 0.002, 'size': 310_000}, in seconds, joules and bytes."
            )
        return _costs(answer, asked, limit=sys.float_info.max)


def _costs(row: Mapping[str, object], where: str, *, limit: float) -> dict[str, float]:
    """Return the known costs of a row, checked; anything else in it is ignored."""
    costs = {}
    for name in COSTS:
        if name not in row:
            continue
        value = row[name]
        if not _is_positive(value) or not value <= limit:
            raise MeasurementUnavailable(
                f"{where}: {name} is {value!r}; it must be a number above 0 in SI units "
                "(seconds, joules, bytes). Leave out what was not measured."
            )
        costs[name] = float(value)
    return costs


def _pick(row: Mapping[str, float], quantity: str, problem: str) -> float:
    if quantity not in row:
        raise MeasurementUnavailable(f"{problem}, only {', '.join(row) or 'nothing at all'}.")
    return row[quantity]


def _read_csv(path: Path) -> dict[Shape, dict[str, float]]:
    table: dict[Shape, dict[str, float]] = {}
    try:
        # "-sig" for spreadsheets, which begin their files with a byte order mark.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            missing = {"depth", "width"} - set(reader.fieldnames or ())
            if missing:
                raise MeasurementUnavailable(
                    f"{path}, line 1: no column {' and '.join(sorted(missing))}. "
                    "The first line must be like 'depth,width,latency,energy,size'."
                )
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                shape = _shape((_number(row["depth"]), _number(row["width"])), where)
                if shape in table:
                    raise MeasurementUnavailable(f"{where}: shape {shape} for a second time.")
                cells = {name: _number(row[name]) for name in COSTS if row.get(name)}
                table[shape] = _costs(cells, where, limit=math.inf)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MeasurementUnavailable(f"Cannot read the table {path}: {error}.") from error
    return table


def _number(cell: str | None) -> object:
    """Return a cell as the number that it is, or as it is."""
    for number in (int, float):
        try:
            return number(cell or "")
        except ValueError:
            pass
    return cell


def _shape(key: object, where: str) -> Shape:
    if isinstance(key, tuple) and len(key) == 2 and all(_is_count(n) for n in key):
        return Shape(int(key[0]), int(key[1]))
    raise MeasurementUnavailable(
        f"{where}: {key!r} is no shape; it takes two whole numbers above 0, depth and width."
    )


def _is_positive(value: object) -> TypeGuard[float]:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and float(value) > 0


def _is_count(value: object) -> bool:
    return isinstance(value, numbers.Integral) and _is_positive(value)


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
