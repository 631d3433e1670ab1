"""Energy of one call of a network, from a counter that the hardware keeps.

Counters tick (every 100 ms or so on NVIDIA boards), and what they add at a tick may stem from a
part of the time only: 25 of 100 ms on A100 and H100 (Yang, Adamek and Armour, SC'24, arXiv
2312.02741). Three things follow, and make one *window* of a measurement:

* Energy per call is the slope of a straight line through the readings just after each tick, so
  neither end of the window matters.
* Calls so long that the counter sees parts of one, not the average of many, must not run in step
  with it. Pauses let the calls start at phases of the tick period that follow the golden ratio,
  the most even of all sequences; phases by lot need a hundred times as long.
* Those pauses are not free: their energy, at the power of the idle device, is subtracted.

In simulation (25 of 100 ms, calls of uneven power, 3 windows of 2 s) the error is below 0.6 % for
calls of 0.3, 3, 20 and 100 ms. Without the pauses it is 11 % at 20 ms and 53 % at 100 ms, for
windows of any length. The gain of a board's meter (5 % or so) stays; all shapes share it.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass

from optuna_shape.errors import EnergyUnavailable
from optuna_shape.measure.board import slowed_down
from optuna_shape.measure.counters import REMEDY
from optuna_shape.measure.counters import EnergyCounter
from optuna_shape.measure.measurement import Measurement
from optuna_shape.measure.running import Call
from optuna_shape.measure.running import impossible
from optuna_shape.space import Shape

Clock = Callable[[], float]
Sleep = Callable[[float], None]

_GUARD = 0.05  # what is left of the meter's error, and of the difference between sessions
_MIN_WINDOWS = 3
_MAX_WINDOWS = 8
_WARM_UP = 0.5  # seconds
_POLL = 1e-3  # seconds
_IDLE_TICKS = 5
_DISAGREEMENT = 0.1  # between counter and power sensor, worth telling
_STANDSTILL = 3.0  # seconds without a tick after which a counter is broken
_WINDOW = 2.0  # seconds, at least
_MIN_TICKS = 5  # per window
_SLOW = 0.01  # seconds: counters that tick faster leave nothing out
_SHORT = 0.05  # of the time between ticks: the counter sees many of such calls
_GOLDEN = (3 - 5**0.5) / 2


@dataclass(frozen=True)
class Window:
    """What a counter, and a power sensor beside it, saw of some seconds of calls.

    Attributes:
        joules: Per call.
        counted: Watts by the counter, pauses included.
        sensed: Watts by the sensor; None if there is none.
    """

    joules: float
    counted: float
    sensed: float | None


@dataclass(frozen=True)
class Idle:
    """What a counter does while the device waits.

    Attributes:
        period: Seconds between two ticks.
        power: Watts.
    """

    period: float
    power: float


def measure_energy(
    shapes: Sequence[Shape],
    prepare: Callable[[Shape], Call],
    counter: EnergyCounter,
    fingerprint: str,
    *,
    bound: float | None = None,
    seed: int = 0,
    disturbance: Callable[[], str] = lambda: "",
    clock: Clock = time.perf_counter,
    sleep: Sleep = time.sleep,
) -> dict[Shape, Measurement]:
    """Measure the energy of one call of each network, in joules.

    It is gross: all that the device draws while calls follow each other, idle power included.

    Args:
        shapes: What to measure, one after the other.
        prepare: Returns what runs the network of a shape once, synchronised.
        counter: Reads the meter.
        fingerprint: Of the measurements.
        bound: In joules; measuring ends when the side of it is sure.
        seed: Of the phases.
        disturbance: Says what slows the device down at present, if anything; windows at whose
            end something does are taken again.
        clock: Tells seconds; the same clock as the counter's.
        sleep: Waits seconds.

    Returns:
        One measurement per shape; *impossible* for networks that ran out of memory or raised.

    Raises:
        EnergyUnavailable: The counter stands still, or makes no sense.
        NoisyMachine: The device is being slowed down.
    """
    rng = random.Random(seed)

    def measure(shape: Shape) -> Measurement:
        try:
            run = prepare(shape)
            run()
            windows = energy_per_call(
                run, counter, clock, sleep, rng, bound=bound, disturbance=disturbance
            )
        except Exception as error:
            return impossible(error, fingerprint)
        joules = [window.joules for window in windows]
        half = _half_width(joules)
        mean = statistics.fmean(joules)
        if mean <= 0:
            raise EnergyUnavailable(
                f"The energy counter makes {mean:.3g} J of a call of {shape}, less than the idle "
                f"device draws: other work has ended meanwhile, or it is wrong. {REMEDY}"
            )
        note = _disagreement(windows)
        return Measurement(
            mean, max(0.0, mean - half), mean + half, len(joules), fingerprint, note
        )

    return {shape: measure(shape) for shape in shapes}


def energy_per_call(
    run: Call,
    counter: EnergyCounter,
    clock: Clock,
    sleep: Sleep,
    rng: random.Random,
    *,
    bound: float | None = None,
    disturbance: Callable[[], str] = lambda: "",
) -> list[Window]:
    """Return 3 to 8 windows, each with the energy of one call.

    The last window is the one after which they agree, or lie surely on one side of the bound.

    Raises:
        EnergyUnavailable: The counter stands still.
        NoisyMachine: The device is being slowed down in most windows.
    """
    call = _warm_up(run, clock)
    idle = watch_idle(counter, sleep)
    phases = _Phases(idle.period, call, rng.random())
    windows: list[Window] = []
    redone = 0
    while len(windows) < _MIN_WINDOWS or not _is_decided([w.joules for w in windows], bound):
        window = _window(run, counter, clock, sleep, idle, phases)
        slowed = disturbance()
        if not slowed:
            windows.append(window)
        elif (redone := redone + 1) > _MAX_WINDOWS:
            raise slowed_down(slowed)
    return windows


def watch_idle(counter: EnergyCounter, sleep: Sleep) -> Idle:
    """Watch the counter of a waiting device for some ticks.

    Raises:
        EnergyUnavailable: It stands still.
    """
    ticks = _Ticks(counter)
    seen: list[tuple[float, float]] = []  # (seconds, joules)
    while len(seen) <= _IDLE_TICKS:
        sleep(_POLL)
        if ticks.poll():
            seen.append((ticks.seconds, ticks.joules))
    seconds = seen[-1][0] - seen[0][0]
    return Idle(period=seconds / _IDLE_TICKS, power=(seen[-1][1] - seen[0][1]) / seconds)


class _Ticks:
    """A counter, and whether it has moved since the last look."""

    def __init__(self, counter: EnergyCounter) -> None:
        self._counter = counter
        self.joules, self.seconds = counter.read()
        self._ticked = self.seconds
        self._looks = 0

    def poll(self) -> bool:
        joules, self.seconds = self._counter.read()
        self._looks += 1
        if joules != self.joules:
            self.joules, self._ticked, self._looks = joules, self.seconds, 0
            return True
        if self.seconds - self._ticked > _STANDSTILL and self._looks > 2:
            raise EnergyUnavailable(
                f"The energy counter stands still at {joules:.6g} J for {_STANDSTILL:g} s: it "
                f"does not count, as in some virtual machines. {REMEDY}"
            )
        return False


class _Phases:
    """Says how long to pause between calls, so that a slow counter sees every part of them."""

    def __init__(self, period: float, call: float, start: float) -> None:
        self.calls_per_burst = max(1, round(period / call))
        self._period = period
        self._pausing = period >= _SLOW and call >= _SHORT * period
        self._phase = start

    def pause(self, now: float) -> float:
        """Return the seconds to wait before the next burst of calls."""
        if not self._pausing:
            return 0.0
        self._phase = (self._phase + _GOLDEN) % 1
        return (self._phase - now / self._period) % 1 * self._period


def _warm_up(run: Call, clock: Clock) -> float:
    """Keep the device busy for a while; return the seconds of a call."""
    times = []
    start = now = clock()
    while now - start < _WARM_UP:
        run()
        before, now = now, clock()
        times.append(now - before)
    return statistics.median(times)


def _window(
    run: Call, counter: EnergyCounter, clock: Clock, sleep: Sleep, idle: Idle, phases: _Phases
) -> Window:
    """Call the network for a while."""
    ticks = _Ticks(counter)
    start = now = ticks.seconds
    paused = 0.0
    calls = 0
    # At the ticks: calls, joules without those of the pauses, joules, seconds, watts.
    seen: list[tuple[int, float, float, float, float | None]] = []
    while now - start < _WINDOW or len(seen) < _MIN_TICKS:
        pause = phases.pause(now)
        if pause > 0:
            sleep(pause)
            paused += clock() - now
        for _ in range(phases.calls_per_burst):
            run()
            calls += 1
            now = clock()
            if now - ticks.seconds < _POLL:
                continue
            ticked = ticks.poll()
            paused += ticks.seconds - now  # The device waits while its counter is read.
            if ticked:
                net = ticks.joules - idle.power * paused
                seen.append((calls, net, ticks.joules, ticks.seconds, counter.watts()))
            now = clock()
            paused += now - ticks.seconds
    done, net_joules, joules, seconds, watts = zip(*seen)
    sensed = [value for value in watts if value is not None]
    return Window(
        joules=statistics.linear_regression(done, net_joules).slope,
        counted=(joules[-1] - joules[0]) / (seconds[-1] - seconds[0]),
        sensed=statistics.fmean(sensed) if sensed else None,
    )


def _disagreement(windows: Sequence[Window]) -> str:
    """Return what to say where counter and sensor tell different stories; empty if they agree."""
    ratios = [window.sensed / window.counted for window in windows if window.sensed is not None]
    if not ratios or abs(statistics.median(ratios) - 1) <= _DISAGREEMENT:
        return ""
    counted = statistics.fmean(window.counted for window in windows)
    return (
        f"the energy counter says {counted:.3g} W, the power sensor "
        f"{statistics.median(ratios) - 1:+.0%} of that"
    )


def _half_width(windows: Sequence[float]) -> float:
    return max(3 * statistics.stdev(windows), _GUARD * statistics.fmean(windows))


def _is_decided(windows: Sequence[float], bound: float | None) -> bool:
    mean = statistics.fmean(windows)
    half = _half_width(windows)
    agreed = half <= _GUARD * mean
    sure = bound is not None and not mean - half <= bound < mean + half
    return agreed or sure or len(windows) >= _MAX_WINDOWS
