from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
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


def test_a_larger_batch_takes_longer(space: DesignSpace) -> None:
    shape = Shape(20, 32)
    one = _tolerant(batch_size=1).measure(space, [shape], "latency")[shape]
    many = _tolerant(batch_size=16).measure(space, [shape], "latency")[shape]
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
    assert joules > 0 or "energy=45.0" in said


def test_energy_is_estimated_if_asked_for_and_says_so(space: DesignSpace) -> None:
    meter = _tolerant(energy=45.0)
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
        DeviceMeter("cpu", threads=1, energy=5.0),
    ]
    assert len({plain, *(meter.fingerprint for meter in others)}) == 1 + len(others)
    assert DeviceMeter("cpu", threads=1, seed=5, alpha=0.001).fingerprint == plain


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
        {"energy": -1.0},
        {"energy": "guess"},
    ],
)
def test_impossible_settings_are_named(settings: dict[str, object]) -> None:
    (name,) = settings
    with pytest.raises(InvalidProblem, match=rf"DeviceMeter\({name}="):
        DeviceMeter("cpu", **settings)  # type: ignore[arg-type]


NO_SPACE = DesignSpace([1, 2], [8])


def _table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_is_looked_up() -> None:
    meter = TableMeter({A: {"latency": 0.002, "size": 310_000}, (2, 8): {"latency": 0.004}})
    measured = meter.measure(NO_SPACE, [B, A], "latency")
    assert list(measured) == [B, A]
    assert (measured[A].low, measured[A].value, measured[A].high) == (0.002, 0.002, 0.002)
    assert meter.measure(NO_SPACE, [A], "size")[A].value == 310_000


def test_a_file_holds_what_a_mapping_holds(tmp_path: Path) -> None:
    path = _table(
        tmp_path,
        "\ufeffdepth, width, latency, size, accuracy, remark\n"
        "1,8,2e-3,310000,0.9,good\n2,8,.004,,,\n",
    )
    from_file = TableMeter(path)
    from_mapping = TableMeter({A: {"latency": 0.002, "size": 310_000}, B: {"latency": 0.004}})
    assert from_file.fingerprint == from_mapping.fingerprint
    assert TableMeter(str(path)).measure(NO_SPACE, [A], "latency")[A].value == 0.002


def test_fingerprint_of_a_table_follows_its_content() -> None:
    one = TableMeter({A: {"latency": 0.002}, B: {"latency": 0.004}})
    assert one.fingerprint == TableMeter({B: {"latency": 0.004}, A: {"latency": 2e-3}}).fingerprint
    assert one.fingerprint != TableMeter({A: {"latency": 0.002}}).fingerprint


@pytest.mark.parametrize(
    ("shape", "quantity", "named"),
    [
        (B, "latency", "no shape (2, 8)"),
        (A, "energy", "no 'energy' of shape (1, 8), only latency"),
    ],
)
def test_a_table_names_what_it_lacks(shape: Shape, quantity: str, named: str) -> None:
    with pytest.raises(MeasurementUnavailable, match=re.escape(named)):
        TableMeter({A: {"latency": 0.002}}).measure(NO_SPACE, [shape], quantity)


def test_a_table_may_say_that_a_shape_cannot_run() -> None:
    m = TableMeter({A: {"latency": math.inf}}).measure(NO_SPACE, [A], "latency")[A]
    assert math.isinf(m.low)
    assert m.note


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1: no column depth and width"),
        ("depth,latency\n1,2\n", "line 1: no column width"),
        ("depth,width,latency\n1,8,0.1\n1,9,fast\n", "line 3: latency is 'fast'"),
        ("depth,width,latency\n1,8,-0.1\n", "line 2: latency is -0.1"),
        ("depth,width,latency\n1,8,nan\n", "line 2: latency is nan"),
        ("depth,width,latency\n1,8,0\n", "line 2: latency is 0"),
        ("depth,width,latency\n1.5,8,1\n", "line 2: (1.5, 8) is no shape"),
        ("depth,width,latency\n1\n", "line 2: (1, None) is no shape"),
        ("depth,width,latency\n1,8,1\n\n1,8,2\n", "line 4: shape (1, 8) for a second time"),
    ],
)
def test_a_bad_file_is_reported_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(MeasurementUnavailable, match=re.escape(complaint)):
        TableMeter(_table(tmp_path, text))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(MeasurementUnavailable, match=r"absent\.csv"):
        TableMeter(tmp_path / "absent.csv")
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"depth,width\n\xff\xfe\n")
    with pytest.raises(MeasurementUnavailable, match=r"binary\.csv"):
        TableMeter(binary)


@pytest.mark.parametrize("key", [(1,), (0, 8), ("1", "8"), "18", (True, 8)])
def test_keys_of_a_table_are_shapes(key: object) -> None:
    with pytest.raises(MeasurementUnavailable, match="is no shape"):
        TableMeter({key: {"latency": 1.0}})  # type: ignore[dict-item]


def test_a_function_is_asked_once_per_shape() -> None:
    asked = []

    def phone(shape: Shape) -> dict[str, float]:
        asked.append(shape)
        return {"latency": 0.001 * shape.depth, "energy": np.float64(0.5), "battery": math.nan}

    meter = FunctionMeter(phone)
    assert meter.measure(NO_SPACE, [A, B], "latency")[B].value == 0.002
    assert meter.measure(NO_SPACE, [A, B], "energy")[A].value == 0.5
    assert asked == [A, B]
    assert meter.fingerprint.endswith("phone")
    assert FunctionMeter(phone, fingerprint="Pixel 9").fingerprint == "Pixel 9"


class _Simulator:
    def __call__(self, shape: Shape) -> dict[str, float]:
        return {"latency": 1.0}


def test_any_callable_will_do() -> None:
    meter = FunctionMeter(_Simulator())
    assert meter.measure(NO_SPACE, [A], "latency")[A].value == 1.0
    assert meter.fingerprint.endswith("_Simulator")


def test_a_quantity_that_a_function_does_not_return_is_named() -> None:
    meter = FunctionMeter(lambda shape: {"latency": 1.0})
    with pytest.raises(MeasurementUnavailable, match=r"no 'energy', only latency"):
        meter.measure(NO_SPACE, [A], "energy")


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0, "2 ms", None, True, 1j])
def test_a_function_that_returns_no_cost_is_reported(value: object) -> None:
    meter = FunctionMeter(lambda shape: {"latency": value})  # type: ignore[dict-item]
    with pytest.raises(MeasurementUnavailable, match=r"\(1, 8\).*latency is .*seconds"):
        meter.measure(NO_SPACE, [A], "latency")


def test_a_function_that_returns_no_mapping_is_reported() -> None:
    with pytest.raises(MeasurementUnavailable, match=r"returned 0\.002.*dictionary"):
        FunctionMeter(lambda shape: 0.002).measure(NO_SPACE, [A], "latency")  # type: ignore[arg-type,return-value]


def _raising(error: Exception) -> Callable[[Shape], dict[str, float]]:
    def function(shape: Shape) -> dict[str, float]:
        raise error

    return function


def test_a_function_that_raises_is_reported() -> None:
    with pytest.raises(MeasurementUnavailable, match="OSError: no phone on the cable"):
        FunctionMeter(_raising(OSError("no phone on the cable"))).measure(NO_SPACE, [A], "size")


def test_a_function_may_say_that_a_shape_does_not_fit() -> None:
    m = FunctionMeter(_raising(MemoryError())).measure(NO_SPACE, [A], "latency")[A]
    assert math.isinf(m.low)
    assert "out of memory" in m.note


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
