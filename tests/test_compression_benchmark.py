from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import compression
import pytest
import torch

SCRIPT = Path(compression.__file__)


def test_a_matrix_is_as_sparse_and_has_as_many_values_as_asked_for() -> None:
    weight = compression.matrix(60, 50, 0.9, 8)
    assert weight.shape == (50, 60)
    assert int((weight == 0).sum()) == 2700
    assert len(weight.unique()) == 9


def test_every_coder_is_verified_on_the_same_matrix() -> None:
    weight = compression.matrix(60, 50, 0.9, 8)
    sizes = {name: len(content) for name, content, _ in compression.encodings(weight, 1)}
    assert {"ham", "sham", "gaps", "ans", "smallest", "zstd-19", "lzma"} <= set(sizes)
    assert sizes["smallest"] == min(sizes[name] for name in ("ham", "sham", "gaps", "ans"))
    assert sizes["huffman"] == min(sizes["ham"], sizes["gaps"])
    assert torch.equal(weight, compression.matrix(60, 50, 0.9, 8))
    with pytest.raises(SystemExit, match="ham did not return"):
        compression.check(False, "ham")


def test_a_table_is_written_for_each_part(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--coding-size", "300x40", "--repeats", "1"]
    options = ["--product-sizes", "300x40", "--out", str(tmp_path)]
    options += ["--data", "digits", "--shape", "1x4", "--epochs", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command + options, env=environment, check=True, capture_output=True)
    for part in compression.PARTS:
        with (tmp_path / f"compression-{part}.csv").open() as file:
            rows = list(csv.DictReader(file))
        if part == "network":
            assert float(rows[0]["ratio"]) < 1.1 < 4 < float(rows[-1]["ratio"])
            steps = {row["step"] for row in rows}
            assert steps == {"trained", "snapshot", "pruned", "shared", "tuned", "rounded"}
        else:
            assert {row["sparsity"] for row in rows} >= {"0.5", "0.9", "0.99"}
        assert (tmp_path / f"compression-{part}.json").exists()
        if part == "coding":
            bounded = [row for row in rows if row["bound"]]
            assert {row["format"] for row in bounded} == {"ham", "sham"}
            assert all(float(row["share"]) <= float(row["bound"]) for row in bounded)


def test_the_number_of_threads_is_not_just_said(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "OMP_NUM_THREADS=1" in done.stderr
