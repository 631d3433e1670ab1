from __future__ import annotations

import contextlib
import datetime
import io
import logging
import re
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage
from optuna.storages import InMemoryStorage
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from problems import formula_objective
from problems import surface
from rich.console import Console

from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape import ShapeSampler
from optuna_shape import ShapeTerminator
from optuna_shape.constraints import format_quantity
from optuna_shape.records import StudyRecords
from optuna_shape.report import live
from optuna_shape.report.live import SearchDisplay

MakeProblem = Callable[..., ShapeProblem]
INTERVAL = 0.01


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> BaseStorage:
    return InMemoryStorage() if request.param == "memory" else sqlite(tmp_path)


def sqlite(folder: Path) -> BaseStorage:
    """A storage object of its own for the one file, that does not wait for a lock."""
    return RDBStorage(
        f"sqlite:///{folder / 'study.db'}", engine_kwargs={"connect_args": {"timeout": 0.01}}
    )


def make_study(problem: ShapeProblem, storage: BaseStorage) -> optuna.Study:
    study = optuna.create_study(
        study_name="shapes",
        storage=storage,
        direction=problem.direction,
        load_if_exists=True,
        sampler=ShapeSampler(problem, seed=0),
        pruner=optuna.pruners.NopPruner(),
    )
    problem.screen(study)
    return study


def begin(problem: ShapeProblem, study: optuna.Study, shape: Shape) -> optuna.Trial:
    study.enqueue_trial({"depth": shape.depth, "width": shape.width})
    trial = study.ask()
    problem.suggest(trial)
    return trial


def train(problem: ShapeProblem, study: optuna.Study, shape: Shape) -> int:
    trial = begin(problem, study, shape)
    study.tell(trial, problem.record(trial, surface(shape)))
    return trial.number


class Screen:
    """A terminal, or a file, that a display writes to."""

    def __init__(self, *, terminal: bool, width: int = 110, height: int = 30) -> None:
        self._file = io.StringIO()
        self.console = Console(
            file=self._file, force_terminal=terminal, width=width, height=height
        )

    @property
    def text(self) -> str:
        return self._file.getvalue()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def frames(self) -> list[str]:
        """What stood in the terminal, one picture after the other."""
        pictures = re.split(r"\r\x1b\[2K(?:\x1b\[1A\x1b\[2K)*", self.text)
        return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", picture) for picture in pictures]

    def rows(self, frame: int = -1) -> dict[int, str]:
        """The rows of a picture, by trial number."""
        found = re.findall(r"^ +(\d+)( .*)$", self.frames[frame], re.MULTILINE)
        return {int(number): row for number, row in found}

    def wait_for(self, condition: Callable[[], bool]) -> None:
        give_up = time.monotonic() + 120  # For a display that is broken.
        while not condition():
            assert time.monotonic() < give_up, self.text[-2000:]
            time.sleep(0.005)


def display_of(problem: ShapeProblem, study: optuna.Study, screen: Screen) -> SearchDisplay:
    return SearchDisplay(problem, study, screen.console, interval=INTERVAL)


def stored(study: optuna.Study) -> tuple[object, object]:
    """All that a storage holds of a study."""
    return study._storage.get_study_system_attrs(study._study_id), study.trials


def no_thread_is_left() -> bool:
    return all(thread.name != "SearchDisplay" for thread in threading.enumerate())


def test_each_trial_has_its_line_with_its_probability(
    make_problem: MakeProblem, storage: BaseStorage
) -> None:
    problem = make_problem(constraints=("latency <= 1 ms",))
    study, screen = make_study(problem, storage), Screen(terminal=False)
    with display_of(problem, study, screen).live():
        study.optimize(
            formula_objective(problem), n_trials=12, callbacks=[ShapeTerminator(problem)]
        )
    certainties = StudyRecords(study).certainties()
    assert certainties
    expected = []
    for trial in study.trials:
        shape = Shape(trial.params["depth"], trial.params["width"])
        chance = certainties.get(trial.number)
        accuracy = format_quantity("accuracy", surface(shape))
        expected.append(
            f"trial {trial.number}: shape {shape}: accuracy {accuracy}"
            + ("" if chance is None else f"; P(a better shape) = {chance:.2f}")
        )
    assert screen.lines == expected
    assert no_thread_is_left()


def test_lines_come_while_the_search_runs(
    make_problem: MakeProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_PROMPT", 0.0)
    problem = make_problem()
    study, screen = make_study(problem, InMemoryStorage()), Screen(terminal=False)
    with display_of(problem, study, screen).live():
        for number, shape in enumerate(problem.space.shapes[:4]):
            train(problem, study, shape)
            screen.wait_for(lambda number=number: len(screen.lines) == number + 1)
    assert [line.split(":")[0] for line in screen.lines] == [f"trial {i}" for i in range(4)]


def test_a_line_waits_for_its_probability_but_not_for_ever(
    make_problem: MakeProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = make_problem()
    study = make_study(problem, InMemoryStorage())
    said: list[str] = []
    lines = live._Lines(study, said.append)
    monkeypatch.setattr(live, "_PROMPT", 1e9)
    lines.look(False)
    shapes = problem.space.shapes
    for shape in shapes[:5]:
        train(problem, study, shape)
    lines.look(False)
    assert not said, "another worker may end the sixth before the terminator looks"
    monkeypatch.setattr(live, "_PROMPT", 0.0)
    lines.look(False)
    assert len(said) == 5
    for shape in shapes[5:8]:
        train(problem, study, shape)
    failed = begin(problem, study, shapes[8])
    study.tell(failed, state=TrialState.FAIL)
    lines.look(False)
    assert len(said) == 5
    StudyRecords(study).write_certainty(5, 0.25)
    lines.look(False)
    assert len(said) == 6
    assert said[-1].startswith("trial 5: shape (2, 4): accuracy")
    assert said[-1].endswith("; P(a better shape) = 0.25")
    monkeypatch.setattr(live, "_PATIENCE", 0.0)
    lines.look(False)
    assert [line.split(":")[0] for line in said[6:]] == ["trial 6", "trial 7", "trial 8"]
    assert said[-1].endswith(": fail")
    lines.look(True)
    assert len(said) == 9


@pytest.mark.parametrize("terminal", [True, False])
def test_trainings_of_another_worker_are_shown(
    make_problem: MakeProblem, tmp_path: Path, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_PROMPT", 0.0)
    problem = make_problem(epochs=30)
    study, screen = make_study(problem, sqlite(tmp_path)), Screen(terminal=terminal)
    with display_of(problem, study, screen).live():
        theirs = make_problem(epochs=30)
        other = make_study(theirs, sqlite(tmp_path))
        assert other._storage is not study._storage
        train(theirs, other, Shape(2, 8))
        screen.wait_for(lambda: "81.0 %" in screen.text or "accuracy 81 %" in screen.text)
        trial = begin(theirs, other, Shape(3, 8))
        trial.report(0.5, 1)
        trial.report(0.625, 2)
        if terminal:
            screen.wait_for(lambda: "2/30    62.5 %  training" in screen.rows().get(1, ""))
            assert "best" in screen.rows()[0]
        other.tell(trial, theirs.record(trial, 0.75))
    if terminal:
        assert "2/30    75.0 %" in screen.rows()[1]
        assert "best so far: shape (2, 8): accuracy 81 %" in screen.frames[-1]
    else:
        assert [line[:25] for line in screen.lines] == [
            "trial 0: shape (2, 8): ac",
            "trial 1: shape (3, 8): ac",
        ]


def test_a_resumed_search_says_only_what_is_new(
    make_problem: MakeProblem, storage: BaseStorage
) -> None:
    problem = make_problem()
    study = make_study(problem, storage)
    for shape in problem.space.shapes[:3]:
        train(problem, study, shape)
    begun = begin(problem, study, Shape(5, 8))
    screen, table = Screen(terminal=False), Screen(terminal=True)
    with display_of(problem, study, screen).live(), display_of(problem, study, table).live():
        study.tell(begun, problem.record(begun, 0.5))
        train(problem, study, Shape(6, 8))
    assert [line.split(":")[0] for line in screen.lines] == ["trial 3", "trial 4"]
    assert list(table.rows()) == [0, 1, 2, 3, 4]


def test_what_ends_without_an_accuracy_has_its_reason_in_a_line(
    make_problem: MakeProblem,
) -> None:
    problem = make_problem()
    study, screen = make_study(problem, InMemoryStorage()), Screen(terminal=False)
    with display_of(problem, study, screen).live():
        trial = begin(problem, study, Shape(1, 4))
        trial.set_user_attr("reason", "RuntimeError: out of memory\n  really")
        study.tell(trial, state=TrialState.FAIL)
    assert screen.lines == ["trial 0: shape (1, 4): RuntimeError: out of memory really"]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """What another program does to a SQLite file while it writes."""
    connection = sqlite3.connect(folder / "study.db", isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def test_what_it_has_cost_and_may_still_take_is_shown(make_problem: MakeProblem) -> None:
    problem = make_problem(epochs=4)
    study, screen = make_study(problem, InMemoryStorage()), Screen(terminal=True)
    with display_of(problem, study, screen).live():
        study.optimize(formula_objective(problem, epochs=4), n_trials=2)
        costs = {s: s.depth * s.width**2 for s in problem.space.shapes}
        spent = sum(costs[Shape(**trial.params)] for trial in study.trials)
        share = f"cost {spent / sum(costs.values()):.0%} of training all, at most 0:0"
        screen.wait_for(lambda: share in screen.frames[-1])


def test_what_is_left_counts_no_time_in_which_nobody_trained(make_problem: MakeProblem) -> None:
    problem = make_problem(depth=[1, 2, 3, 4], width=[8], epochs=4, training_cost=lambda shape: 1)
    study, screen = make_study(problem, InMemoryStorage()), Screen(terminal=True)

    def begun(depth: int, state: TrialState, hours: float, epochs: int) -> None:
        complete = state == TrialState.COMPLETE
        trial = optuna.trial.create_trial(
            state=state,
            value=0.5 if complete else None,
            params={"depth": depth, "width": 8},
            distributions={
                "depth": optuna.distributions.IntDistribution(1, 4),
                "width": optuna.distributions.IntDistribution(8, 8),
            },
            intermediate_values={epoch: 0.1 * epoch + 0.01 * depth for epoch in range(epochs)},
            user_attrs={"accuracy": 0.5} if complete else {},
        )
        assert trial.datetime_start is not None
        trial.datetime_start -= datetime.timedelta(hours=hours)
        study.add_trial(trial)

    begun(1, TrialState.FAIL, 100, 2)  # Killed, and found four days later.
    begun(2, TrialState.RUNNING, 100, 2)  # Lost on another machine.
    begun(3, TrialState.COMPLETE, 2, 4)
    with display_of(problem, study, screen).live():
        pass
    # Half of all is trained, and a quarter took two hours.
    (left,) = re.findall(r"cost 50% of training all, at most (\S+) left", screen.frames[-1])
    assert left in ("4:00:00", "3:59:59")


def test_a_storage_that_cannot_be_read_leaves_the_last_table(
    make_problem: MakeProblem, tmp_path: Path
) -> None:
    problem = make_problem()
    study, screen = make_study(problem, sqlite(tmp_path)), Screen(terminal=True)
    outdated = "not up to date"
    with display_of(problem, study, screen).live():
        train(problem, study, Shape(1, 4))
        screen.wait_for(lambda: 0 in screen.rows())
        with locked(tmp_path):
            screen.wait_for(lambda: outdated in screen.frames[-1])
            assert 0 in screen.rows()
        screen.wait_for(lambda: outdated not in screen.frames[-1])
        train(problem, study, Shape(2, 4))
        screen.wait_for(lambda: 1 in screen.rows())
        lock = contextlib.ExitStack()
        lock.enter_context(locked(tmp_path))
    lock.close()
    assert list(screen.rows()) == [0, 1]
    assert outdated in screen.frames[-1]
    assert screen.text.endswith("\x1b[?25h"), "the cursor is back"


def test_a_storage_that_cannot_be_read_delays_the_lines(
    make_problem: MakeProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = make_problem()
    study, screen = make_study(problem, sqlite(tmp_path)), Screen(terminal=False)
    looks: list[bool] = []
    read = live._Lines._read

    def count(lines: live._Lines) -> None:
        looks.append(False)
        read(lines)
        looks[-1] = True

    def wait_for_a_look(successful: bool) -> None:
        before = len(looks) + 1  # One may be under way.
        screen.wait_for(lambda: successful in looks[before:-1])

    monkeypatch.setattr(live._Lines, "_read", count)
    monkeypatch.setattr(live, "_PROMPT", 0.0)
    with display_of(problem, study, screen).live():
        with locked(tmp_path):
            wait_for_a_look(successful=False)
        train(problem, study, Shape(1, 4))
        screen.wait_for(lambda: len(screen.lines) == 1)
        monkeypatch.setattr(live, "_PROMPT", 1e9)
        train(problem, study, Shape(2, 4))
        wait_for_a_look(successful=True)
        lock = contextlib.ExitStack()
        lock.enter_context(locked(tmp_path))
    lock.close()
    assert [line.split(":")[0] for line in screen.lines] == ["trial 0", "trial 1"]


def test_more_trials_than_the_terminal_is_high(make_problem: MakeProblem) -> None:
    problem = make_problem(epochs=2)
    study, screen = make_study(problem, InMemoryStorage()), Screen(terminal=True, height=12)
    slow = begin(problem, study, Shape(6, 24))
    with display_of(problem, study, screen).live():
        for shape in problem.space.shapes[:-1]:
            number = train(problem, study, shape)
        screen.wait_for(lambda: number in screen.rows())
        while_running = screen.rows()
        assert "earlier" in screen.frames[-1]
        study.tell(slow, state=TrialState.FAIL)
    assert list(while_running) == [slow.number, *range(number - 3, number + 1)]
    assert max(len(frame.splitlines()) for frame in screen.frames[:-1]) == 12
    assert list(screen.rows()) == [trial.number for trial in study.trials]
    assert "earlier" not in screen.frames[-1]


def test_a_table_in_a_narrow_terminal(make_problem: MakeProblem) -> None:
    reason = "a reason of too many words that they do not fit into a line of the table"
    problem = make_problem("size", ("accuracy >= 60 %", "latency <= 1 s", "energy <= 1 J"))
    study, screen = make_study(problem, InMemoryStorage()), Screen(terminal=True, width=80)
    with display_of(problem, study, screen).live():
        trial = begin(problem, study, Shape(6, 12))
        screen.wait_for(lambda: "training" in screen.rows().get(0, ""))
        trial.set_user_attr("reason", reason)
        study.tell(trial, state=TrialState.PRUNED)
        train(problem, study, Shape(2, 8))
        screen.wait_for(lambda: 1 in screen.rows())
        (line,) = (line for line in screen.frames[-1].splitlines() if line.startswith("     0"))
        assert "a reason" in line
        assert line.rstrip().endswith("\u2026")
    table, _ = screen.frames[-1].split("best so far")
    assert [word for word in table.split() if word in reason.split()] == reason.split()
    assert max(map(len, screen.frames[-1].splitlines())) <= 80


@pytest.mark.parametrize("terminal", [True, False])
def test_an_interrupt_passes_and_leaves_nothing_behind(
    make_problem: MakeProblem, terminal: bool
) -> None:
    problem = make_problem()
    study, screen = make_study(problem, InMemoryStorage()), Screen(terminal=terminal)
    streams = sys.stdout, sys.stderr

    def search() -> None:
        with display_of(problem, study, screen).live():
            assert not no_thread_is_left()
            train(problem, study, Shape(1, 4))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search()
    assert no_thread_is_left()
    assert (sys.stdout, sys.stderr) == streams
    if terminal:
        assert 0 in screen.rows()
        assert screen.text.endswith("\x1b[?25h"), "the cursor is back"
    else:
        assert len(screen.lines) == 1


@pytest.mark.parametrize("screened", [True, False])
def test_the_display_only_reads(make_problem: MakeProblem, screened: bool) -> None:
    class Meter:
        fingerprint = "a meter"

        def measure(self, *_: object) -> None:
            raise AssertionError("the display measures")

    study = optuna.create_study(direction="maximize")
    if screened:
        problem = make_problem(constraints=("latency <= 1 ms",))
        train(problem, study, Shape(1, 4))
    # Nobody has screened the study with this problem, as in a process that only looks on.
    problem = make_problem(constraints=("latency <= 1 ms",), meter=Meter())
    before, screen = stored(study), Screen(terminal=True)
    with display_of(problem, study, screen).live():
        pass
    assert stored(study) == before
    assert list(screen.rows()) == [0] * screened
    assert "not up to date" not in screen.text


def test_a_worker_that_is_gone_trains_no_more(
    make_problem: MakeProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = make_problem()
    study, screen = make_study(problem, InMemoryStorage()), Screen(terminal=True)
    begin(problem, study, Shape(1, 4))
    monkeypatch.setattr("optuna_shape.records._worker_is_alive", lambda identity: False)
    with display_of(problem, study, screen).live():
        pass
    assert "its worker is gone" in screen.rows()[0]


def test_what_optuna_logs_stands_above_the_table(
    make_problem: MakeProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    handler = logging.StreamHandler()
    logger = logging.getLogger("optuna")
    logger.addHandler(handler)
    try:
        problem = make_problem()
        study, screen = make_study(problem, InMemoryStorage()), Screen(terminal=True)
        train(problem, study, Shape(1, 4))
        with display_of(problem, study, screen).live():
            logging.getLogger("optuna.of_a_test").error("beware")
            screen.wait_for(lambda: "beware" in screen.text)
        assert handler.stream is stream
        assert not stream.getvalue()
        assert list(screen.rows()) == [0]
    finally:
        logger.removeHandler(handler)
