"""What a search shows in a terminal while it runs; plain lines where there is none."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from optuna_shape.constraints import format_quantity
from optuna_shape.filters import Screening
from optuna_shape.problem import Answer
from optuna_shape.problem import ShapeProblem
from optuna_shape.records import ACCURACY
from optuna_shape.records import REASON
from optuna_shape.records import StudyRecords
from optuna_shape.records import is_replicate
from optuna_shape.records import shape_of
from optuna_shape.report.notes import nearest_removed
from optuna_shape.report.notes import removed_by
from optuna_shape.space import Shape

_SHOWN = ("latency", "energy", "size")


class SearchDisplay:
    """Shows one search in a terminal.

    Args:
        problem: What is asked.
        study: Where it is searched.
        console: Where to write.
    """

    def __init__(self, problem: ShapeProblem, study: Study, console: Console) -> None:
        self._problem = problem
        self._study = study
        self._console = console
        self._epochs: dict[int, tuple[int, float]] = {}
        self._live: Live | None = None

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
            name = next((name for name in _SHOWN if name in hard), hard[0])
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
        """Keep a table of the trials up to date while this lasts."""
        if not self._console.is_terminal:
            yield
            return
        with Live(self._table(), console=self._console, refresh_per_second=4) as live:
            self._live = live
            try:
                yield
            finally:
                live.update(self._table())
                self._live = None

    def epoch(self, trial: optuna.Trial, epoch: int, accuracy: float) -> None:
        """A training has reached an epoch."""
        self._epochs[trial.number] = (epoch, accuracy)
        if self._live is not None:
            self._live.update(self._table())

    def trial_ended(self, study: Study, trial: FrozenTrial) -> None:
        """A callback for ``study.optimize``."""
        if self._live is not None:
            self._live.update(self._table())
            return
        certainty = StudyRecords(study).certainties().get(trial.number)
        chance = "" if certainty is None else f"; P(a better shape) = {certainty:.2f}"
        self._say(f"trial {trial.number}: {_outcome(trial)}{chance}")

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
        for name in _SHOWN:
            value = getattr(answer, name)
            if value is not None:
                table.add_row(name, format_quantity(name, value))
        if answer.note:
            table.add_row("note", answer.note)
        self._console.print(table, highlight=False, markup=False)
        if checkpoint is None:
            self._say(f"Its network is not in this --output; trial {answer.trial.number} made it.")
        else:
            self._say(f"The network is saved as {checkpoint}.safetensors, with a .json beside it.")

    def no_answer(self) -> None:
        """Say that no trained shape meets every constraint."""
        self._say("No trained shape meets every constraint.")

    def interrupted(self, command: str) -> None:
        """Say how to go on after Ctrl-C."""
        self._say("Interrupted. What was measured and trained is kept. Go on with:")
        self._say(f"  {command}")

    def _say(self, *lines: str) -> None:
        # Unwrapped: what is read by a program, or copied, stays in one line.
        for line in lines:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _table(self) -> Table:
        problem = self._problem
        screening = problem.screen(self._study)
        records = StudyRecords(self._study)
        trials, probability = records.trials(), records.certainties()
        measured = [name for name in _SHOWN if name in screening.measurements]
        best = problem.best(self._study)
        table = Table(
            box=box.SIMPLE, caption=self._caption(best, probability), caption_justify="left"
        )
        table.add_column("trial", justify="right")
        for name in ("depth", "width", *map(screening.label, measured)):
            table.add_column(name, justify="right")
        table.add_column("epoch", justify="right")
        table.add_column("accuracy", justify="right")
        table.add_column("", overflow="fold", min_width=24)
        for trial in trials:
            shape = shape_of(trial)
            if shape is None:
                continue
            mark = "best" if best and best.trial.number == trial.number else ""
            figures = [
                "" if (v := screening.value(name, shape)) is None else format_quantity(name, v)
                for name in measured
            ]
            epoch, accuracy = self._progress(trial)
            table.add_row(
                str(trial.number),
                str(shape.depth),
                str(shape.width),
                *figures,
                epoch,
                accuracy,
                Text(mark or _state(trial), style="bold green" if mark else "dim"),
            )
        return table

    def _progress(self, trial: FrozenTrial) -> tuple[str, str]:
        epoch = len(trial.intermediate_values)
        accuracy = trial.user_attrs.get(ACCURACY)
        if accuracy is None and trial.intermediate_values:
            accuracy = trial.intermediate_values[max(trial.intermediate_values)]
        if trial.number in self._epochs and trial.state == TrialState.RUNNING:
            epoch, accuracy = self._epochs[trial.number]
        total = self._problem.epochs
        shown = "" if accuracy is None or math.isnan(accuracy) else f"{accuracy * 100:.1f} %"
        return (f"{epoch}/{total}" if total else ""), shown

    def _caption(self, best: Answer | None, probability: dict[int, float]) -> str:
        parts = [f"best so far: {best}" if best else "no answer yet"]
        if probability and StudyRecords(self._study).stop() is None:
            parts.append(f"P(a better shape) = {probability[max(probability)]:.2f}")
        return "   ".join(parts)


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
    if trial.state == TrialState.COMPLETE:
        return f"{name}: accuracy {format_quantity('accuracy', trial.user_attrs[ACCURACY])}"
    return f"{name}: {_state(trial)}"


def _state(trial: FrozenTrial) -> str:
    if trial.state == TrialState.COMPLETE:
        return "trained again" if is_replicate(trial) else ""
    if trial.state == TrialState.RUNNING:
        return "training again" if is_replicate(trial) else "training"
    return str(trial.user_attrs.get(REASON, trial.state.name.lower()))


def _listed(values: tuple[int, ...]) -> str:
    return ", ".join(str(value) for value in values)
