"""Recording of tables: every shape and seed once, in pieces, by several processes."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import exhaustive
import replay
import tables
import torch

from optuna_shape import Shape


def record(path: Path, *more: str) -> str:
    command = [sys.executable, "-W", "ignore", exhaustive.__file__, "--record", str(path)]
    command += ["--family", "mlp", "--depth", "1,2", "--width", "4,8", "--epochs", "2"]
    command += ["--seeds", "0,1,2", "--threads", "1", "--max-noise", "100", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_table_is_recorded_in_pieces_by_two_processes(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    assert "seed" not in record(path, "--minutes", "0")
    assert not path.exists()
    measured = (tmp_path / "t-shapes.csv").read_text()
    first = record(path, "--seeds", "0")
    assert first.count("shape") == 4
    rest = record(path, "--processes", "2")
    assert rest.count("shape") == 8
    assert "seed 0" not in rest
    trainings = tables.read(path)
    assert len({(t.shape, t.seed) for t in trainings}) == len(trainings) == 12
    for training in trainings:
        assert len(training.curve) == 2
        assert training.latency > 0
        assert math.isnan(training.energy) or training.energy > 0
    assert len({t.latency for t in trainings}) == 4, "of one measuring"
    assert (tmp_path / "t-shapes.csv").read_text() == measured
    # A training is that of its shape and seed, in whatever process.
    threads = torch.get_num_threads()
    setting = exhaustive.Setting("digits", None, "mlp", (), (1, 2), (4, 8), 2, "cpu", threads=1)
    try:
        for training in trainings:
            if training.seed == 2:
                assert setting.train(training.shape, 2)[1] == training.curve
    finally:
        torch.set_num_threads(threads)
    table = replay.make_table("t", trainings)
    assert isinstance(table, replay.Table)


def test_energy_is_a_task_where_it_was_recorded(tmp_path: Path) -> None:
    path, old = tmp_path / "new.csv", tmp_path / "old.csv"
    old.write_text("depth,width,seed,seconds,flops,latency,size,curve\n")
    for seed in range(3):
        for depth in (1, 2):
            curve = (0.5, 0.6 + 0.1 * depth)
            training = tables.Training(depth, 4, seed, 1, 1, 1, 1, curve, 0.25 * depth)
            for file in (path, old):
                tables.append(file, training)
    for file, energies in ((path, {0.25, 0.5}), (old, None)):
        table = replay.make_table("t", tables.read(file))
        assert isinstance(table, replay.Table)
        known = table.costs.get("energy")
        assert (None if known is None else set(known.values())) == energies
        tasks = {task.name: task for task in replay.make_tasks(table)}
        assert ("energy" in tasks) == (energies is not None)
    problem = replay.make_problem(replay.make_table("t", tables.read(path)), tasks["size"])
    assert problem.goal == "size"
    assert tables.read(path)[0].shape == Shape(1, 4)
