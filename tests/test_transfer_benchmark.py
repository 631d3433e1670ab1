"""The benchmark of knowledge transfer, here with tiny perceptrons."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import transfer

SCRIPT = Path(transfer.__file__)


def row(method: str, seed: int, curve: str) -> transfer.Row:
    accuracy = float(curve.split()[-1])
    return transfer.Row(
        "pairs",
        "d",
        "f",
        "1x1",
        "1x2",
        seed,
        method,
        "",
        len(curve.split()),
        1,
        accuracy,
        1,
        curve,
    )


def test_summary_counts_epochs_to_the_accuracy_from_scratch() -> None:
    rows = [
        row("scratch", 0, "0.1 0.5 0.7 0.8 0.9"),
        row("scratch", 1, "0.1 0.5 0.6 0.8 0.7"),
        row("scratch short", 0, "0.4 0.69"),
        row("scratch short", 1, "0.4 0.69"),
        row("heir gentle", 0, "0.5 0.9"),
        row("heir gentle", 1, "0.6 0.5"),
    ]
    # From scratch 0.8 in the mean, with a standard error of 0.1: a mean of 0.7 will do.
    scratch, short, heir = transfer.summarize(rows)
    assert (scratch["epochs_to_goal"], scratch["fall"], scratch["worse"]) == (4, 0, 0)
    assert (short["epochs_to_goal"], short["fall"], short["worse"]) == ("", "", 0.11)
    assert (heir["epochs_to_goal"], heir["fall"], heir["worse"]) == (2, 0.5, 0.1)
    assert heir["noise"] == round((0.02 / 2 + 0.08 / 2) ** 0.5, 5)


@pytest.mark.slow
def test_it_runs_and_goes_on_where_it_ended(tmp_path: Path) -> None:
    out = tmp_path / "transfer.csv"
    command = [sys.executable, str(SCRIPT), "--data", "digits", "--family", "mlp", "--seeds", "0"]
    command += ["--depth", "1,2", "--width", "4,8", "--epochs", "2", "--pairs", "1x4>2x8"]
    command += ["--methods", "scratch,heir,heir taught", "--constraint", "size <= 1 MB"]
    command += ["--out", str(out)]
    first = subprocess.run(command, check=True, timeout=600, capture_output=True, text=True)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["part"] for r in rows] == ["pairs"] * 3 + ["search"] * 2
    assert [r["inherited"] for r in rows[:3]] == ["", "function", "function"]
    assert "with transfer" in first.stdout.splitlines()[-1]
    assert out.with_suffix(".json").exists()
    assert (tmp_path / "transfer-summary.csv").exists()

    written = out.read_text()
    second = subprocess.run(command, check=True, timeout=600, capture_output=True, text=True)
    assert out.read_text() == written
    assert second.stdout.splitlines()[-1] == first.stdout.splitlines()[-1]
