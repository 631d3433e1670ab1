"""The benchmark of measuring runs, here on a grid of six shapes."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import measuring
import pytest

from optuna_shape import Measurement
from optuna_shape import Shape

SCRIPT = Path(measuring.__file__)


def run(tmp_path: Path, *options: str) -> list[dict[str, str]]:
    out = tmp_path / "figures.csv"
    command = [sys.executable, str(SCRIPT), "--small", "--out", str(out), "--sessions", "2"]
    command += ["--repeats", "1", "--epochs", "1", "--seeds", "2", *options]
    subprocess.run(command, check=True, timeout=600)
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def test_simulated_parts_are_written_with_provenance(tmp_path: Path) -> None:
    rows = run(tmp_path, "--parts", "simulated,energy")
    assert {row["part"] for row in rows} == {"simulated", "energy"}
    assert all(float(row["value"]) <= 0.02 for row in rows if row["part"] == "energy")
    assert (tmp_path / "figures.json").exists()


@pytest.mark.slow
def test_all_parts_run_on_a_cpu(tmp_path: Path) -> None:
    rows = run(tmp_path)
    assert {row["part"] for row in rows} >= {"truth", "planted", "boundary", "share"}


@pytest.mark.gpu
def test_all_parts_run_on_a_gpu(tmp_path: Path) -> None:
    rows = run(tmp_path, "--device", "cuda")
    assert {row["part"] for row in rows} >= {"truth", "planted", "boundary", "share", "board"}


def test_sessions_are_read_back(tmp_path: Path) -> None:
    sessions = {
        number: {Shape(1, 8): Measurement(0.001 * number, 0.0009 * number, 0.0011 * number, 9, "")}
        for number in (1, 2)
    }
    measuring.write_truth(tmp_path / "grid.csv", sessions)
    assert measuring.read_truth(tmp_path / "grid.csv") == sessions
    assert measuring.read_truth(tmp_path / "absent.csv") == {}


def test_what_counts_as_a_wrong_verdict() -> None:
    within, over = Measurement(1, 0.9, 1.0, 9, ""), Measurement(1.2, 1.1, 1.3, 9, "")
    assert measuring._is_wrong(within, bound=1.0, truth=1.05, sign=1)
    assert not measuring._is_wrong(within, bound=1.0, truth=0.95, sign=-1)
    assert measuring._is_wrong(over, bound=1.0, truth=0.95, sign=-1)
    assert not measuring._is_wrong(Measurement(1, 0.9, 1.1, 9, ""), 1.0, truth=0.95, sign=-1)
