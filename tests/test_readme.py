from __future__ import annotations

import csv
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_figures_against_exhaustive_search_are_those_of_the_benchmark() -> None:
    readme = (ROOT / "README.md").read_text()
    with (ROOT / "benchmarks" / "results" / "exhaustive-digits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    for row in rows:
        share, best, regret = (
            float(row[name]) for name in ("cost_share", "best_accuracy", "regret")
        )
        counts = " | ".join(row[name] for name in ("method", "seed", "trained", "cut", "epochs"))
        assert f"| {counts} | {share:.1%} | {best:.2%} | {regret:.2%} |" in readme
