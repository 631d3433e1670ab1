"""A machine and a board on a clock of their own, whose true latencies and energies are known."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from optuna_shape import Measurement
from optuna_shape import Shape
from optuna_shape.measure.latency import CPU
from optuna_shape.measure.latency import Protocol
from optuna_shape.measure.latency import measure_latency
from optuna_shape.measure.running import Call

REFERENCE = 0.3e-3  # seconds


class SimulatedMachine:
    """A machine on its own time: noisy, with outliers, slow waves, and moods by the clock.

    Args:
        noise: Standard deviation of the logarithm of a call's time.
        memory: Correlation of the noise from call to call.
        outliers: Share of calls that take twice as long.
        mood: Factor on all times at a moment in seconds.
    """

    def __init__(
        self,
        seed: int = 0,
        noise: float = 0.03,
        memory: float = 0.4,
        outliers: float = 0.03,
        mood: Callable[[float], float] = lambda now: 1.0,
    ) -> None:
        self.now = 100.0
        self.slept = 0.0
        self._rng = random.Random(seed)
        self._noise, self._memory, self._outliers, self._mood = noise, memory, outliers, mood
        self._wave = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds

    def network(self, seconds: float) -> Call:
        def call() -> None:
            fresh = math.sqrt(1 - self._memory**2) * self._rng.gauss()
            self._wave = self._memory * self._wave + fresh
            factor = math.exp(self._noise * self._wave) * self._mood(self.now - 100)
            self.now += seconds * factor * (2 if self._rng.random() < self._outliers else 1)

        return call

    def measure(
        self,
        latencies: dict[Shape, float],
        bound: float | None = None,
        protocol: Protocol = CPU,
        prepare: Callable[[Shape], Call] | None = None,
        disturbance: Callable[[], str] = lambda: "",
    ) -> dict[Shape, Measurement]:
        return measure_latency(
            list(latencies),
            prepare or (lambda shape: self.network(latencies[shape])),
            self.network(REFERENCE),
            protocol,
            "simulated",
            bound=bound,
            disturbance=disturbance,
            clock=self.clock,
            sleep=self.sleep,
        )


IDLE, BUSY, LULL = 60.0, 350.0, 120.0  # watts
BUSY_SHARE = 0.6  # of a call; the rest is a lull


class SimulatedBoard:
    """A board whose counter adds, every 100 ms, the mean power of the last 25 of them.

    Args:
        seed: Of the moment at which everything begins.
        tick: Seconds between two ticks.
        seen: Seconds before a tick in which the power is looked at.
        sensor: Gain of the power sensor beside the counter; None if there is none.
        reading: Seconds that it takes to read the counter, while the board idles.
    """

    def __init__(
        self,
        seed: int = 0,
        tick: float = 0.1,
        seen: float = 0.025,
        sensor: float | None = 1.0,
        reading: float = 0.0,
    ) -> None:
        self.now = random.Random(seed).uniform(0, 10)
        self._tick = tick
        self._seen = seen
        self._next = math.ceil(self.now / tick) * tick
        self._seen_joules = 0.0
        self._counted = 1000.0
        self._sensor = sensor
        self._reading = reading
        self._watts = IDLE

    def call(self, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self._pass(BUSY_SHARE * seconds, BUSY)
            self._pass((1 - BUSY_SHARE) * seconds, LULL)

        return run

    def sleep(self, seconds: float) -> None:
        self._pass(seconds, IDLE)

    def clock(self) -> float:
        return self.now

    def read(self) -> tuple[float, float]:
        self._pass(self._reading, IDLE)
        return self._counted, self.now

    def watts(self) -> float | None:
        return None if self._sensor is None else self._sensor * self._watts

    def _pass(self, seconds: float, watts: float) -> None:
        end = self.now + seconds
        while self.now < end - 1e-12:
            opening = self._next - self._seen
            unseen = self.now < opening - 1e-12
            until = min(end, opening if unseen else self._next)
            self._seen_joules += 0.0 if unseen else (until - self.now) * watts
            self.now = until
            if self.now >= self._next - 1e-12:
                self._watts = self._seen_joules / self._seen
                self._counted += self._watts * self._tick
                self._seen_joules = 0.0
                self._next += self._tick


def joules(seconds: float) -> float:
    """Return the true energy of a call."""
    return seconds * (BUSY_SHARE * BUSY + (1 - BUSY_SHARE) * LULL)
