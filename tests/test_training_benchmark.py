from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

import pytest
import training

BENCHMARKS = Path(training.__file__).parent


@dataclass
class Event:
    name: str
    self_cpu_time_total: float  # Microseconds.
    cpu_children: list[Event] = field(default_factory=list)

    @property
    def cpu_time_total(self) -> float:
        return self.self_cpu_time_total + sum(c.cpu_time_total for c in self.cpu_children)


def test_all_time_is_sorted_once() -> None:
    convolution = Event("aten::conv2d", 1, [Event("aten::mkldnn_convolution", 2)])
    backward = Event(
        "autograd::engine::evaluate_function: ConvolutionBackward0",
        4,
        [Event("ConvolutionBackward0", 8, [Event("aten::convolution_backward", 16)])],
    )
    varied = Event("data", 32, [Event("aten::grid_sampler", 64), Event("aten::index", 128)])
    step = Event("Optimizer.step#AdamW.step", 256, [Event("aten::_fused_adamw_", 512)])
    picked = Event("aten::index", 1024, [Event("aten::empty", 2048)])
    relu = Event("aten::relu_", 4096, [Event("aten::clamp_min_", 8192)])
    root = Event("training", 16384, [convolution, backward, varied, step, picked, relu])
    assert training.sort_time([root]) == pytest.approx(
        {
            # What autograd does around a convolution is the convolution's.
            "convolution": (1 + 2 + 8 + 16) / 1e6,
            "data": (32 + 64 + 128 + 1024 + 2048) / 1e6,
            "optimizer": (256 + 512) / 1e6,
            "other operations": (4 + 4096 + 8192) / 1e6,
            "python": 16384 / 1e6,
        }
    )


@pytest.mark.slow
def test_a_real_training_is_profiled(tmp_path: Path) -> None:
    out = tmp_path / "training.csv"
    command = [sys.executable, "training.py", "--data", "digits", "--shapes", "1x4"]
    subprocess.run([*command, "--out", str(out)], cwd=BENCHMARKS, check=True)
    with out.open(newline="") as file:
        rows = {row["part"]: row for row in csv.DictReader(file)}
    parts = ("convolution", "normalization", "optimizer", "data", "python", "other operations")
    assert all(float(rows[part]["seconds"]) > 0 for part in parts)
    shares = sum(float(row["share"]) for part, row in rows.items() if part != "without profiler")
    assert shares == pytest.approx(1, abs=1e-3)
    assert out.with_suffix(".json").exists()
