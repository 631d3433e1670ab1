from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from optuna_shape.errors import EnergyUnavailable
from optuna_shape.measure.counters import NvmlCounter
from optuna_shape.measure.counters import RaplCounter
from optuna_shape.measure.counters import find_counter
from optuna_shape.measure.energy import watch_idle


def _package(root: Path, index: int, name: str, microjoules: int, size: int = 1_000_000) -> Path:
    zone = root / f"intel-rapl:{index}"
    zone.mkdir()
    (zone / "name").write_text(f"{name}\n")
    (zone / "energy_uj").write_text(f"{microjoules}\n")
    (zone / "max_energy_range_uj").write_text(f"{size}\n")
    return zone / "energy_uj"


def test_rapl_adds_the_packages_and_nothing_twice(tmp_path: Path) -> None:
    first = _package(tmp_path, 0, "package-0", 100)
    second = _package(tmp_path, 1, "package-1", 200)
    whole = _package(tmp_path, 2, "psys", 300)
    counter = RaplCounter(tmp_path, clock=lambda: 12.5)
    assert counter.read() == (0.0, 12.5)
    for path, value in ((first, 1100), (second, 2200), (whole, 9000)):
        path.write_text(str(value))
    assert counter.read()[0] == pytest.approx(3000e-6)


def test_rapl_counts_on_where_a_counter_starts_again(tmp_path: Path) -> None:
    path = _package(tmp_path, 0, "package-0", 999_000)
    counter = RaplCounter(tmp_path)
    path.write_text("500")
    assert counter.read()[0] == pytest.approx(1500e-6)
    path.write_text("700")
    assert counter.read()[0] == pytest.approx(1700e-6)


def test_rapl_without_packages_says_what_helps(tmp_path: Path) -> None:
    with pytest.raises(EnergyUnavailable, match=r"watts=45"):
        RaplCounter(tmp_path / "absent")


def test_rapl_that_may_not_be_read_says_what_helps(tmp_path: Path) -> None:
    path = _package(tmp_path, 0, "package-0", 0)
    path.unlink()
    path.mkdir()  # Root may read every file, but no directory.
    with pytest.raises(EnergyUnavailable, match=r"sudo chmod"):
        RaplCounter(tmp_path)


def test_rapl_that_holds_no_number_says_so(tmp_path: Path) -> None:
    _package(tmp_path, 0, "package-0", 0).write_text("")
    with pytest.raises(EnergyUnavailable, match="cannot read"):
        RaplCounter(tmp_path)


def test_this_machine_has_a_counter_that_counts_or_says_that_it_has_none() -> None:
    power, said = 0.0, ""
    try:
        power = watch_idle(find_counter(torch.device("cpu")), time.sleep).power
    except EnergyUnavailable as error:
        said = str(error)
    assert power > 0 or "RAPL" in said


@pytest.mark.gpu
def test_the_counter_of_a_gpu_counts() -> None:
    device = torch.device("cuda", 0)
    idle = watch_idle(NvmlCounter(device), time.sleep)
    assert 1e-3 <= idle.period < 1
    assert 1 < idle.power < 2000
