from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import compression
import pytest
import torch
from torch import nn

from optuna_shape import Shape

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


def run(folder: Path, *options: str) -> None:
    command = [sys.executable, str(SCRIPT), "--out", str(folder), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, capture_output=True)


def test_a_table_is_written_for_each_matrix_part(tmp_path: Path) -> None:
    options = ["--parts", "coding,product", "--repeats", "1"]
    for _ in range(2):  # Times of a second run replace those of the first.
        run(tmp_path, *options, "--coding-size", "300x40", "--product-sizes", "300x40")
    coding = compression.read(tmp_path / "compression-coding.csv")
    product = compression.read(tmp_path / "compression-product.csv")
    assert len(coding) == len(compression.SPARSITIES) * 9
    assert len(product) == 4 * 2 * 2
    assert {row["sparsity"] for row in product} >= {"0.5", "0.9", "0.99"}
    bounded = [row for row in coding if row["bound"]]
    assert {row["format"] for row in bounded} == {"ham", "sham"}
    assert all(float(row["share"]) <= float(row["bound"]) for row in bounded)


@pytest.mark.slow
def test_networks_are_trained_once_and_a_second_run_adds_what_is_missing(tmp_path: Path) -> None:
    options = ["--parts", "network", "--data", "digits", "--shape", "1x4", "--vgg-shape", "1x2"]
    options += ["--budget", "1+1+1", "--shares", "0.8", "0.95", "--dense-shares", "0.99"]
    run(tmp_path, *options, "--networks", "resnet")
    table = tmp_path / "compression-network.csv"
    first = compression.read(table)
    assert [row["step"] for row in first[:3]] == ["trained", "longer", "snapshot"]
    assert [row["epochs"] for row in first[:3]] == ["1", "3", "1"]
    assert {row["share"] for row in first} == {"0.0", "0.8", "0.95"}
    assert len(first) == 2 + 2 * 5
    last = first[-1]
    assert last["step"] == "rounded"
    assert float(first[0]["ratio"]) < 1.1 < 4 < float(last["ratio"])

    compression.write(short := tmp_path / "short.csv", first[:-3])  # As if interrupted.
    short.replace(table)
    run(tmp_path, *options, "--k", "32", "2")
    second = compression.read(table)
    assert second[: len(first) - 3] == first[:-3]
    fewer = [row for row in second if row["network"] == "resnet" and row["k"] == "2"]
    assert [row["share"] for row in fewer] == ["0.8"] * 3 + ["0.95"] * 3
    assert float(fewer[-1]["ratio"]) > float(last["ratio"])
    again = [row for row in second if row["network"] == "resnet" and row["share"] == "0.95"]
    for one, other in zip(first[-3:], again[2:5]):
        assert {**one, "seconds": ""} == {**other, "seconds": ""}
    dense = [row for row in second if row["network"] == "vgg"]
    assert len(dense) == 2 + 2 + 2 * 3
    assert float(dense[-1]["dense_ratio"]) > float(dense[-1]["ratio"]) > 4
    summary = compression.read(tmp_path / "compression-summary.csv")
    assert {row["network"] for row in summary if row["target"]} == {"resnet", "vgg"}


def rows_of(seed: int, *steps: tuple[str, float, float, float]) -> list[compression.Row]:
    setting = {"data": "d", "network": "resnet", "shape": "1x1", "budget": "1+1+1", "k": 32}
    return [
        setting
        | {"seed": seed, "step": step, "share": share, "accuracy": accuracy, "ratio": ratio}
        | {"test": accuracy - 0.01, "dense_ratio": "", "seconds": 2.0 + (step == "pruned")}
        for step, share, accuracy, ratio in steps
    ]


def test_a_network_is_measured_against_the_better_baseline() -> None:
    base = [("trained", 0.0, 0.90, 1.0), ("longer", 0.0, 0.92, 1.1)]
    rows = rows_of(0, *base, ("pruned", 0.8, 0.92, 5.0), ("pruned", 0.9, 0.916, 9.0))
    rows += rows_of(1, *base, ("pruned", 0.8, 0.91, 5.0), ("snapshot", 0.8, 0.93, 20.0))
    rows += rows_of(2, ("trained", 0.0, 0.9, 1.0), ("pruned", 0.8, 0.99, 90.0))  # Interrupted.
    seen = {row["what"]: row for row in compression.summarize(rows)}
    strict = seen["ratio, no loss"]
    assert (strict["least"], strict["most"], strict["median"]) == ("5", "20", "12.5")
    assert (strict["seeds"], strict["target"], strict["met"]) == (2, 18.0, "no")
    assert seen["ratio, 0.5 points"]["least"] == "9"
    assert seen["snapshot, accuracy at 0.8"]["median"] == "0.02"
    assert float(seen["snapshot, seconds at 0.8"]["median"]) == pytest.approx(2 / 3, abs=1e-4)
    assert float(seen["test accuracy, no loss"]["most"]) == pytest.approx(0.01)


def test_without_a_good_step_no_ratio_is_claimed() -> None:
    rows = rows_of(0, ("trained", 0.0, 0.9, 1.0), ("longer", 0.0, 0.92, 1.1))
    rows += rows_of(0, ("rounded", 0.95, 0.9, 30.0))
    seen = {row["what"]: row["median"] for row in compression.summarize(rows)}
    assert seen["ratio, no loss"] == "1.1"
    assert seen["ratio at 0.95, k=32"] == "30"
    assert seen["accuracy at 0.95, k=32"] == seen["test at 0.95, k=32"] == "-0.02"
    assert "snapshot, accuracy at 0.95" not in seen


def test_dense_layers_are_in_the_proportions_of_vgg19() -> None:
    model = compression.vgg(Shape(2, 4), (1, 14, 14), 10)
    assert model(torch.zeros(2, 1, 14, 14)).shape == (2, 10)
    widths = [layer.out_features for layer in model.modules() if isinstance(layer, nn.Linear)]
    assert widths == [256, 256, 10]
    assert sum(isinstance(layer, nn.Conv2d) for layer in model.modules()) == 4


def test_the_number_of_threads_is_not_just_said(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "OMP_NUM_THREADS=1" in done.stderr
