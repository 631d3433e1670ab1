from __future__ import annotations

import csv
import itertools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_figures_against_exhaustive_search_are_those_of_the_benchmark() -> None:
    readme = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    with (ROOT / "benchmarks" / "results" / "exhaustive-digits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    for row in rows:
        share, best, regret = (
            float(row[name]) for name in ("cost_share", "best_accuracy", "regret")
        )
        assert row["cut"] == "0", "the page says that nothing is cut short"
        counts = " | ".join(row[name] for name in ("method", "seed", "trained", "epochs"))
        assert f"| {counts} | {share:.1%} | {best:.2%} | {regret:.2%} |" in readme


@pytest.mark.parametrize("page", ["README.md", "benchmarks/RESULTS.md", "benchmarks/LIMITS.md"])
def test_links_and_files_that_are_named_exist(page: str) -> None:
    path = ROOT / page
    text = path.read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    named = [name for name in re.findall(r"`(benchmarks/[\w./-]+)`", text) if "*" not in name]
    assert links
    assert named
    missing = [link for link in links if not (path.parent / link).exists()]
    missing += [name for name in named if not (ROOT / name).exists()]
    assert missing == []


def percent(share: str) -> str:
    """Two digits, such as 1.0 or 26."""
    return f"{100 * float(share):#.2g}".rstrip(".")


def test_figures_against_other_searches_are_those_of_the_benchmark() -> None:
    readme = (ROOT / "README.md").read_text()
    section = readme.split("## Against other searches")[1]
    with (ROOT / "benchmarks" / "results" / "replay-summary.csv").open(newline="") as file:
        figures = {(row["part"], row["name"]): row for row in csv.DictReader(file)}
    tables = {"digits-resnet": "digits", "fashion-mnist-resnet": "Fashion-MNIST"}
    tasks = {
        "accuracy": "accuracy",
        "accuracy, limited": "accuracy within latency and size",
        "latency": "latency at an accuracy",
        "size": "size at an accuracy",
    }
    ours = "Ours, never pruning"
    for (table, name), (task, words) in itertools.product(tables.items(), tasks.items()):
        first = {
            key[1].rpartition(": ")[2]: float(row["value"])
            for key, row in figures.items()
            if key[0] == "share of exhaustive until the best"
            and key[1].rpartition(": ")[0] == f"{table}, {task}"
        }
        rival = min((share, m) for m, share in first.items() if not m.startswith("Ours"))
        part = f"{ours}: stop, {table}, {task}"
        stop = figures[part, "share of exhaustive"]["value"]
        good = figures[part, "good answers"]["detail"]
        row = (
            f"| {name}, {words} | {percent(str(first[ours]))} % | "
            f"{percent(str(rival[0]))} % {rival[1]} | {percent(stop)} % | {good} |"
        )
        assert row in section, row
