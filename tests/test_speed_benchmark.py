"""The benchmark of depth-scaled networks against the fastest shapes, here with tiny ones."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import speed
import tables
import torch

from optuna_shape import Measurement
from optuna_shape import Shape
from optuna_shape import TableMeter
from optuna_shape.families import resnet
from optuna_shape.train.data import load

SCRIPT = Path(speed.__file__)
DEEP, SMALL = Shape(3, 16), Shape(1, 16)


def measured(*interval: float) -> Measurement:
    value, low, high = map(float, interval)
    return Measurement(value, low, high, 9, "a clock")


def a_found(answer: Shape = SMALL) -> speed.Found:
    return speed.Found(DEEP, 0.85, 0.84, answer, 0.86, 0.83, 7, 2.5, "certain")


def a_row(**changes: object) -> speed.Row:
    latencies = {DEEP: measured(6, 5, 8), SMALL: measured(2, 1, 2.5)}
    row = speed.make_row(0, 20, 128, a_found(), latencies, {})
    return dataclasses.replace(row, **changes)  # type: ignore[arg-type]


def test_layers_are_two_per_block_of_three_stages_and_two_more() -> None:
    shapes = [speed.shape_of_layers(layers, 16) for layers in (20, 32, 44, 56, 110)]
    assert shapes == [Shape(depth, 16) for depth in (3, 5, 7, 9, 18)]
    for impossible in (2, 21):
        with pytest.raises(ValueError, match=f"no residual network has {impossible} layers"):
            speed.shape_of_layers(impossible, 16)


def test_a_ratio_reaches_as_far_as_the_two_intervals() -> None:
    row = a_row()
    assert (row.ratio, row.ratio_low, row.ratio_high) == (3, 2, 8)
    assert math.isnan(row.deep_energy)
    assert math.isnan(row.energy_ratio)


def test_energy_has_a_ratio_of_its_own() -> None:
    latencies = {DEEP: measured(6, 5, 8), SMALL: measured(2, 1, 2.5)}
    energies = {DEEP: measured(30, 20, 40), SMALL: measured(20, 16, 25)}
    row = speed.make_row(0, 20, 128, a_found(), latencies, energies)
    assert (row.deep_energy, row.answer_energy) == (30, 20)
    assert (row.energy_ratio, row.energy_ratio_low, row.energy_ratio_high) == (1.5, 0.8, 2.5)
    assert row.ratio == 3


def test_a_network_is_as_fast_as_itself_for_sure() -> None:
    measurements = {DEEP: measured(6, 5, 8)}
    row = speed.make_row(0, 20, 128, a_found(DEEP), measurements, measurements)
    assert (row.ratio, row.ratio_low, row.ratio_high) == (1, 1, 1)
    assert (row.energy_ratio, row.energy_ratio_low, row.energy_ratio_high) == (1, 1, 1)


def test_summary_is_over_seeds_for_each_network_and_batch_size() -> None:
    rows = [
        a_row(seed=0, ratio=3.0, ratio_low=2.5, answer_test=0.85, energy_ratio=2.0),
        a_row(seed=1, ratio=1.0, ratio_high=9.0, answer_test=0.83, energy_ratio=4.0),
        a_row(seed=2, ratio=5.0, answer_test=0.84),
        a_row(seed=0, batch_size=1),
    ]
    single, many = speed.summarize(rows)
    assert (single["batch_size"], single["seeds"], single["ratio"]) == (1, 1, "3")
    assert (single["test_difference_error"], single["energy_ratio"]) == ("", "")
    assert (many["batch_size"], many["seeds"]) == (128, 3)
    assert (many["ratio"], many["ratio_lowest"], many["ratio_highest"]) == ("3", "1", "5")
    # The intervals are 2.5 to 8, 2 to 9 and 2 to 8.
    assert (many["ratio_low"], many["ratio_high"]) == ("2", "9")
    assert (many["energy_ratio"], many["energy_ratio_lowest"]) == ("3", "2")
    # Differences are 0.01, -0.01 and 0: a deviation of 0.01, over the root of three.
    assert float(str(many["test_difference"])) == pytest.approx(0, abs=1e-9)
    assert float(str(many["test_difference_error"])) == pytest.approx(0.01 / 3**0.5, rel=1e-4)
    assert float(str(many["validation_difference"])) == pytest.approx(0.01)


def test_summary_tells_what_the_series_gives_itself() -> None:
    def member(seed: int, layers: int, accuracy: float, latency: float, ratio: float) -> speed.Row:
        changes = {"seed": seed, "layers": layers, "ratio": ratio}
        return a_row(**changes, deep_validation=accuracy, deep_latency=latency)

    rows = [
        # As accurate as the deepest are 20 layers, which are faster than 32.
        *(member(0, 20, 0.85, 2, 1), member(0, 32, 0.87, 3, 1), member(0, 44, 0.85, 8, 6)),
        # Only 32 layers are; those of 20 are as accurate, but of another seed.
        *(member(1, 20, 0.83, 2, 1), member(1, 32, 0.85, 4, 1), member(1, 44, 0.84, 8, 6)),
        # None is.
        *(member(2, 20, 0.83, 2, 1), member(2, 32, 0.84, 4, 1), member(2, 44, 0.86, 8, 6)),
        # Nor does one count that was measured with another batch size.
        dataclasses.replace(member(2, 20, 0.99, 1, 1), batch_size=1),
    ]
    _, least, _, deepest = speed.summarize(rows)
    names = ("series", "series_lowest", "series_highest")
    assert [least[name] for name in names] == ["1", "1", "1"]
    assert [deepest[name] for name in names] == ["2", "1", "4"]
    # Of 6 times the series gave 4, 2 and 1.
    names = ("beyond_series", "beyond_series_lowest", "beyond_series_highest")
    assert [deepest[name] for name in names] == ["3", "1.5", "6"]


def test_a_network_is_as_accurate_as_itself_however_its_repeats_ended() -> None:
    same = a_row(seed=1, answer=a_row().deep)  # Recorded with other accuracies.
    assert same.accuracies("validation") == (0.85, 0.85)
    (line,) = speed.summarize([a_row(), same])
    # The other one gains 0.01, and loses as much on the test.
    assert float(str(line["validation_difference"])) == pytest.approx(0.005)
    assert float(str(line["test_difference"])) == pytest.approx(-0.005)
    assert float(str(line["test_difference_error"])) == pytest.approx(0.005)


def test_the_recorded_summary_is_of_the_recorded_rows(tmp_path: Path) -> None:
    recorded = speed.RESULTS / "speed-summary.csv"
    rows = speed.read(speed.RESULTS / "speed.csv")
    speed.write(tmp_path / "summary.csv", speed.summarize(rows))
    assert (tmp_path / "summary.csv").read_text() == recorded.read_text()


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "speed.csv"
    row = a_row()
    speed.write(path, [dataclasses.asdict(row)])
    (again,) = speed.read(path)
    assert repr(again) == repr(row)  # NaN equals nothing.


def trainings(path: Path, known: list[tables.Training]) -> speed.Trainings:
    data = load("digits")
    depths, widths = [1, 2, 3, 4], [2, 3, 4, 6]
    space = resnet(depths, widths, input_shape=data.train_x.shape[1:], classes=data.classes)
    return speed.Trainings(path, known, space, data, 1, torch.device("cpu"))


def test_a_training_is_done_once_and_its_network_found_again(tmp_path: Path) -> None:
    path = tmp_path / "trainings.csv"
    first = trainings(path, [])
    accuracy, test = first.validation(Shape(1, 2), 3), first.test(Shape(1, 2), 3)
    (row,) = tables.read(path)
    assert (row.shape, row.seed, row.curve) == (Shape(1, 2), 3, (accuracy,))
    shutil.rmtree(first.weights)
    second = trainings(path, [])
    assert second.validation(Shape(1, 2), 3) == accuracy
    assert not second.weights.exists()  # It was looked up.
    assert second.test(Shape(1, 2), 3) == test
    assert len(tables.read(path)) == 1


def test_what_a_table_tells_of_a_tested_network_is_checked(tmp_path: Path) -> None:
    told = tables.Training(1, 2, 0, 1.0, 1.0, math.nan, 1.0, (0.9,))
    known = trainings(tmp_path / "trainings.csv", [told])
    assert known.validation(Shape(1, 2), 0) == 0.9
    with pytest.raises(SystemExit, match="was recorded with a validation accuracy of 0.9"):
        known.test(Shape(1, 2), 0)


def test_a_training_that_diverged_has_no_accuracy(tmp_path: Path) -> None:
    told = tables.Training(1, 2, 0, 1.0, 1.0, math.nan, 1.0, ())
    assert math.isnan(trainings(tmp_path / "t.csv", [told]).validation(Shape(1, 2), 0))


def test_a_deep_network_that_stays_has_the_training_that_was_asked_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = Shape(3, 4)
    done = trainings(tmp_path / "trainings.csv", [])
    shapes, accuracy, test = done.space.shapes, done.validation(deep, 0), done.test(deep, 0)
    # All others are of no use. It is in doubt at its own threshold, trained again, and lucky.
    told = {(shape, 0): 0.01 for shape in shapes if shape != deep}
    told[deep, speed.ANOTHER_SEED] = accuracy + 0.1
    known = [
        tables.Training(*shape, seed, 1.0, 1.0, math.nan, 1.0, (value,))
        for (shape, seed), value in told.items()
    ]
    latencies = tmp_path / "latencies.csv"
    lines = [f"{depth},{width},{depth * width}" for depth, width in shapes]
    latencies.write_text("\n".join(["depth,width,latency", *lines]))
    again = trainings(tmp_path / "trainings.csv", known)
    found = speed.search(again, TableMeter(latencies), deep, 0)
    assert f"3x4 has {accuracy + 0.1:.4f}" in capsys.readouterr().out
    assert found is not None
    assert (found.answer, found.answer_validation, found.answer_test) == (deep, accuracy, test)


def run(out: Path) -> str:
    command = [sys.executable, str(SCRIPT), "--data", "digits", "--layers", "8,14"]
    command += ["--base-width", "4", "--depth", "1,2", "--width", "2,3,4,5", "--epochs", "2"]
    command += ["--seeds", "0", "--batch-sizes", "1,8", "--max-noise", "100", "--out", str(out)]
    done = subprocess.run(command, check=True, timeout=600, capture_output=True, text=True)
    return done.stdout


@pytest.mark.slow
def test_it_runs_and_goes_on_where_it_ended(tmp_path: Path) -> None:
    out = tmp_path / "speed.csv"
    run(out)
    rows = speed.read(out)
    assert sorted(row.key for row in rows) == [(0, n, size) for n in (8, 14) for size in (1, 8)]
    table = tmp_path / "speed-trainings.csv"
    trained = {(t.shape, t.seed): t.curve for t in tables.read(table)}
    for row in rows:
        assert row.deep == {8: "1x4", 14: "2x4"}[row.layers]
        assert row.deep_validation == trained[speed.shape_of_layers(row.layers, 4), 0][-1]
        assert row.answer_validation >= row.deep_validation
        assert row.deep_latency_low <= row.deep_latency <= row.deep_latency_high
        assert row.ratio == pytest.approx(row.deep_latency / row.answer_latency, rel=1e-4)
        assert row.ratio_low <= row.ratio <= row.ratio_high
        assert row.trainings >= 1
        assert row.cost > 0
    source = json.loads(out.with_suffix(".json").read_text())
    assert all(math.isnan(row.deep_energy) == (source["energy"] != "measured") for row in rows)
    with (tmp_path / "speed-summary.csv").open(newline="") as file:
        summary = list(csv.DictReader(file))
    ratios = {(int(line["layers"]), int(line["batch_size"])): line["ratio"] for line in summary}
    assert ratios == {(row.layers, row.batch_size): f"{row.ratio:.6g}" for row in rows}
    assert list(tmp_path.glob("speed.png")) or list(tmp_path.glob("speed.html"))
    assert not (tmp_path / "speed-trainings-weights").exists()

    # As if it had been interrupted in the second search.
    kept = [row for row in rows if row.layers == 8]
    speed.write(out, [dataclasses.asdict(row) for row in kept])
    recorded, latencies = table.read_text(), (tmp_path / "speed-latencies.csv").read_text()
    printed = run(out)
    assert "seed 0, 8 layers" not in printed
    assert "seed 0, 14 layers" in printed
    assert table.read_text() == recorded
    assert (tmp_path / "speed-latencies.csv").read_text() == latencies
    assert "  trained" not in printed
    again = speed.read(out)
    assert repr(again[:2]) == repr(kept)
    for row, before in zip(again[2:], (row for row in rows if row.layers == 14)):
        assert (row.key, row.answer, row.answer_test) == (
            before.key,
            before.answer,
            before.answer_test,
        )
