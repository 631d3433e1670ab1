from __future__ import annotations

import math
import threading
import time

import pytest
import torch
from torch import nn

from optuna_shape.errors import EnergyUnavailable
from optuna_shape.errors import InvalidProblem
from optuna_shape.errors import MeasurementUnavailable
from optuna_shape.measure import DeviceMeter
from optuna_shape.measure import FunctionMeter
from optuna_shape.measure import Meter
from optuna_shape.measure import TableMeter
from optuna_shape.measure import count
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape

A, B = Shape(1, 8), Shape(2, 8)


def _convolutions(shape: Shape) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, shape.width, 3, padding=1)]
    for _ in range(shape.depth):
        layers += [nn.Conv2d(shape.width, shape.width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(shape.width * 64, 10))


@pytest.fixture
def space() -> DesignSpace:
    return DesignSpace([1, 20], [8, 32], _convolutions, input_shape=(3, 8, 8))


class _Waiting(nn.Module):
    """Takes 20 ms, and little more however busy the machine is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)
        return x


def _tolerant(**settings: object) -> DeviceMeter:
    """A meter that measures whatever else runs on the machine of the tests."""
    return DeviceMeter("cpu", threads=1, max_noise=100.0, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "meter", [DeviceMeter("cpu"), TableMeter({}), FunctionMeter(lambda shape: {})]
)
def test_all_are_meters(meter: Meter) -> None:
    assert isinstance(meter, Meter)
    assert meter.fingerprint


def test_a_device_measures_latency(space: DesignSpace) -> None:
    meter = _tolerant(batch_size=4)
    small, large = Shape(1, 8), Shape(20, 32)
    measured = meter.measure(space, [large, small], "latency")
    assert list(measured) == [large, small]
    for m in measured.values():
        assert 0 < m.low <= m.value <= m.high < math.inf
        assert m.samples >= 9
        assert m.fingerprint == meter.fingerprint
    assert measured[large].value > 5 * measured[small].value


def test_a_device_decides_on_a_bound(space: DesignSpace) -> None:
    measured = _tolerant().measure(space, [Shape(1, 8), Shape(20, 32)], "latency", bound=1.0)
    assert all(m.high <= 1.0 for m in measured.values())
    measured = _tolerant().measure(space, [Shape(1, 8), Shape(20, 32)], "latency", bound=1e-7)
    assert all(m.low > 1e-7 for m in measured.values())


def test_a_network_just_within_is_measured_in_a_second_process_too() -> None:
    space = DesignSpace([1], [8], lambda shape: _Waiting(), input_shape=(4,))
    meter = _tolerant(guard=0.999)  # Whatever takes 15 to 30 ms is just within 30 ms.
    measured = meter.measure(space, space.shapes, "latency", 0.03)[A]
    assert measured.note == "measured in two processes"
    assert measured.samples >= 18
    assert 0.02 <= measured.low < measured.high


def test_a_network_that_only_exists_here_stays_undecided() -> None:
    def build(shape: Shape, lock: object = threading.Lock()) -> nn.Module:
        return _Waiting()

    space = DesignSpace([1], [8], build, input_shape=(4,))
    meter = _tolerant(guard=0.999)
    with pytest.warns(RuntimeWarning, match=r"second process .*\(1, 8\).*pickle"):
        measured = meter.measure(space, space.shapes, "latency", 0.03)[A]
    assert measured.low < 0.03 < measured.high


@pytest.mark.parametrize("watts", [None, 0.0, -1.0])
def test_an_estimate_needs_watts(watts: float | None) -> None:
    with pytest.raises(InvalidProblem, match=r"watts=.*45"):
        DeviceMeter("cpu", energy="estimate", watts=watts)


def test_a_larger_batch_takes_longer(space: DesignSpace) -> None:
    shape = Shape(20, 32)
    one = _tolerant(batch_size=1).measure(space, [shape], "latency")[shape]
    many = _tolerant(batch_size=64).measure(space, [shape], "latency")[shape]
    assert many.value > 3 * one.value


def test_a_network_that_does_not_run_does_not_end_the_measuring() -> None:
    def build(shape: Shape) -> nn.Module:
        return nn.Linear(4 if shape == A else 5, 2)

    space = DesignSpace([1, 2], [8], build, input_shape=(4,))
    measured = _tolerant().measure(space, space.shapes, "latency")
    assert math.isfinite(measured[A].value)
    assert math.isinf(measured[B].value)
    assert "does not run" in measured[B].note


def test_a_network_too_large_for_this_machine_is_impossible() -> None:
    class Giant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.empty(10**15)

    space = DesignSpace([1], [8], lambda shape: Giant(), input_shape=(4,))
    measured = _tolerant().measure(space, [A], "latency")
    assert math.isinf(measured[A].high)
    assert measured[A].note.startswith("out of memory")


@pytest.mark.parametrize("quantity", ["size", "parameters", "flops"])
def test_a_device_counts(space: DesignSpace, quantity: str) -> None:
    measured = DeviceMeter("cpu").measure(space, space.shapes, quantity)
    for shape, m in measured.items():
        counts = count(space, shape)
        assert m.value == m.low == m.high
        assert (
            m.value
            == {
                "size": counts.size_bytes,
                "parameters": counts.parameters,
                "flops": counts.flops,
            }[quantity]
        )


def test_operations_of_a_network_that_does_not_run() -> None:
    space = DesignSpace([1], [8], lambda shape: nn.Linear(5, 2), input_shape=(4,))
    measured = DeviceMeter("cpu").measure(space, [A], "flops")[A]
    assert math.isinf(measured.value)
    assert "does not run" in measured.note


@pytest.mark.parametrize("quantity", ["latency", "flops"])
def test_an_unknown_input_says_what_to_do(quantity: str) -> None:
    space = DesignSpace([1], [8], lambda shape: nn.Linear(2, 2))
    with pytest.raises(MeasurementUnavailable, match=r"DesignSpace\(\.\.\., input_shape="):
        _tolerant().measure(space, [A], quantity)


def test_peak_memory_of_a_cpu_is_unknown_and_says_why(space: DesignSpace) -> None:
    with pytest.raises(MeasurementUnavailable, match="allocator of CUDA"):
        DeviceMeter("cpu").measure(space, [A], "memory")


def test_accuracy_is_not_measured_by_a_device(space: DesignSpace) -> None:
    with pytest.raises(MeasurementUnavailable, match="'accuracy'.*latency, energy"):
        DeviceMeter("cpu").measure(space, [A], "accuracy")


def test_energy_without_a_counter_is_an_error_and_never_zero(space: DesignSpace) -> None:
    joules, said = 0.0, ""
    try:
        joules = _tolerant().measure(space, [A], "energy")[A].low
    except EnergyUnavailable as error:
        said = str(error)
    assert joules > 0 or "watts=45" in said


def test_energy_is_estimated_if_asked_for_and_says_so(space: DesignSpace) -> None:
    meter = _tolerant(energy="estimate", watts=45.0)
    measured = meter.measure(space, [A], "energy", bound=45.0)[A]
    assert measured.note == "estimate: 45 W x latency"
    assert 0 < measured.low <= measured.value <= measured.high <= 45.0
    assert "45 W" in meter.fingerprint
    assert meter.fingerprint != _tolerant().fingerprint


def test_threads_are_set_while_measuring_and_restored() -> None:
    seen = []

    class Spy(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(torch.get_num_threads())
            return super().forward(x)

    space = DesignSpace([1], [8], lambda shape: Spy(4, 4), input_shape=(4,))
    before = torch.get_num_threads()
    threads = before + 1
    meter = DeviceMeter("cpu", threads=threads, max_noise=100.0)
    assert f"{threads} threads" in meter.fingerprint
    meter.measure(space, [A], "latency", bound=1.0)
    assert set(seen) == {threads}
    assert torch.get_num_threads() == before


def test_fingerprint_names_what_measurements_depend_on() -> None:
    plain = DeviceMeter("cpu", threads=1).fingerprint
    assert f"torch {torch.__version__}" in plain
    others = [
        DeviceMeter("cpu", threads=1, batch_size=2),
        DeviceMeter("cpu", threads=2),
        DeviceMeter("cpu", threads=1, dtype="bfloat16"),
        DeviceMeter("cpu", threads=1, channels_last=True),
        DeviceMeter("cpu", threads=1, compile=True),
        DeviceMeter("cpu", threads=1, quantile=0.9),
        DeviceMeter("cpu", threads=1, energy="estimate", watts=5.0),
        DeviceMeter("cpu", threads=1, alpha=0.001),
        DeviceMeter("cpu", threads=1, guard=0.02),
    ]
    assert len({plain, *(meter.fingerprint for meter in others)}) == 1 + len(others)
    assert DeviceMeter("cpu", threads=1, seed=5).fingerprint == plain
    torch.set_float32_matmul_precision("medium")
    try:
        assert DeviceMeter("cpu", threads=1).fingerprint == f"{plain}, matmul precision medium"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_an_absent_gpu_says_what_to_do() -> None:
    with pytest.raises(MeasurementUnavailable, match="nvidia-smi.*device='cpu'"):
        DeviceMeter("cuda")
    assert DeviceMeter("auto").setting.device == torch.device("cpu")


@pytest.mark.parametrize("device", ["mps", "abacus"])
def test_other_devices_are_for_the_users_own_script(device: str) -> None:
    with pytest.raises(MeasurementUnavailable, match="FunctionMeter"):
        DeviceMeter(device)


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 0},
        {"batch_size": 1.5},
        {"threads": 0},
        {"quantile": 1.0},
        {"alpha": 0.0},
        {"max_noise": 0.0},
        {"dtype": "int8"},
        {"dtype": "decimal"},
        {"energy": "guess"},
        {"watts": 45.0},
        {"timing": "sundial"},
        {"timing": "device"},
        {"guard": 0.0},
    ],
)
def test_impossible_settings_are_named(settings: dict[str, object]) -> None:
    (name,) = settings
    with pytest.raises(InvalidProblem, match=rf"DeviceMeter\({name}="):
        DeviceMeter("cpu", **settings)  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.parametrize("quantity", ["latency", "memory"])
def test_a_gpu_measures(space: DesignSpace, quantity: str) -> None:
    meter = DeviceMeter("cuda", batch_size=256)
    small, large = Shape(1, 8), Shape(20, 32)
    measured = meter.measure(space, [small, large], quantity)
    for m in measured.values():
        assert 0 < m.low <= m.value <= m.high < math.inf
    assert measured[large].value > 1.5 * measured[small].value
    assert torch.cuda.get_device_properties(0).name in meter.fingerprint


@pytest.mark.gpu
def test_a_gpu_keeps_the_time_itself(space: DesignSpace) -> None:
    """Without launches by the host, a deep network of small layers is much faster."""
    shape = Shape(20, 8)
    host = DeviceMeter("cuda", max_noise=1.0).measure(space, [shape], "latency")[shape]
    meter = DeviceMeter("cuda", timing="device", max_noise=1.0)
    device = meter.measure(space, [shape], "latency")[shape]
    assert 0 < device.value < host.value
    assert "device time" in meter.fingerprint


@pytest.mark.gpu
def test_a_network_that_waits_for_the_gpu_is_no_graph() -> None:
    class Waiting(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * x.sum().item()

    space = DesignSpace([1], [8], lambda shape: Waiting(), input_shape=(4,))
    with pytest.raises(MeasurementUnavailable, match="timing='host'"):
        DeviceMeter("cuda", timing="device").measure(space, space.shapes, "latency")


@pytest.mark.gpu
def test_peak_memory_of_a_gpu_does_not_depend_on_what_ran_before(space: DesignSpace) -> None:
    meter = DeviceMeter("cuda", batch_size=256)
    first = meter.measure(space, space.shapes, "memory")
    again = meter.measure(space, space.shapes[::-1], "memory")
    assert all(first[shape].value == again[shape].value for shape in space.shapes)


@pytest.mark.gpu
def test_a_network_too_large_for_a_gpu_is_impossible_and_the_others_go_on() -> None:
    class Activations(nn.Module):
        def __init__(self, elements: int) -> None:
            super().__init__()
            self.elements = elements

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.empty(self.elements, device=x.device).fill_(1)

    space = DesignSpace(
        [1, 2], [8], lambda s: Activations(10 ** (3 if s == A else 13)), input_shape=(4,)
    )
    measured = DeviceMeter("cuda").measure(space, [B, A], "latency")
    assert measured[B].note.startswith("out of memory")
    assert math.isfinite(measured[A].value)
