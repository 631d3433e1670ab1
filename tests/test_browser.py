"""What a person sees in optuna-dashboard, in a real browser.

Screenshots go to the folder that ``OPTUNA_SHAPE_SCREENSHOTS`` names, or to one of pytest's.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import optuna
import pytest
from dashboards import searched
from dashboards import serving
from optuna.trial import TrialState

from optuna_shape import ShapeProblem
from optuna_shape.dashboard import figures

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

Searched = tuple[ShapeProblem, optuna.Study]

_WIDTH, _HEIGHT = 1500, 1000
# Of each drawn figure: its id, its title, its traces and their points, and whether it has axes.
_FIGURES = """() => [...document.querySelectorAll('.js-plotly-plot')].map(plot => ({
    id: plot.id,
    title: plot.layout.title ? plot.layout.title.text : '',
    width: plot.getBoundingClientRect().width,
    right: Math.max(...[...plot.querySelectorAll('.main-svg text')]
        .map(text => text.getBoundingClientRect().right), 0),
    end: plot.getBoundingClientRect().right,
    points: Object.fromEntries(plot.data.map(trace => [trace.name, (trace.x || []).length])),
}))"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    return searched(f"sqlite:///{tmp_path_factory.mktemp('browser') / 'study.db'}")


@pytest.fixture(scope="module")
def address(study: Searched) -> Iterator[str]:
    storage = str(study[1]._storage._backend.engine.url)  # type: ignore[attr-defined]
    with serving(storage) as (url, _):
        yield url


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = os.environ.get("OPTUNA_SHAPE_SCREENSHOTS")
    path = Path(folder) if folder else tmp_path_factory.mktemp("screenshots")
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of a browser, in which no script may fail."""
    api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    errors: list[str] = []
    with api.sync_playwright() as playwright:
        # In a container there are often no user namespaces for Chromium's own sandbox.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": _WIDTH, "height": _HEIGHT})
        opened.on("pageerror", lambda error: errors.append(str(error)))
        yield opened
        browser.close()
    assert errors == []


def shoot(page: Page, path: Path) -> None:
    """Take the whole page: the dashboard scrolls boxes of its own, not the page."""
    height = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": _WIDTH, "height": max(_HEIGHT, height)})
    page.wait_for_timeout(1000)  # Figures follow the size of the window.
    page.screenshot(path=path)


def test_the_study_with_its_figures(
    page: Page, study: Searched, address: str, screenshots: Path
) -> None:
    problem, searched_study = study
    page.goto(address)
    wanted = figures(problem, searched_study)
    page.wait_for_function(
        f"() => document.querySelectorAll('.js-plotly-plot').length >= {len(wanted) + 4}"
    )
    shoot(page, screenshots / "study.png")
    drawn: list[dict[str, Any]] = page.evaluate(_FIGURES)
    ours = [figure for figure in drawn if re.search(r"\d-[a-z]", figure["id"])]
    assert len(ours) == len(wanted)
    assert all(any(figure["points"].values()) for figure in ours)
    assert all(figure["title"] for figure in ours)
    assert all(figure["right"] <= figure["end"] + 1 for figure in ours), "a text is cut off"

    best = problem.best(searched_study)
    assert best is not None
    text = page.inner_text("body")
    assert f"Best Trial (number={best.trial.number})" in text
    assert f"Params = [depth: {best.shape.depth}, width: {best.shape.width}]" in text
    assert f"depth {best.shape.depth}, width {best.shape.width}: accuracy" in text
    assert "latency, s" in text, "the objective has a name"

    complete = [t for t in searched_study.trials if t.state == TrialState.COMPLETE]
    infeasible = [t for t in complete if any(x > 0 for x in t.constraints.values())]
    (shown,) = [
        points
        for figure in drawn
        for name, points in figure["points"].items()
        if name.startswith("Infeasible Trial")
    ]
    assert 0 < len(infeasible) == shown < len(complete)


def test_the_note(page: Page, study: Searched, address: str, screenshots: Path) -> None:
    problem, searched_study = study
    page.goto(f"{address}/note")
    page.wait_for_selector("h2:has-text('Best shape so far')")
    shoot(page, screenshots / "note.png")
    text = page.inner_text("body")
    best = problem.best(searched_study)
    assert best is not None
    assert f"{best}, by trial {best.trial.number}." in text
    assert "formula | `x`, 30 shapes" in text, "names are shown as they are"
    assert "\\" not in text
    assert page.locator("table").count() == 3


def test_trials_have_notes(page: Page, study: Searched, address: str, screenshots: Path) -> None:
    page.goto(f"{address}/trials?numbers=1")
    page.wait_for_selector("h2:has-text('Depth 1, width 4')")
    shoot(page, screenshots / "trial.png")
    text = page.inner_text("body")
    assert "Infeasible: not within accuracy >= 84 %." in text
    assert re.search(r"latency \(goal\)\s+125 us", text)


@pytest.mark.parametrize("name", ["analytics", "smartSelection"])
def test_the_dashboards_own_pages_open(
    page: Page, address: str, screenshots: Path, name: str
) -> None:
    page.goto(f"{address}/{name}")
    page.wait_for_selector(".js-plotly-plot .main-svg")
    page.wait_for_timeout(1000)
    shoot(page, screenshots / f"{name}.png")
