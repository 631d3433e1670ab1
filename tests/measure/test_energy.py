from __future__ import annotations

import math
import random
from collections.abc import Callable
from statistics import fmean

import pytest
import torch
from simulated import IDLE
from simulated import SimulatedBoard
from simulated import joules

from optuna_shape.errors import EnergyUnavailable
from optuna_shape.measure.counters import find_counter
from optuna_shape.measure.energy import energy_per_call
from optuna_shape.measure.energy import measure_energy
from optuna_shape.measure.energy import watch_idle
from optuna_shape.measure.running import Setting
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape


@pytest.mark.parametrize("milliseconds", [0.3, 3, 20, 100])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("reading", [0.0, 200e-6])
def test_error_is_below_one_percent_with_a_counter_that_looks_a_quarter_of_the_time(
    milliseconds: float, seed: int, reading: float
) -> None:
    board = SimulatedBoard(seed, reading=reading)
    seconds = milliseconds / 1e3
    windows = energy_per_call(
        board.call(seconds), board, board.clock, board.sleep, random.Random(seed)
    )
    mean = fmean(window.joules for window in windows)
    assert mean == pytest.approx(joules(seconds), rel=0.01)


@pytest.mark.parametrize("milliseconds", [20, 100])
def test_without_pauses_calls_run_in_step_with_the_counter(milliseconds: float) -> None:
    """What the phases are for: the naive quotient is far off, and stays so."""
    board = SimulatedBoard()
    run = board.call(milliseconds / 1e3)
    (before, _), calls = board.read(), round(20e3 / milliseconds)
    for _ in range(calls):
        run()
    naive = (board.read()[0] - before) / calls
    assert abs(naive / joules(milliseconds / 1e3) - 1) > 0.05


@pytest.mark.parametrize("seconds", [0.005, 0.0143, 0.033, 0.07, 0.15, 0.3, 1.7])
def test_no_length_of_a_call_is_out_of_reach(seconds: float) -> None:
    board = SimulatedBoard(1)
    windows = energy_per_call(
        board.call(seconds), board, board.clock, board.sleep, random.Random(1)
    )
    assert fmean(window.joules for window in windows) == pytest.approx(joules(seconds), rel=0.03)


def test_a_fast_counter_that_sees_everything_needs_no_pauses() -> None:
    board = SimulatedBoard(tick=1e-3, seen=1e-3)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        board.sleep(seconds)

    windows = energy_per_call(board.call(5e-3), board, board.clock, sleep, random.Random(0))
    assert [w.joules for w in windows] == pytest.approx([joules(5e-3)] * len(windows), rel=0.005)
    assert sum(slept) < 0.1


def test_idle_period_and_power_are_found() -> None:
    board = SimulatedBoard()
    idle = watch_idle(board, board.sleep)
    assert idle.period == pytest.approx(0.1, rel=0.01)
    assert idle.power == pytest.approx(IDLE, rel=0.01)


class Standstill(SimulatedBoard):
    def __init__(self, after: float = 0.0) -> None:
        super().__init__()
        self._stops = self.now + after
        self._last = self._counted

    def read(self) -> tuple[float, float]:
        if self.now < self._stops:
            self._last = self._counted
        return self._last, self.now


@pytest.mark.parametrize("after", [0.0, 2.0])
def test_a_counter_that_stands_still_is_no_counter(after: float) -> None:
    board = Standstill(after)
    with pytest.raises(EnergyUnavailable, match="stands still"):
        measure_energy(
            [Shape(1, 1)],
            lambda _: board.call(0.01),
            board,
            "board",
            clock=board.clock,
            sleep=board.sleep,
        )


def test_measurements_hold_the_truth_and_their_doubt() -> None:
    board = SimulatedBoard()
    shapes = {Shape(1, 8): 0.003, Shape(2, 8): 0.05}
    measured = measure_energy(
        list(shapes),
        lambda shape: board.call(shapes[shape]),
        board,
        "board",
        clock=board.clock,
        sleep=board.sleep,
    )
    for shape, seconds in shapes.items():
        result = measured[shape]
        assert result.low < joules(seconds) < result.high
        assert result.low == pytest.approx(0.95 * result.value, rel=0.02)
        assert result.samples >= 3
        assert result.fingerprint == "board"


@pytest.mark.parametrize(
    ("sensor", "said"),
    [(1.0, ""), (1.05, ""), (None, ""), (0.7, "sensor -"), (1.4, "sensor +")],
)
@pytest.mark.parametrize("seconds", [0.003, 0.05])
def test_a_counter_and_a_sensor_that_disagree_are_told_of(
    sensor: float | None, said: str, seconds: float
) -> None:
    board = SimulatedBoard(sensor=sensor)
    (measured,) = measure_energy(
        [Shape(1, 8)],
        lambda _: board.call(seconds),
        board,
        "board",
        clock=board.clock,
        sleep=board.sleep,
    ).values()
    assert said in measured.note
    assert bool(said) == bool(measured.note)


def test_networks_that_cannot_run_do_not_end_the_measuring() -> None:
    board = SimulatedBoard()

    def prepare(shape: Shape) -> Callable[[], None]:
        if shape.depth == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return board.call(0.003)

    shapes = [Shape(1, 8), Shape(2, 8)]
    measured = measure_energy(shapes, prepare, board, "f", clock=board.clock, sleep=board.sleep)
    assert math.isinf(measured[Shape(1, 8)].value)
    assert "out of memory" in measured[Shape(1, 8)].note
    assert math.isfinite(measured[Shape(2, 8)].value)


@pytest.mark.gpu
def test_a_larger_network_takes_more_energy_on_a_gpu() -> None:
    device = torch.device("cuda", 0)
    space = DesignSpace(
        [1, 8],
        [2048],
        lambda shape: torch.nn.Sequential(
            *[torch.nn.Linear(shape.width, shape.width) for _ in range(shape.depth)]
        ),
        input_shape=(2048,),
    )
    setting = Setting(device, batch_size=4096)
    measured = measure_energy(
        space.shapes, lambda s: setting.prepare(space, s), find_counter(device), "gpu"
    )
    small, large = (measured[shape] for shape in space.shapes)
    assert 0 < small.low <= small.value <= small.high
    assert large.value > 4 * small.value
