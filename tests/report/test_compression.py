from __future__ import annotations

import csv
from pathlib import Path

import pytest

from optuna_shape import InvalidProblem
from optuna_shape.compress.search import Compression
from optuna_shape.compress.search import Point
from optuna_shape.compress.search import Setting
from optuna_shape.report.compression import curve_csv
from optuna_shape.report.compression import curve_figure
from optuna_shape.report.compression import write_curve

TRAINED = Point(None, 8000, 8100.4, 0.9)
GOOD = Point(Setting(80.0, 32, "kmeans", True), 1000, 1100.0, 0.895)
SMALL = Point(Setting(99.0, 4, "uniform", False), 200, 300.0, 0.4)
WORSE = Point(Setting(50.0, 32, "entropy", True), 2000, 2100.0, 0.8)
FOUND = Compression((TRAINED, GOOD, SMALL, WORSE), GOOD)


def test_the_table_has_a_line_for_each_network() -> None:
    rows = list(csv.DictReader(curve_csv(FOUND).splitlines()))
    assert [row["bits"] for row in rows] == ["8000", "1000", "200", "2000"]
    assert [row["accuracy"] for row in rows] == ["0.9", "0.895", "0.4", "0.8"]
    assert [row["on_curve"] for row in rows] == ["1", "1", "1", "0"]
    assert [row["chosen"] for row in rows] == ["0", "1", "0", "0"]
    assert [row["percentile"] for row in rows] == ["", "80.0", "99.0", "50.0"]
    assert rows[2] == {
        "percentile": "99.0",
        "k": "4",
        "method": "uniform",
        "rounded": "0",
        "bits": "200",
        "representation_bits": "300",
        "accuracy": "0.4",
        "on_curve": "1",
        "chosen": "0",
    }


def test_the_figure_shows_the_curve_and_what_was_chosen() -> None:
    figure = curve_figure({"a <b> network": FOUND}, 0.01)
    lines = {line.name: (list(line.x), list(line.y)) for line in figure.data}
    assert lines == {
        "tried": ([2000], [80.0]),
        "curve": ([200, 1000, 8000], [40.0, 89.5, 90.0]),
        "as it was trained": ([8000], [90.0]),
        "chosen": ([1000], [89.5]),
    }
    (limit,) = figure.layout.shapes
    assert limit.y0 == limit.y1 == 89.0
    assert figure.layout.title.text == "Accuracy against bits: a &lt;b&gt; network"
    assert "89 %" in figure.layout.title.subtitle.text
    assert "80 % pruned, 32 values, kmeans" in figure.data[1].text[1]


def test_networks_are_compared_by_representation_bits() -> None:
    large = Point(Setting(80.0, 8, "kmeans", True), 5000, 250.0, 0.85)
    other = Compression((TRAINED, large), large)
    figure = curve_figure({"deep": FOUND, "wide": other}, 0.01, by="representation_bits")
    lines = [(line.name, list(line.x), list(line.y)) for line in figure.data]
    assert lines == [
        ("deep", [300.0, 1100.0, 8100.4], [40.0, 89.5, 90.0]),
        ("deep", [1100.0], [89.5]),
        ("wide", [250.0, 8100.4], [85.0, 90.0]),
        ("wide", [250.0], [85.0]),
    ]
    assert figure.data[0].line.color != figure.data[2].line.color
    assert [line.showlegend for line in figure.data] == [None, False, None, False]
    assert figure.layout.title.text == "Accuracy against bits: deep, wide"
    assert figure.layout.xaxis.title.text == "bits of parameters and connections"
    with pytest.raises(InvalidProblem, match="No network"):
        curve_figure({}, 0.01)


def test_both_files_are_written_and_need_no_network(tmp_path: Path) -> None:
    table, page = write_curve(tmp_path / "v1.0-curve", FOUND, "a network", 0.01)
    assert {table, page} == set(tmp_path.iterdir())
    assert table == tmp_path / "v1.0-curve.csv"
    assert table.read_text() == curve_csv(FOUND)
    html = page.read_text()
    assert "Accuracy against bits: a network" in html
    assert "<script src=" not in html
