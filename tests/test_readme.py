from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


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
