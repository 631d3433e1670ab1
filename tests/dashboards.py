"""The command ``optuna-shape dashboard`` as a process, on studies that end within a second."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import optuna
from problems import formula_objective
from problems import surface
from problems import table

from optuna_shape import DesignSpace
from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape import ShapeSampler
from optuna_shape import ShapeTerminator

COMMAND = (sys.executable, "-W", "ignore", "-c", "from optuna_shape.cli import main; main()")
#: The cheapest shape that reaches the accuracy is neither the cheapest nor the last one trained.
BOUND = "accuracy >= 84 %"


def searched(
    storage: str | optuna.storages.BaseStorage, *bounds: str
) -> tuple[ShapeProblem, optuna.Study]:
    """A study of a cost goal, whose trainings end above and below the accuracy, and one cut."""
    space = DesignSpace(range(1, 7), (4, 8, 12, 16, 24), name="formula | `x`")
    limits = (*(bounds or (BOUND,)), "size <= 150 kB", "energy <= 1 J")
    problem = ShapeProblem(space, "latency", limits, meter=table(space), epochs=6)
    study = optuna.create_study(
        study_name="shapes",
        storage=storage,
        direction=problem.direction,
        sampler=ShapeSampler(problem, seed=0),
        pruner=CutsOne(Shape(4, 8)),
    )
    for shape in (Shape(6, 24), Shape(1, 4), Shape(4, 8)):  # too large, inaccurate, cut short
        study.enqueue_trial(shape._asdict())
    objective = formula_objective(problem, surface, epochs=6)
    study.optimize(objective, n_trials=14, callbacks=[ShapeTerminator(problem)])
    return problem, study


class CutsOne(optuna.pruners.BasePruner):
    """Cuts the training of one shape short after three epochs."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return (trial.params["depth"], trial.params["width"]) == self._shape and (
            trial.last_step == 3
        )


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address that the command tells of, and its process; it is ended afterwards."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*COMMAND, "dashboard", *arguments, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "Ctrl-C" in line:
                break
        found = re.search(r"http://\S+", "".join(said))
        assert found is not None, "".join(said)
        yield found.group(), process
    finally:
        process.terminate()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()
