"""What the benchmarks record beside their figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tables


def read(path: Path) -> dict:
    return json.loads(path.with_suffix(".json").read_text())


@pytest.mark.parametrize("words", [["--data-root", "/my/data"], ["--data-root=/my/data"]])
def test_a_command_does_not_tell_where_the_data_lies(words: list[str]) -> None:
    shown = tables.command(
        ["benchmarks/exhaustive.py", "--data", "cifar10", *words, "--seeds", "0"]
    )
    assert "DIR" in shown
    assert "my" not in shown
    assert shown.startswith("python benchmarks/exhaustive.py --data cifar10 --data-root")
    assert shown.endswith("--seeds 0")


def test_provenance_says_by_what_figures_were_made() -> None:
    said = tables.provenance(data="digits")
    assert said["data"] == "digits"
    assert {"python", "torch", "optuna", "botorch"} <= set(said["versions"])
    assert said["command"].startswith("python ")


def test_a_recording_that_goes_on_keeps_what_earlier_sessions_differed_in(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for date in ("Monday", "Monday", "Tuesday", "Wednesday"):
        tables.add_provenance(path, {"data": "digits", "date": date, "threads": 1})
    assert read(path) == {
        "data": "digits",
        "date": "Wednesday",
        "threads": 1,
        "earlier": [{"date": "Monday"}, {"date": "Tuesday"}],
    }


def test_recordings_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "speed.csv"
    tables.check_same(path, {"epochs": 3})  # There is nothing yet.
    tables.write_provenance(path, {"epochs": 2, "widths": [2, 3], "date": "some day"})
    tables.check_same(path, {"epochs": 2, "widths": (2, 3), "new": 1})
    with pytest.raises(SystemExit, match="has epochs 2, and here it is 3"):
        tables.check_same(path, {"epochs": 3, "widths": [2, 3]})
