"""A search on workers of Dask, whose scheduler holds the storage."""

from __future__ import annotations

import warnings
from collections import Counter

import optuna
import pytest
from problems import surface
from problems import table

from optuna_shape import DesignSpace
from optuna_shape import ShapeProblem
from optuna_shape import ShapeSampler
from optuna_shape import ShapeTerminator
from optuna_shape.records import StudyRecords

distributed = pytest.importorskip("distributed", reason="pip install 'dask[distributed]'")
dask = pytest.importorskip("optuna_integration.dask", reason="pip install optuna-integration")


def question() -> ShapeProblem:
    space = DesignSpace(range(1, 5), [4, 8, 12, 16])
    return ShapeProblem(space, "accuracy", ["latency <= 1 s"], meter=table(space))


def objective(trial: optuna.Trial) -> float:
    problem = question()
    return problem.record(trial, surface(problem.suggest(trial)))


@pytest.mark.slow
def test_workers_of_dask_train_no_shape_twice_and_stop() -> None:
    warnings.simplefilter("ignore")
    problem = question()
    with (
        distributed.LocalCluster(n_workers=3, threads_per_worker=1) as cluster,
        distributed.Client(cluster) as client,
    ):
        study = optuna.create_study(
            direction="maximize",
            storage=dask.DaskStorage(client=client),
            sampler=ShapeSampler(problem, seed=0),
        )
        futures = [
            client.submit(
                study.optimize, objective, callbacks=[ShapeTerminator(problem)], pure=False
            )
            for _ in range(3)
        ]
        distributed.wait(futures)
        assert [future.status for future in futures] == ["finished"] * 3
        records = StudyRecords(study)
        history = records.history()
        trained = Counter(history.shapes[number] for number in history.trained)
        assert max(trained.values()) == 1
        assert records.stop() is not None
        best = problem.best(study)
        assert best is not None
        assert best.accuracy >= max(map(surface, problem.space.shapes)) - 0.005
        claims = [t.system_attrs.get("shape:claim") for t in study.trials]
        assert len({claim["worker"] for claim in claims if claim}) > 1
