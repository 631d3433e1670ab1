"""The benchmark of several workers, for real, with short trainings."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import throughput


@pytest.mark.slow
def test_all_workers_do_the_same_work(tmp_path: Path) -> None:
    out = tmp_path / "throughput.csv"
    command = [sys.executable, "throughput.py", "--repeats", "1", "--epochs", "1"]
    command += ["--workers", "1,2", "--out", str(out)]
    run = subprocess.run(
        command, cwd=Path(throughput.__file__).parent, check=True, capture_output=True, text=True
    )
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["workers"], row["trainings"]) for row in rows] == [("1", "24"), ("2", "24")]
    assert all(0 < float(row["seconds"]) < float(row["command"]) for row in rows)
    assert "1 workers: 1.00 (1.00 to 1.00) times the throughput" in run.stdout
    assert out.with_suffix(".json").exists()
