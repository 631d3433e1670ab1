"""The benchmark of simulated workers, on a recorded table."""

from __future__ import annotations

import pytest
import replay
import workers


@pytest.fixture(scope="module")
def game() -> replay.Replay:
    (table,) = replay.read_tables([replay.HERE / "tables" / "fashion-mnist-resnet.csv"])
    (task,) = (task for task in replay.make_tasks(table) if task.name == "latency")
    return replay.Replay(table, task, 0)


def test_one_worker_is_never_idle(game: replay.Replay) -> None:
    row = workers.simulate(game, 0, 1)
    assert row["worker_time"] == row["until_stop"]
    assert 6 <= int(str(row["shapes"])) <= int(str(row["trainings"]))
    assert float(str(row["requests"])) > game.table.epochs


def test_workers_share_the_trainings(game: replay.Replay) -> None:
    row = workers.simulate(game, 0, 3)
    until_stop, worker_time = (float(str(row[name])) for name in ("until_stop", "worker_time"))
    assert (
        until_stop
        < worker_time
        <= 3 * until_stop
        + 2 * max(game.table.cost(shape, game.table.epochs) for shape in game.feasible)
    )
    # Only what decides on the answer is trained again.
    assert int(str(row["trainings"])) - int(str(row["shapes"])) <= 1


def test_many_workers_train_everything_at_once(game: replay.Replay) -> None:
    row = workers.simulate(game, 0, 100)
    assert int(str(row["shapes"])) == len(game.feasible)
