from __future__ import annotations

import gc
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from simulated import SimulatedMachine
from torch import nn

from optuna_shape.errors import BuildFailed
from optuna_shape.errors import NoisyMachine
from optuna_shape.measure.latency import CPU
from optuna_shape.measure.latency import measure_latency
from optuna_shape.measure.latency import settle
from optuna_shape.measure.measurement import Measurement
from optuna_shape.measure.running import Call
from optuna_shape.measure.running import Setting
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape


def _column(*milliseconds: float) -> dict[Shape, float]:
    return {Shape(depth, 8): value / 1e3 for depth, value in enumerate(milliseconds, start=1)}


def _within(measurements: dict[Shape, Measurement], bound: float) -> list[bool | None]:
    return [
        True if m.high <= bound else False if m.low > bound else None
        for m in measurements.values()
    ]


def test_clear_sides_are_decided_by_the_fewest_blocks() -> None:
    measured = SimulatedMachine().measure(_column(0.5, 1.0, 3.0, 9.0), bound=2e-3)
    assert _within(measured, 2e-3) == [True, True, False, False]
    assert [m.samples for m in measured.values()] == [9] * 4


@pytest.mark.parametrize("bound", [None, 2e-3])
def test_intervals_hold_the_true_latency(bound: float | None) -> None:
    latencies = _column(0.2, 0.7, 1.5, 2.5, 6.0)
    missed = 0
    for seed in range(40):
        for shape, m in SimulatedMachine(seed).measure(latencies, bound).items():
            assert m.low <= m.value <= m.high
            assert m.fingerprint == "simulated"
            missed += not m.low <= latencies[shape] <= m.high
    assert missed <= 4, "each of two ends may miss once in a hundred"


def test_no_wrong_side_ten_percent_from_the_bound() -> None:
    latencies = _column(0.9, 1.1)
    answers = [
        _within(SimulatedMachine(seed).measure(latencies, bound=1e-3), 1e-3) for seed in range(60)
    ]
    assert all(answer == [True, False] for answer in answers)


def _two_sessions(latency: float, paces: tuple[float, float], seed: int) -> bool | None:
    """Answer for a bound of 1 ms, on a machine that is in another mood in its second process."""

    def session(number: int) -> dict[Shape, Measurement]:
        machine = SimulatedMachine(2 * seed + number)
        return machine.measure({Shape(1, 1): paces[number] * latency}, bound=1e-3)

    measured = settle(session(0), CPU.guard, 1e-3, lambda close: session(1))
    return _within(measured, 1e-3)[0]


def test_sessions_that_differ_by_less_than_the_guard_never_contradict_each_other() -> None:
    """The same network at a pace that moves by 4 % between sessions: within and over never mix."""
    for latency in (0.9e-3, 0.95e-3, 1e-3, 1.05e-3, 1.1e-3):
        answers = {
            _two_sessions(latency, paces, seed)
            for paces in itertools.product((0.96, 1.0, 1.04), repeat=2)
            for seed in range(3)
        }
        assert not {True, False} <= answers


def test_a_second_session_decides_within_the_guard() -> None:
    assert _two_sessions(0.97e-3, (1.0, 1.0), 0) is True
    assert _two_sessions(0.97e-3, (1.0, 1.06), 0) is None


def test_a_second_session_is_for_those_just_within() -> None:
    asked: list[Shape] = []
    session = {
        Shape(1, depth): Measurement(high, 0.99 * high, high, 9, "f")
        for depth, high in enumerate((0.5, 0.951, 0.96, 1.0, 1.001, 1.2), start=1)
    }

    def again(close: list[Shape]) -> dict[Shape, Measurement]:
        asked.extend(close)
        return {}

    settled = settle(session, 0.05, 1.0, again)
    assert asked == [Shape(1, 3), Shape(1, 4)]
    # Without an answer they stay what they were: too close to be sure.
    assert [m.high <= 1.0 for m in settled.values()] == [True, True, False, False, False, False]
    assert settle(session, 0.05, None, again).keys() == session.keys()
    assert len(asked) == 2


def test_without_a_bound_doubt_falls_to_the_guard() -> None:
    for m in SimulatedMachine().measure(_column(0.5, 5.0)).values():
        assert m.high / m.low - 1 <= 2 * CPU.guard


def test_blocks_end_at_the_most() -> None:
    protocol = replace(CPU, noise=1.0, drift=10.0)
    measured = SimulatedMachine(noise=0.8).measure(_column(1.0), protocol=protocol)
    assert measured[Shape(1, 8)].samples == CPU.blocks


@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_a_tail_is_of_calls_of_different_rounds_and_holds(memory: float) -> None:
    for seed in range(10):
        machine = SimulatedMachine(seed, noise=0.05, memory=memory, outliers=0.0)
        protocol = replace(CPU, quantile=0.9)
        truth = 1e-3 * math.exp(0.05 * 1.2816)
        m = machine.measure(_column(1.0, 0.2), protocol=protocol)[Shape(1, 8)]
        assert m.samples >= 62
        assert m.low / 1.01 <= truth <= m.high * 1.01
        assert m.value == pytest.approx(truth, rel=0.04)


def test_slow_spells_are_part_of_a_tail() -> None:
    """A quarter of the time everything takes twice as long: that is the 90th percentile."""
    for seed in range(5):
        machine = SimulatedMachine(seed, outliers=0.0, mood=lambda now: 1 + (now % 1 < 0.25))
        protocol = replace(CPU, quantile=0.9, noise=10.0)
        m = machine.measure(_column(1.0, 3.0), bound=1.5e-3, protocol=protocol)[Shape(1, 8)]
        assert not m.high <= 1.5e-3


def test_rounds_in_a_slow_spell_are_taken_again() -> None:
    latencies = _column(1.0, 1.5)
    calm = SimulatedMachine()
    calm.measure(latencies, bound=2e-3)
    spell = (0.5 * (calm.now - 100), 0.5 * (calm.now - 100) + 0.1)
    machine = SimulatedMachine(mood=lambda now: 1.8 if spell[0] < now < spell[1] else 1.0)
    measured = machine.measure(latencies, bound=2e-3)
    assert _within(measured, 2e-3) == [True, True]
    assert machine.now > calm.now + 0.05


def test_a_change_of_pace_for_good_becomes_the_usual_one() -> None:
    machine = SimulatedMachine(mood=lambda now: 1.0 if now < 0.6 else 1.3)
    measured = machine.measure(_column(*[1.0] * 10), bound=5e-3)
    assert _within(measured, 5e-3) == [True] * 10


def test_slow_drift_is_measured_through() -> None:
    machine = SimulatedMachine(mood=lambda now: 1 + 0.01 * now)
    measured = machine.measure(_column(1.0, 4.0), bound=2e-3)
    assert _within(measured, 2e-3) == [True, False]


def test_a_busy_machine_is_refused_with_the_figure() -> None:
    machine = SimulatedMachine(mood=lambda now: 1 + int(now * 40) % 3)
    with pytest.raises(NoisyMachine, match=r"varies by [1-9]\d*%.*threads=1.*max_noise"):
        machine.measure(_column(1.0))
    assert machine.slept > 1


def test_a_machine_that_turns_busy_is_refused_too() -> None:
    machine = SimulatedMachine(mood=lambda now: 1 if now < 0.4 else 1 + int(now * 40) % 3)
    with pytest.raises(NoisyMachine):
        machine.measure(_column(*[3.0] * 12))


def test_rounds_on_a_slowed_device_are_taken_again() -> None:
    machine = SimulatedMachine(mood=lambda now: 1.5 if 0.3 < now < 0.5 else 1.0)
    asked: list[bool] = []

    def disturbance() -> str:
        asked.append(0.3 < machine.now - 100 < 0.5)
        return "thermal limit" if asked[-1] else ""

    protocol = replace(CPU, drift=100.0, noise=100.0)  # Only the device itself tells.
    measured = machine.measure(
        _column(1.0, 2.0), bound=10.0, protocol=protocol, disturbance=disturbance
    )
    assert any(asked)
    assert asked.count(False) == 9
    assert all(m.samples == 9 for m in measured.values())


def test_a_device_that_stays_slowed_down_is_refused_with_the_reason() -> None:
    with pytest.raises(NoisyMachine, match=r"slowed down \(power brake\).*nvidia-smi"):
        SimulatedMachine().measure(_column(1.0), disturbance=lambda: "power brake")


def test_a_long_call_is_a_block_by_itself() -> None:
    calls: list[float] = []
    machine = SimulatedMachine()

    def prepare(shape: Shape) -> Call:
        run = machine.network(0.2)

        def call() -> None:
            calls.append(machine.now)
            run()

        return call

    measured = machine.measure({Shape(1, 1): 0.2}, bound=1.0, prepare=prepare)
    assert measured[Shape(1, 1)].samples == 9
    assert len(calls) == 5 + 9


def test_a_machine_that_calms_down_is_waited_for() -> None:
    machine = SimulatedMachine(mood=lambda now: 1 + int(now * 40) % 3 if now < 1 else 1)
    measured = machine.measure(_column(1.0), bound=2e-3)
    assert _within(measured, 2e-3) == [True]


class Recorder:
    """Wraps calls to see which ran when."""

    def __init__(self, machine: SimulatedMachine, latencies: dict[Shape, float]) -> None:
        self.order: list[Shape] = []
        self._machine = machine
        self._latencies = latencies

    def prepare(self, shape: Shape) -> Call:
        call = self._machine.network(self._latencies[shape])

        def recorded() -> None:
            if not self.order or self.order[-1] != shape:
                self.order.append(shape)
            call()

        return recorded


def test_blocks_alternate_in_random_order() -> None:
    machine, latencies = SimulatedMachine(), _column(1.0, 1.0, 1.0, 1.0)
    recorder = Recorder(machine, latencies)
    machine.measure(latencies, bound=2e-3, prepare=recorder.prepare)
    rounds = recorder.order[4:]  # after the warm-up
    assert len(rounds) >= 9 * 4 - 9  # two blocks of a network may meet between rounds
    assert len({tuple(rounds[i : i + 4]) for i in range(0, len(rounds) - 3, 4)}) > 4


def test_at_most_sixteen_networks_are_in_memory() -> None:
    machine = SimulatedMachine()
    alive: set[Shape] = set()
    most = 0

    class Network:
        def __init__(self, shape: Shape) -> None:
            nonlocal most
            self.shape = shape
            self.call = machine.network(1e-3)
            alive.add(shape)
            most = max(most, len(alive))

        def __call__(self) -> None:
            self.call()

        def __del__(self) -> None:
            alive.discard(self.shape)

    measured = machine.measure(_column(*[1.0] * 40), bound=5e-3, prepare=Network)
    assert len(measured) == 40
    assert most == 16
    assert not alive


def test_memory_that_runs_out_for_one_network_is_its_own_fault_only_if_alone() -> None:
    """Room for three networks: they are measured three by three; the giant never fits."""
    machine = SimulatedMachine()
    giant = Shape(5, 8)
    room = 3

    class Network:
        def __init__(self, shape: Shape) -> None:
            nonlocal room
            self.size = 0
            size = 4 if shape == giant else 1
            if size > room:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 4 GiB.")
            self.call, self.size = machine.network(1e-3), size
            room -= size

        def __call__(self) -> None:
            self.call()

        def __del__(self) -> None:
            nonlocal room
            room += self.size

    measured = machine.measure(_column(*[1.0] * 9), bound=5e-3, prepare=Network)
    assert list(measured) == list(_column(*[1.0] * 9))
    for shape, m in measured.items():
        assert math.isinf(m.value) == (shape == giant)
    assert "out of memory" in measured[giant].note


def test_memory_that_runs_out_beside_others_in_a_round_is_asked_again_alone() -> None:
    machine = SimulatedMachine()
    present: list[Shape] = []

    def prepare(shape: Shape) -> Call:
        run = machine.network(1e-3)
        present.append(shape)
        calls = 0

        def call() -> None:
            nonlocal calls
            calls += 1
            # The activations of the third network fit beside weights, not beside activations.
            if shape.depth == 3 and calls > 30 and len(present) == 3:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            run()

        return call

    measured = machine.measure(_column(1.0, 1.0, 1.0), bound=1.0, prepare=prepare)
    assert present == [Shape(1, 8), Shape(2, 8), Shape(3, 8), Shape(3, 8)]
    assert all(m.high < 1.0 for m in measured.values())


def _failing(error: BaseException, after: int) -> Call:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise error

    return call


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (ValueError("odd width\nand more"), "does not run: ValueError: odd width"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), "out of memory"),
        (RuntimeError("not enough memory: you tried to allocate"), "out of memory"),
        (MemoryError(), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory"),
    ],
)
def test_a_network_that_raises_is_impossible_and_the_others_go_on(
    error: Exception, note: str
) -> None:
    machine = SimulatedMachine()
    calls = {Shape(1, 8): machine.network(1e-3), Shape(2, 8): _failing(error, 0)}
    measured = machine.measure(_column(1.0, 1.0), bound=5e-3, prepare=calls.__getitem__)
    assert _within(measured, 5e-3) == [True, False]
    assert measured[Shape(2, 8)].note.startswith(note)
    assert "\n" not in measured[Shape(2, 8)].note


def test_a_network_that_raises_later_is_impossible_too() -> None:
    machine = SimulatedMachine()

    def prepare(shape: Shape) -> Call:
        works = machine.network(1e-3)
        fails = _failing(ValueError("worn out"), 40)

        def call() -> None:
            works()
            if shape.depth == 1:
                fails()

        return call

    measured = machine.measure(_column(1.0, 1.0), bound=5e-3, prepare=prepare)
    assert "worn out" in measured[Shape(1, 8)].note
    assert _within(measured, 5e-3) == [False, True]


@pytest.mark.parametrize("after", [0, 40])
def test_an_interrupt_passes_through(after: int) -> None:
    machine = SimulatedMachine()

    def prepare(shape: Shape) -> Call:
        works, interrupted = machine.network(1e-3), _failing(KeyboardInterrupt(), after)

        def call() -> None:
            works()
            interrupted()

        return call

    with pytest.raises(KeyboardInterrupt):
        machine.measure(_column(1.0), prepare=prepare)
    assert gc.isenabled()


def test_a_broken_build_passes_through() -> None:
    def prepare(shape: Shape) -> Call:
        raise BuildFailed("build((1, 8)) raised KeyError")

    with pytest.raises(BuildFailed):
        SimulatedMachine().measure(_column(1.0), prepare=prepare)


def test_garbage_collection_rests_in_rounds_and_is_as_before_afterwards() -> None:
    machine = SimulatedMachine()
    seen: list[bool] = []

    def prepare(shape: Shape) -> Call:
        works = machine.network(1e-3)

        def call() -> None:
            works()
            seen.append(gc.isenabled())

        return call

    machine.measure(_column(1.0), bound=5e-3, prepare=prepare)
    assert seen[0]
    assert not any(seen[-20:])
    assert gc.isenabled()
    gc.disable()
    try:
        machine.measure(_column(1.0), bound=5e-3)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_same_seed_same_measurements() -> None:
    latencies = _column(1.0, 2.0, 3.0)
    assert SimulatedMachine(3).measure(latencies) == SimulatedMachine(3).measure(latencies)


def _dense(depth: Sequence[int], width: Sequence[int]) -> DesignSpace:
    def build(shape: Shape) -> nn.Module:
        return nn.Sequential(*[nn.Linear(shape.width, shape.width) for _ in range(shape.depth)])

    return DesignSpace(depth, width, build, input_shape=(width[0],))


def test_real_networks_on_the_real_clock(one_thread: None) -> None:
    space = _dense([1, 40], [128])
    setting = Setting(torch.device("cpu"), batch_size=16)
    # Whatever else runs on the machine: it is the order of magnitude that is tested.
    tolerant = replace(CPU, noise=100.0, drift=1000.0)
    measured = measure_latency(
        space.shapes,
        lambda shape: setting.prepare(space, shape),
        setting.reference(),
        tolerant,
        "here",
    )
    shallow, deep = (measured[shape] for shape in space.shapes)
    for m in (shallow, deep):
        assert 0 < m.low <= m.value <= m.high < math.inf
    assert deep.value > 5 * shallow.value
