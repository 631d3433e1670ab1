"""Every storage of Optuna takes many workers, and no shape is trained twice or missed."""

from __future__ import annotations

import multiprocessing
import warnings
from collections import Counter
from pathlib import Path

import optuna
import pytest
from problems import surface
from problems import table
from servers import KINDS
from servers import open_storage
from servers import serve

from optuna_shape import DesignSpace
from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape import ShapeSampler
from optuna_shape.records import StudyRecords

WORKERS = 8
# Imports once for all workers.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["test_storages", "optuna_shape.decide._gp"])
POISONED = Shape(2, 5)


def question(side: int) -> ShapeProblem:
    space = DesignSpace(range(1, side + 1), range(4, side + 4))
    return ShapeProblem(space, "accuracy", ["latency <= 1 s"], meter=table(space))


def work(address: str, side: int, number: int) -> None:
    """A worker; its training of one shape diverges the first time."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    problem = question(side)
    study = optuna.load_study(
        study_name="s",
        storage=open_storage(address),
        sampler=ShapeSampler(problem, seed=number),
    )

    def objective(trial: optuna.Trial) -> float:
        shape = problem.suggest(trial)
        failed = shape in StudyRecords(study).history().failures
        diverges = shape == POISONED and not failed
        return problem.record(trial, float("nan") if diverges else surface(shape))

    study.optimize(objective)


@pytest.mark.parametrize(
    "side", [pytest.param(8, id="64"), pytest.param(20, id="400", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_workers_train_every_shape_exactly_once(kind: str, side: int, tmp_path: Path) -> None:
    with serve(kind, tmp_path) as address:
        problem = question(side)
        study = optuna.create_study(
            study_name="s", storage=open_storage(address), direction="maximize"
        )
        workers = [
            _context.Process(target=work, args=(address, side, number))
            for number in range(WORKERS)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0] * WORKERS
        history = StudyRecords(study).history()
        trained = Counter(history.shapes[number] for number in history.trained)
        assert trained == Counter(problem.space.shapes)
        assert history.failures == {POISONED: 1}
        claims = [t.system_attrs.get("shape:claim") for t in study.trials]
        # Of all of them at once, though one may find everything taken.
        assert len({claim["worker"] for claim in claims if claim}) > WORKERS / 2
