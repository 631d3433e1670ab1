"""What optuna-dashboard shows of a search, and who of several workers writes it there."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from functools import partial
from types import ModuleType
from types import SimpleNamespace
from typing import TYPE_CHECKING

from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_shape.constraints import GOALS
from optuna_shape.problem import ShapeProblem
from optuna_shape.records import DRAWING_TIMEOUT
from optuna_shape.records import Heard
from optuna_shape.records import StudyRecords
from optuna_shape.records import is_ending
from optuna_shape.report.figures import certainty
from optuna_shape.report.figures import learning_curves
from optuna_shape.report.figures import properties_shown
from optuna_shape.report.figures import shape_map
from optuna_shape.report.figures import tradeoff
from optuna_shape.report.notes import keep_remarks
from optuna_shape.report.notes import study_note
from optuna_shape.report.notes import study_summary
from optuna_shape.report.notes import trial_note

if TYPE_CHECKING:
    import plotly.graph_objects as go

_logger = logging.getLogger(f"optuna.{__name__}")

Draw = Callable[[ShapeProblem, Study], "go.Figure"]

# Pixels of a figure, and of those what is below the axis.
_HEIGHT, _BOTTOM = 450, 110
# Drawing takes at most this share of a worker's time.
_SHARE = 0.05
# How long (seconds) the last drawing of a search waits for another worker's to end: longer than
# a worker that died while it drew is taken for alive.
_PATIENCE = 2 * DRAWING_TIMEOUT
# So long (seconds) after a trial, what was left out is drawn if no other trial has begun.
_QUIET = 2.0
_chance = random.SystemRandom()
# Threads of a process are one worker to the records.
_threads = threading.Lock()


def figures(problem: ShapeProblem, study: Study) -> dict[str, Draw]:
    """What is drawn of a study, by its name in the dashboard."""
    costs = [name for name in GOALS if name in properties_shown(problem.screen(study))]
    drawn: list[tuple[str, Draw]] = [
        ("shape-map", shape_map),
        *((f"accuracy-{name}", partial(tradeoff, property=name)) for name in costs),
        ("learning-curves", learning_curves),
        ("certainty", certainty),
    ]
    return {f"{i}-{name}": draw for i, (name, draw) in enumerate(drawn, 1)}


class ShapeDashboard:
    """Keeps what a search has found in the study, for optuna-dashboard.

    The note of the study holds the question, the answer so far, what was removed and why the
    search stopped; those of the trials hold measured properties. The user attributes name the
    answer, and the figures show the shapes, accuracy against costs, learning curves, and how
    certain the answer is. ``optuna-shape dashboard`` shows them.

    One worker writes at a time, and takes at most a twentieth of its time for it while it trains;
    what was left out is caught up on seconds after the last trial. What goes wrong is logged once,
    and ends no search.

    Args:
        problem: What is asked.

    Raises:
        ImportError: optuna-dashboard is not installed.

    Example:
        >>> import optuna
        >>> from optuna_shape import DesignSpace
        >>> problem = ShapeProblem(DesignSpace(depth=[1, 2], width=[8]), goal="accuracy")
        >>> study = optuna.create_study(direction=problem.direction)
        >>> def objective(trial):
        ...     return problem.record(trial, 0.8 + 0.05 * problem.suggest(trial).depth)
        >>> study.enqueue_trial({"depth": 2, "width": 8})
        >>> study.optimize(objective, n_trials=1, callbacks=[ShapeDashboard(problem)])
        >>> import optuna_dashboard
        >>> "shape (2, 8): accuracy 90 %" in optuna_dashboard.get_note(study)
        True
    """

    def __init__(self, problem: ShapeProblem) -> None:
        self._artist = _Artist(problem)
        # Who lets go of it has ended the search, and may end the process next.
        weakref.finalize(self, self._artist.catch_up)

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        self._artist.trial_ended(study, trial)

    def refresh(self, study: Study, *, anew: bool = True) -> None:
        """Write everything now; the callback does so by itself.

        Args:
            study: What is shown.
            anew: Even if it has been written since the last trial ended.
        """
        self._artist.draw_all(study, anew=anew)


class _Artist:
    """Does what :class:`ShapeDashboard` says; outlives it by the last drawing."""

    def __init__(self, problem: ShapeProblem) -> None:
        self._problem = problem
        self._dashboard = _import_dashboard()
        self._study: Study | None = None
        self._process = os.getpid()
        self._due = -1.0
        self._timing = threading.Lock()
        self._timer: threading.Timer | None = None
        self._heard: Heard = {}
        self._has_warned = False

    def trial_ended(self, study: Study, trial: FrozenTrial) -> None:
        self._study, self._process = study, os.getpid()
        with self._failures_told():
            self._note_trials(study, [trial])
            if is_ending(study) or StudyRecords(study).stop() is not None:
                self._draw(study, _PATIENCE)
            elif time.monotonic() >= self._due:
                self._draw(study, 0.0)
            self._draw_later(study, _QUIET)

    def _draw_later(self, study: Study, delay: float) -> None:
        """Have what is left to draw drawn in so many seconds, and not before."""
        records = StudyRecords(study)
        if not records.is_screened() or records.drawn().covers(records.drawable()):
            return
        with self._timing:
            if self._timer is not None:
                self._timer.cancel()
            # Nobody tells a callback that the search has ended, and a notebook goes on holding it.
            self._timer = threading.Timer(delay, self._draw_if_idle, [study])
            self._timer.daemon = True  # At the end of the process, `catch_up` draws.
            self._timer.start()

    def _draw_if_idle(self, study: Study) -> None:
        """Draw unless a trial runs, which is not to be disturbed before a drawing is due."""
        with self._failures_told():
            trials, wait = StudyRecords(study).trials(), self._due - time.monotonic()
            if wait > 0 and any(trial.state == TrialState.RUNNING for trial in trials):
                self._draw_later(study, wait)
            else:
                self._draw(study, _PATIENCE)

    def catch_up(self) -> None:
        """Draw what was left out, if anything; a fork of the process leaves that to it."""
        study = self._study
        if study is not None and self._process == os.getpid():
            with self._failures_told():
                self._draw(study, _PATIENCE)

    def draw_all(self, study: Study, *, anew: bool) -> None:
        records = StudyRecords(study)
        with self._failures_told():
            if anew or not records.drawn().covers(records.drawable()):
                finished = [trial for trial in records.trials() if trial.state.is_finished()]
                self._note_trials(study, finished)
                self._draw(study, _PATIENCE, anew=anew)

    @contextlib.contextmanager
    def _failures_told(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self._has_warned:
                self._has_warned = True
                _logger.warning(
                    "Pages of the dashboard could not be written; no search ends by that, and it "
                    f"is said once. {type(error).__name__}: {error}"
                )

    def _draw(self, study: Study, patience: float, *, anew: bool = False) -> None:
        """Draw, unless somebody else has, or does so for longer than there is patience."""
        records = StudyRecords(study)
        if not records.is_screened():
            return  # To ask would be to measure.
        deadline = time.monotonic() + patience
        while not self._try_to_draw(study, records, anew=anew):
            if time.monotonic() >= deadline:
                if patience:
                    _logger.warning(
                        "Pages of the dashboard are not up to date: another worker writes there "
                        f"for more than {patience:g} s. ShapeDashboard.refresh(study) writes them."
                    )
                return
            time.sleep(_chance.uniform(0.05, 0.2))

    def _try_to_draw(self, study: Study, records: StudyRecords, *, anew: bool) -> bool:
        """Draw what is left, if anything; False while somebody else draws."""
        # Also where nothing is left: no process is to end amid what a thread of it writes.
        if not _threads.acquire(blocking=False):
            return False
        try:
            if not anew and records.drawn().covers(records.drawable()):
                return True
            start = time.monotonic()
            if not records.take_drawing(self._heard):
                return False
            try:
                with records.drawing_kept():
                    self._draw_pages(study, records)
            finally:
                now = time.monotonic()
                self._due = now + (now - start) * (1 / _SHARE - 1)
        finally:
            _threads.release()
        return True

    def _draw_pages(self, study: Study, records: StudyRecords) -> None:
        drawn = records.drawable()  # Before it is looked at: what comes meanwhile is not shown.
        records.write_summary(study_summary(self._problem, study))
        note = study_note(self._problem, study)
        self._dashboard.save_note(study, keep_remarks(note, self._dashboard.get_note(study)))
        for name, draw in figures(self._problem, study).items():
            with self._failures_told():  # One that cannot be drawn takes no other with it.
                figure = _for_half_a_page(draw(self._problem, study))
                self._dashboard.save_plotly_graph_object(study, figure, graph_object_id=name)
        records.write_drawn(drawn)

    def _note_trials(self, study: Study, trials: Iterable[FrozenTrial]) -> None:
        """Give those trials a note that have none; a person may have changed theirs."""
        attributes = study._storage.get_study_system_attrs(study._study_id)
        as_read = SimpleNamespace(get_study_system_attrs=lambda study_id: attributes)
        for trial in trials:
            if self._dashboard.get_note(_place(as_read, study, trial)):
                continue
            note = trial_note(self._problem, study, trial)
            if note:
                self._dashboard.save_note(_place(study._storage, study, trial), note)


def _place(storage: object, study: Study, trial: FrozenTrial) -> SimpleNamespace:
    """All that a note asks of a trial; a true one would have the sampler begin another."""
    return SimpleNamespace(storage=storage, study=study, _trial_id=trial._trial_id)


def _for_half_a_page(figure: go.Figure) -> go.Figure:
    """Room for a legend whose entries stand one below the other, as they do in narrow figures."""
    entries = sum(trace.showlegend is not False and bool(trace.name) for trace in figure.data)
    bottom = max(_BOTTOM, 70 + 19 * entries)
    height = (figure.layout.height or _HEIGHT) + bottom - _BOTTOM
    return figure.update_layout(height=height, margin={"b": bottom})


def _import_dashboard() -> ModuleType:
    try:
        import optuna_dashboard
    except ImportError as error:
        raise ImportError(
            "ShapeDashboard needs optuna-dashboard: pip install 'optuna_shape[dashboard]'."
        ) from error
    return optuna_dashboard  # type: ignore[no-any-return]
