"""What a search shows in a terminal while it runs; plain lines where there is none."""

from __future__ import annotations

import contextlib
import datetime
import logging
import math
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path

from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
from rich import box
from rich.console import Console
from rich.console import ConsoleOptions
from rich.console import Group
from rich.console import RenderResult
from rich.live import Live
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from optuna_shape.callbacks import MIN_TRAININGS
from optuna_shape.constraints import GOAL_COSTS
from optuna_shape.constraints import format_quantity
from optuna_shape.filters import Screening
from optuna_shape.problem import Answer
from optuna_shape.problem import ShapeProblem
from optuna_shape.records import ACCURACY
from optuna_shape.records import PARENT
from optuna_shape.records import REASON
from optuna_shape.records import StudyRecords
from optuna_shape.records import claimed_shape
from optuna_shape.records import is_replicate
from optuna_shape.records import read_history
from optuna_shape.records import shape_of
from optuna_shape.report.comparison import training_cost
from optuna_shape.report.notes import nearest_removed
from optuna_shape.report.notes import removed_by
from optuna_shape.space import Shape

#: A line waits so long (seconds) for a probability that is not to be expected, or that is.
_PROMPT, _PATIENCE = 1.0, 60.0


class SearchDisplay:
    """Shows one search in a terminal.

    What is shown of the trials is what the storage holds, whichever process trains them.

    Args:
        problem: What is asked.
        study: Where it is searched.
        console: Where to write.
        interval: Seconds between two looks into the storage.
    """

    def __init__(
        self, problem: ShapeProblem, study: Study, console: Console, *, interval: float = 1.0
    ) -> None:
        self._problem = problem
        self._study = study
        self._console = console
        self._interval = interval
        self._screening: Screening | None = None

    def question(self, data: str, training: int, validation: int) -> None:
        """Say what is asked, of which space, on which images."""
        problem, space = self._problem, self._problem.space
        table = Table.grid(padding=(0, 2))
        table.add_row("study", escape(self._study.study_name))
        images = f"{data}: {training} for training, {validation} for validation"
        table.add_row("images", escape(images))
        table.add_row("space", escape(f"{space.name}: {len(space)} shapes"))
        table.add_row("", f"depth {_listed(space.depths)}, width {_listed(space.widths)}")
        table.add_row("goal", f"{problem.direction} {problem.goal}")
        table.add_row("limits", "\n".join(str(c) for c in problem.constraints) or "none")
        self._console.print(table, highlight=False)

    def screening(self) -> None:
        """Show what was measured, and what was removed and why."""
        screening = self._problem.screen(self._study)
        hard = [constraint.property for constraint in self._problem.hard_constraints]
        if hard:
            name = next((name for name in GOAL_COSTS if name in hard), hard[0])
            self._say("", f"{screening.label(name)} of each shape, depth down, width across:")
            self._console.print(_grid(name, self._problem, screening), highlight=False)
            self._say("Crossed out: over a limit. -: removed without measuring it.", "")
        kept, total = len(screening.feasible), len(self._problem.space)
        lines = [f"{kept} of {total} shapes are within every limit that is measured beforehand."]
        lines += [
            f"  {text}: at most {format_quantity(text.split(maxsplit=1)[0], bound)} here"
            for text, bound in screening.bounds.items()
            if " of " in text
        ]
        lines += [f"  removed by {name}: {n}" for name, n in removed_by(screening).items()]
        lines += [f"  nearest to be allowed: {text}" for text in nearest_removed(screening, 1)]
        self._say(*lines)

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """Show the trials of all workers while this lasts.

        In a terminal this is a table, elsewhere a line for each trial that ends. A storage that
        cannot be read leaves the last table, and delays the lines.
        """
        if not self._console.is_interactive:
            with _repeated(_Lines(self._study, self._say).look, self._interval):
                yield
            return
        shown = _TrialTable()

        def look(last: bool) -> None:
            nonlocal shown
            try:
                shown = self._table()
            except Exception:
                # The search meets what is wrong with the storage, too, and says so.
                shown = replace(shown, outdated=True)
            shown = replace(shown, whole=last)
            live.update(shown, refresh=True)

        # Rich's own thread would read the storage under the lock that every print waits for, and
        # end at the first error.
        live = Live(
            console=self._console,
            auto_refresh=False,
            vertical_overflow="crop",
            redirect_stderr=sys.stderr.isatty(),  # What goes to a file stays there.
        )
        with _log_above(live), _repeated(look, self._interval):
            yield

    def stop(self) -> None:
        """Say why the search has ended, or that it may go on."""
        stop = StudyRecords(self._study).stop()
        accuracies = StudyRecords(self._study).history().accuracies
        feasible = len(self._problem.screen(self._study).feasible)
        share = f"{len(accuracies)} of {feasible} shapes were trained in full"
        text = f"Stopped: {stop['reason']}." if stop else "Not certain yet; run it again to go on."
        self._say(f"{text} ({share})")

    def answer(self, answer: Answer, test: float | None, checkpoint: Path | None) -> None:
        """Show the answer with its measured properties."""
        table = Table(title="The answer", box=box.SIMPLE, show_header=False, title_justify="left")
        table.add_row("shape", f"depth {answer.shape.depth}, width {answer.shape.width}")
        table.add_row("validation accuracy", format_quantity("accuracy", answer.accuracy))
        if test is not None:
            table.add_row("test accuracy", format_quantity("accuracy", test))
        costs = {name: getattr(answer, name) for name in GOAL_COSTS}
        for row in self._problem.screen(self._study).figures(costs).items():
            table.add_row(*row)
        if answer.note:
            table.add_row("note", answer.note)
        self._console.print(table, highlight=False, markup=False)
        if checkpoint is None:
            self._say(f"Its network is not in this --output; trial {answer.trial.number} made it.")
        else:
            self._say(f"The network is saved as {checkpoint}.safetensors, with a .json beside it.")

    def no_answer(self) -> None:
        """Say that no trained shape meets every constraint, or that none could be trained."""
        records = StudyRecords(self._study)
        failed = [trial for trial in records.trials() if trial.state == TrialState.FAIL]
        if failed and not records.history().trained:
            reason = failed[-1].user_attrs.get(REASON, "for an unknown reason")
            self._say(f"No training succeeded, and {len(failed)} failed. The last: {reason}.")
        else:
            self._say("No trained shape meets every constraint.")

    def worker_failed(self, log: Path, code: int) -> None:
        """Say that a worker has ended with an error, of which its log has the last word."""
        self._say(f"A worker ended with exit code {code}. What it trained before is kept. {log}:")
        try:
            lines = log.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        self._say(f"  {lines[-1] if lines else '(nothing)'}")

    def _say(self, *lines: str) -> None:
        # Unwrapped: what is read by a program, or copied, stays in one line.
        for line in lines:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _table(self) -> _TrialTable:
        """The table of the trials as they are stored now; measures, claims and writes nothing."""
        records = StudyRecords(self._study)
        if self._screening is None and records.is_screened():
            self._screening = self._problem.known_screening(self._study)
        screening = self._screening
        if screening is None:  # To ask the problem would be to measure.
            return _TrialTable()
        trials, certainties, stop = records.trials(), records.certainties(), records.stop()
        best = self._problem.best(self._study)
        live = set(read_history(trials).running)
        measured = [name for name in GOAL_COSTS if name in screening.measurements]
        rows = []
        for trial in trials:
            shape = shape_of(trial)
            if shape is None:
                continue
            mark = "best" if best and best.trial.number == trial.number else ""
            figures = [
                "" if (v := screening.value(name, shape)) is None else format_quantity(name, v)
                for name in measured
            ]
            running = trial.state == TrialState.RUNNING
            lost = running and trial.number not in live and claimed_shape(trial) is not None
            state = Text(
                "its worker is gone" if lost else mark or _state(trial),
                style="bold green" if mark else "dim",
            )
            cells = (str(trial.number), str(shape.depth), str(shape.width), *figures)
            rows.append(_Row((*cells, *self._progress(trial)), state, running and not lost))
        caption = [f"best so far: {best}" if best else "no answer yet"]
        probable = [trial for trial in trials if trial.number in certainties]
        if stop is None and probable:
            certainty = certainties[max(probable, key=_end).number]
            caption.append(f"P(a better shape) = {certainty:.2f}")
        ending = sum(row.running for row in rows)
        caption += self._spent(screening, trials, ending) if stop is None else []
        if stop is not None and ending:
            caption.append(f"the search stops; trainings that still run: {ending}")
        headings = ("trial", "depth", "width", *map(screening.label, measured))
        return _TrialTable((*headings, "epoch", "accuracy"), rows, "\n".join(caption))

    def _spent(self, screening: Screening, trials: list[FrozenTrial], workers: int) -> list[str]:
        """Cost against training everything, and how long that would still take: at most."""
        cost = training_cost(self._problem, screening, trials)
        if not 0 < cost.share < 1:
            return []
        text = f"cost {cost.share:.0%} of training all"
        if not cost.timed:
            return [text]
        seconds = cost.seconds / cost.timed * (1 - cost.share) / max(1, workers)
        return [f"{text}, at most {datetime.timedelta(seconds=int(seconds))} left"]

    def _progress(self, trial: FrozenTrial) -> tuple[str, str]:
        epoch, total = len(trial.intermediate_values), self._problem.epochs
        if PARENT in trial.user_attrs:
            total = None  # Such are trained for as long as their training loop likes.
        accuracy = trial.user_attrs.get(ACCURACY)
        if accuracy is None and trial.intermediate_values:
            accuracy = trial.intermediate_values[max(trial.intermediate_values)]
        shown = "" if accuracy is None or math.isnan(accuracy) else f"{accuracy * 100:.1f} %"
        return (f"{epoch}/{total}" if total else str(epoch or "")), shown


@contextlib.contextmanager
def _repeated(look: Callable[[bool], None], interval: float) -> Iterator[None]:
    """Look once, then in a thread every so many seconds, and a last time at the end."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(interval):
            look(False)

    look(False)
    thread = threading.Thread(target=watch, name="SearchDisplay", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        look(True)


@contextlib.contextmanager
def _log_above(live: Live) -> Iterator[None]:
    """Show it, and let what Optuna logs in this process stand above it, not in it."""
    # The handler keeps the stream that was there when it was made; rich has only replaced others.
    stream = sys.stderr
    handlers = [
        handler
        for handler in logging.getLogger("optuna").handlers
        if isinstance(handler, logging.StreamHandler)
        and handler.stream is stream
        and stream.isatty()
    ]
    with live:
        try:
            for handler in handlers:
                handler.setStream(sys.stderr)
            yield
        finally:
            for handler in handlers:
                handler.setStream(stream)


class _Lines:
    """A line for each trial that ends from now on, in the order in which they ended."""

    def __init__(self, study: Study, say: Callable[[str], None]) -> None:
        self._records = StudyRecords(study)
        self._say = say
        self._known: set[int] | None = None
        self._waiting: list[tuple[FrozenTrial, float]] = []
        self._certainties: Mapping[int, float] = {}
        self._trained = 0

    def look(self, last: bool) -> None:
        """Read what has ended, and say what is due; all of it, the last time."""
        # The search meets what is wrong with the storage, too, and says so.
        with contextlib.suppress(Exception):
            self._read()
        while self._waiting and (last or self._is_due(*self._waiting[0])):
            trial, _ = self._waiting.pop(0)
            certainty = self._certainties.get(trial.number)
            chance = "" if certainty is None else f"; P(a better shape) = {certainty:.2f}"
            self._say(f"trial {trial.number}: {_outcome(trial)}{chance}")

    def _read(self) -> None:
        trials = self._records.trials()
        self._certainties = self._records.certainties()
        self._trained = len(read_history(trials).accuracies)
        ended = {trial.number: trial for trial in trials if trial.state.is_finished()}
        if self._known is None:
            self._known = set(ended)
        new = [ended[number] for number in sorted(set(ended) - self._known)]
        self._waiting += [(trial, time.monotonic()) for trial in sorted(new, key=_end)]
        self._known.update(ended)

    def _is_due(self, trial: FrozenTrial, since: float) -> bool:
        # ShapeTerminator, in the trial's worker, stores the probability some seconds after the
        # end, which the line waits for. There is none of a failed trial. The terminator looks at
        # the trainings right after the end, and stores nothing while they are few: if they are
        # still few a moment later, it has seen few. Otherwise the probability is on its way,
        # unless the worker was killed, has no terminator or heard of the stop; nothing tells
        # these from a slow one, so patience ends.
        if trial.number in self._certainties or trial.state == TrialState.FAIL:
            return True
        few = self._trained < MIN_TRAININGS
        return time.monotonic() - since >= (_PROMPT if few else _PATIENCE)


@dataclass(frozen=True)
class _Row:
    """A trial in the table: its figures, what became of it, and whether it is in training."""

    figures: tuple[str, ...]
    state: Text
    running: bool


@dataclass(frozen=True)
class _TrialTable:
    """A table of trials that is cut to the height of the terminal unless it is shown whole.

    Those in training are kept, and the latest of the others. Rich would cut off the end.
    """

    headings: tuple[str, ...] = ()
    rows: Sequence[_Row] = field(default_factory=list)
    caption: str = "no trial yet"
    outdated: bool = False
    whole: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.whole:
            yield self._with(len(self.rows))
            return
        # Each row takes one line here, and so does the one that stands for those left out.
        height = options.size.height
        frame = len(console.render_lines(self._with(0), options)) - 1
        fits = len(self.rows) + frame <= height
        count = len(self.rows) if fits else max(1, height - frame - 1)
        for line in console.render_lines(self._with(count), options, pad=False)[-height:]:
            yield from line
            yield Segment.line()

    def _with(self, count: int) -> Group:
        """The table with only so many rows."""
        caption = Text(self.caption, style="table.caption")
        if self.outdated:
            caption.append("   (not up to date: the study cannot be read)")
        if not self.rows:
            return Group(caption)
        order = sorted(range(len(self.rows)), key=lambda i: (self.rows[i].running, i))
        shown = sorted(order[max(0, len(order) - count) :])
        # Without padding on the left, so that four figures and a word fit into 80 columns.
        table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
        for heading in self.headings:
            # "energy (estimate)" takes two lines; a figure is not parted from its unit.
            table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
        table.add_column("", overflow="fold")
        if len(shown) < len(self.rows):
            hidden = f"{len(self.rows) - len(shown)} earlier"
            table.add_row("...", *[""] * (len(self.headings) - 1), Text(hidden, style="dim"))
        for i in shown:
            state = self.rows[i].state.copy()
            if not self.whole:
                state.no_wrap, state.overflow = True, "ellipsis"
            table.add_row(*self.rows[i].figures, state)
        return Group(table, caption)


def _grid(name: str, problem: ShapeProblem, screening: Screening) -> Table:
    """One measured property, depth by width."""
    table = Table(box=box.SIMPLE)
    table.add_column("", justify="right", style="bold")
    for width in problem.space.widths:
        table.add_column(str(width), justify="right")
    for depth in problem.space.depths:
        cells = []
        for width in problem.space.widths:
            shape = Shape(depth, width)
            value = screening.value(name, shape)
            within = screening.verdicts[shape].status == "within"
            text = "-" if value is None else format_quantity(name, value)
            cells.append(Text(text, style="" if within else "strike dim"))
        table.add_row(str(depth), *cells)
    return table


def _outcome(trial: FrozenTrial) -> str:
    shape = shape_of(trial)
    name = "no shape" if shape is None else f"shape {shape}"
    if is_replicate(trial):
        name += " again"
    accuracy = trial.user_attrs.get(ACCURACY)
    if trial.state == TrialState.COMPLETE and accuracy is not None:
        return f"{name}: accuracy {format_quantity('accuracy', accuracy)}"
    return f"{name}: {_state(trial) or 'complete'}"


def _state(trial: FrozenTrial) -> str:
    if trial.state == TrialState.COMPLETE:
        return "trained again" if is_replicate(trial) else ""
    if trial.state == TrialState.RUNNING:
        return "training again" if is_replicate(trial) else "training"
    # An error's message may have several lines.
    return " ".join(str(trial.user_attrs.get(REASON, trial.state.name.lower())).split())


def _end(trial: FrozenTrial) -> tuple[datetime.datetime, int]:
    """Sorts trials by their end."""
    return trial.datetime_complete or datetime.datetime.max, trial.number


def _listed(values: tuple[int, ...]) -> str:
    return ", ".join(str(value) for value in values)
