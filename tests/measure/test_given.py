from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from optuna_shape.errors import MeasurementUnavailable
from optuna_shape.measure import FunctionMeter
from optuna_shape.measure import TableMeter
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape

A, B = Shape(1, 8), Shape(2, 8)


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


def test_a_file_may_hold_intervals(tmp_path: Path) -> None:
    path = _table(
        tmp_path,
        "depth,width,latency,latency_low,latency_high,energy\n1,8,2e-3,1e-3,3e-3,1\n2,8,.004,,inf,2\n",
    )
    measured = TableMeter(path).measure(NO_SPACE, [A, B], "latency")
    assert (measured[A].low, measured[A].value, measured[A].high) == (0.001, 0.002, 0.003)
    assert (measured[B].low, measured[B].high) == (0.004, math.inf)
    energy = TableMeter(path).measure(NO_SPACE, [A], "energy")[A]
    assert energy.low == energy.value == energy.high == 1


def test_fingerprint_of_a_table_follows_its_intervals(tmp_path: Path) -> None:
    def fingerprint(cells: str) -> str:
        text = f"depth,width,latency,latency_low,latency_high\n1,8,{cells}\n"
        return TableMeter(_table(tmp_path, text)).fingerprint

    cells = ("2e-3,1e-3,3e-3", "2e-3,1e-3,4e-3", "2e-3,,", ",1e-3,")
    assert len({fingerprint(text) for text in cells}) == len(cells)
    assert fingerprint("2e-3,,") == TableMeter({A: {"latency": 0.002}}).fingerprint


def test_an_inferred_shape_answers_for_tighter_bounds_only(tmp_path: Path) -> None:
    meter = TableMeter(
        _table(tmp_path, "depth,width,latency,latency_low,latency_high\n1,8,,2e-3,\n")
    )
    for bound in (0.001, 0.002):
        m = meter.measure(NO_SPACE, [A], "latency", bound)[A]
        assert (m.value, m.low, m.high, m.samples) == (math.inf, 0.002, math.inf, 0)
        assert "not measured, inferred to be over 2 ms" in m.note
    with pytest.raises(MeasurementUnavailable, match=r"\(1, 8\).*within 3 ms.*--mode exhaustive"):
        meter.measure(NO_SPACE, [A], "latency", 0.003)
    with pytest.raises(MeasurementUnavailable, match=r"at all.*--mode exhaustive"):
        meter.measure(NO_SPACE, [A], "latency")


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        ("2,3,4", "line 2: latency is 2 and its interval from 3 to 4"),
        ("2,1,1.5", "line 2: latency is 2 and its interval from 1 to 1.5"),
        ("2,-1,3", "line 2: latency_low is -1"),
        ("2,low,3", "line 2: latency_low is 'low'"),
        ("2,1,nan", "line 2: latency_high is nan"),
        ("inf,1,", "latency is inf and its interval from 1"),
        (",inf,", "latency is empty and its interval from inf"),
        (",1,2", "latency is empty and its interval from 1 to 2"),
    ],
)
def test_a_bad_interval_is_reported_with_its_line(
    tmp_path: Path, cells: str, complaint: str
) -> None:
    text = f"depth,width,latency,latency_low,latency_high\n1,8,{cells}\n"
    with pytest.raises(MeasurementUnavailable, match=re.escape(complaint)):
        TableMeter(_table(tmp_path, text))


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


def test_a_function_with_arguments_given_is_another_one_for_each_of_them() -> None:
    def phone(shape: Shape, model: str) -> dict[str, float]:
        return {"latency": 1.0}

    names = {FunctionMeter(partial(phone, model=model)).fingerprint for model in "ab"}
    assert len(names) == 2
    assert all("phone" in name for name in names)
