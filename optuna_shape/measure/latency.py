"""Latency as the host sees it: one call of the network, until the device is done.

Calls that follow each other are no independent readings (clocks, caches and neighbours change
slowly), so they are taken in short blocks, and the blocks of all networks at hand are taken in
rounds of random order. A small network of our own is timed in every round: its pace tells
a machine that drifts, and one too busy to be measured on. Measuring a network ends as soon as the
sequential test of :mod:`optuna_shape.measure.sequential` knows the side of the bound.

What the test cannot know is how much slower or faster the same network is in another process or
an hour later. :func:`measure_latency` speaks of its own session only; :func:`settle` makes of that
what holds for the machine, by a guard taken from re-measurements (A/A), and by a second session
for the networks that are within the bound by less.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace

import numpy as np

from optuna_shape.errors import NoisyMachine
from optuna_shape.measure.board import slowed_down
from optuna_shape.measure.measurement import Measurement
from optuna_shape.measure.running import Call
from optuna_shape.measure.running import impossible
from optuna_shape.measure.running import out_of_memory
from optuna_shape.measure.sequential import confidence_sequence
from optuna_shape.measure.sequential import fewest
from optuna_shape.space import Shape

Clock = Callable[[], float]
Sleep = Callable[[float], None]
#: Runs a call once and says how many seconds it took.
Stopwatch = Callable[[Call], float]

_MIN_CALLS = 3  # per block: a median needs them
_LONG = 4  # blocks; a call that takes longer is a block by itself, and fills its caches anew
_WARM_UP_CALLS = 5
_MOST_PRIMING = 10  # times three calls
_NO_FASTER = 0.99  # of the three calls before
_PACES = 15  # blocks of the reference that say what is usual
_PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0)  # seconds before the attempts to find the machine quiet
_MAX_REDONE = 10  # rounds more than were kept


@dataclass(frozen=True)
class Protocol:
    """How latency is measured; the defaults are those of a CPU.

    Attributes:
        quantile: Of the latency of a call. Of the median, one sample is the median of a block.
            Of a tail, it is a single call, one per round, since calls that follow each other are
            not independent; and rounds in a slow spell count, being what tails are made of.
        alpha: Probability of error of each bound, without the guard.
        guard: Relative difference between sessions that has to be allowed for. Without a bound
            to decide on, measuring ends when the samples leave less doubt than that.
        block: Least seconds of a block.
        warm_up: Least seconds for which a network is called before it is timed.
        wake: Seconds for which the device is kept busy before the first round.
        noise: Largest robust coefficient of variation of the reference's pace.
        drift: A round counts if the reference is within this share of its usual pace.
        blocks: Most blocks per network, for a median and an ``alpha`` of 1 %.
        residents: Most networks in memory together.
    """

    quantile: float = 0.5
    alpha: float = 0.01
    guard: float = 0.05
    block: float = 5e-3
    warm_up: float = 20e-3
    wake: float = 0.0
    noise: float = 0.1
    drift: float = 0.15
    blocks: int = 60
    residents: int = 16

    @property
    def max_samples(self) -> int:
        """Most samples per network; a tail, or more certainty, needs more of them."""
        # Nine is the fewest that decide on a median with an alpha of 1 %.
        return max(self.blocks, self.blocks * fewest(self.quantile, self.alpha) // 9)


CPU = Protocol()
CUDA = Protocol(guard=0.02, block=10e-3, warm_up=50e-3, wake=1.0, drift=0.05)


@dataclass
class _Candidate:
    call: Call
    calls_per_block: int
    primed: bool = True
    samples: list[float] = field(default_factory=list)


def measure_latency(
    shapes: Sequence[Shape],
    prepare: Callable[[Shape], Call],
    reference: Call,
    protocol: Protocol,
    fingerprint: str,
    *,
    bound: float | None = None,
    seed: int = 0,
    disturbance: Callable[[], str] = lambda: "",
    stopwatch: Stopwatch | None = None,
    clock: Clock = time.perf_counter,
    sleep: Sleep = time.sleep,
) -> dict[Shape, Measurement]:
    """Measure the latency of one call of each network, in seconds, in this session.

    Args:
        shapes: What to measure.
        prepare: Returns what runs the network of a shape once, synchronised.
        reference: Runs the reference network once, synchronised.
        protocol: How to measure.
        fingerprint: Of the measurements.
        bound: In seconds. A network is measured until its interval lies on one side, and, where
            that takes no more than the most samples, until the side is clear of the guard too or
            never will be. :obj:`None`: until the interval is as narrow as the protocol asks.
        seed: Of the order in the rounds.
        disturbance: Says what slows the device down at present, if anything; rounds in which
            something did are taken again.
        stopwatch: Times a call; by default by the clock.
        clock: Tells seconds.
        sleep: Waits seconds.

    Returns:
        One measurement per shape, its interval that of this session; *impossible* for networks
        that ran out of memory by themselves or raised.

    Raises:
        NoisyMachine: The reference network varies too much, or the device is being slowed down.
    """
    if stopwatch is None:
        stopwatch = by_clock(clock)
    session = _Session(
        protocol, reference, random.Random(seed), disturbance, stopwatch, clock, sleep
    )
    results: dict[Shape, Measurement] = {}
    waiting = deque(dict.fromkeys(shapes))
    crowded: deque[Shape] = deque()  # out of memory, but not alone
    while waiting or crowded:
        residents: dict[Shape, _Candidate] = {}
        most = protocol.residents if waiting else 1
        waiting = waiting or deque([crowded.popleft()])
        while waiting and len(residents) < most:
            try:
                residents[waiting[0]] = session.warm_up(prepare(waiting[0]))
            except Exception as error:
                if residents and out_of_memory(error):
                    break  # It may fit once the others have left.
                results[waiting[0]] = impossible(error, fingerprint)
            waiting.popleft()
        if residents:
            results |= session.measure(residents, bound, fingerprint, crowded)
    return {shape: results[shape] for shape in shapes}


def by_clock(clock: Clock) -> Stopwatch:
    """Return a stopwatch that times what the host sees."""

    def stopwatch(call: Call) -> float:
        start = clock()
        call()
        return clock() - start

    return stopwatch


class _Session:
    """One machine, its pace, and a clock."""

    def __init__(
        self,
        protocol: Protocol,
        reference: Call,
        rng: random.Random,
        disturbance: Callable[[], str],
        stopwatch: Stopwatch,
        clock: Clock,
        sleep: Sleep,
    ) -> None:
        self.protocol = protocol
        self.rng = rng
        self.disturbance = disturbance
        self.stopwatch = stopwatch
        self.clock = clock
        self.sleep = sleep
        # Its pace is the mean of a block, whatever quantile of the others is asked for.
        self.reference = self.warm_up(reference, quantile=0.5)
        self.paces: deque[float] = deque(maxlen=_PACES)

    def warm_up(self, call: Call, quantile: float | None = None) -> _Candidate:
        """Call a network until it runs as it always will, and see how many calls make a block."""
        times: list[float] = []
        while len(times) < _WARM_UP_CALLS or sum(times) < self.protocol.warm_up:
            times.append(self.stopwatch(call))
        # The first half may still be loading libraries and choosing kernels.
        usual = statistics.median(times[len(times) // 2 :])
        if usual > _LONG * self.protocol.block:
            return _Candidate(call, calls_per_block=1, primed=False)
        if (quantile or self.protocol.quantile) != 0.5:
            return _Candidate(call, calls_per_block=1)
        return _Candidate(call, max(_MIN_CALLS, math.ceil(self.protocol.block / usual)))

    def measure(
        self,
        residents: dict[Shape, _Candidate],
        bound: float | None,
        fingerprint: str,
        crowded: deque[Shape],
    ) -> dict[Shape, Measurement]:
        """Time networks in rounds; each leaves memory and ``residents`` when it is decided.

        Those that run out of memory beside others leave for ``crowded``.
        """
        results: dict[Shape, Measurement] = {}
        kept = redone = 0
        slowed = ""
        self._settle()
        while residents:
            times, failures = self._round(residents)
            alone = len(residents) == 1
            for shape, error in failures.items():
                if out_of_memory(error) and not alone:
                    crowded.append(shape)
                else:
                    results[shape] = impossible(error, fingerprint)
                del residents[shape]
            slowed = self.disturbance()
            if slowed or not self._is_steady():
                redone += 1
                if redone > kept + _MAX_REDONE:
                    raise slowed_down(slowed) if slowed else self._too_noisy()
                continue
            kept += 1
            for shape, block in times.items():
                samples = residents[shape].samples
                samples.extend(block)
                if is_decided(samples, bound, self.protocol):
                    results[shape] = summarise(samples, self.protocol, fingerprint)
                    del residents[shape]
        return results

    def _settle(self) -> None:
        """Wake the device, and wait until the reference network runs evenly."""
        for pause in _PAUSES:
            self.sleep(pause)
            woken = self.clock() + self.protocol.wake
            while self.clock() < woken:
                self.stopwatch(self.reference.call)
            with _no_garbage_collection():
                self.paces.extend(self._pace() for _ in range(_PACES))
            if self._variation() <= self.protocol.noise:
                return
        raise self._too_noisy()

    def _round(
        self, residents: dict[Shape, _Candidate]
    ) -> tuple[dict[Shape, list[float]], dict[Shape, Exception]]:
        """Take a block of every network and of the reference, in random order."""
        times: dict[Shape, list[float]] = {}
        failures: dict[Shape, Exception] = {}
        order = [*residents, None]
        self.rng.shuffle(order)
        with _no_garbage_collection():
            for shape in order:
                if shape is None:
                    self.paces.append(self._pace())
                    continue
                try:
                    times[shape] = self._block(residents[shape])
                except Exception as error:
                    failures[shape] = error
        if self.protocol.quantile == 0.5:
            times = {shape: [statistics.median(block)] for shape, block in times.items()}
        return times, failures

    def _block(self, candidate: _Candidate) -> list[float]:
        if candidate.primed:
            self._prime(candidate.call)
        return [self.stopwatch(candidate.call) for _ in range(candidate.calls_per_block)]

    def _prime(self, call: Call) -> None:
        """Call a network until it gets no faster.

        What ran before has emptied its caches, and filling them again takes many calls: a deep,
        narrow network after a wide one was 35 % slower in its first call here, 10 % in its third,
        4 % in its sixth and 1 % in its tenth. How much would depend on the company that it is
        measured in. The fastest of three calls tells, since single ones scatter.
        """
        fastest = math.inf
        for _ in range(_MOST_PRIMING):
            before, fastest = fastest, min(self.stopwatch(call) for _ in range(_MIN_CALLS))
            if fastest > _NO_FASTER * before:
                break

    def _pace(self) -> float:
        # The mean: a median of short calls does not see that others take turns on the processor.
        return statistics.fmean(self._block(self.reference))

    def _is_steady(self) -> bool:
        """Return whether the machine is what it was in the rounds before the last one."""
        if self.protocol.quantile != 0.5:  # Leaving slow rounds out would cut the tail off.
            return self._variation() <= self.protocol.noise
        drift = abs(self.paces[-1] / statistics.median(self.paces) - 1)
        return drift <= self.protocol.drift and self._variation() <= self.protocol.noise

    def _variation(self) -> float:
        """Return the robust coefficient of variation of the reference's pace."""
        usual = statistics.median(self.paces)
        return 1.4826 * statistics.median(abs(pace - usual) for pace in self.paces) / usual

    def _too_noisy(self) -> NoisyMachine:
        return NoisyMachine(
            f"The pace of the reference network varies by {self._variation():.0%} (robust "
            f"coefficient of variation of {len(self.paces)} blocks) and is off by more than "
            f"{self.protocol.drift:.0%} too often; up to {self.protocol.noise:.0%} latencies mean "
            "something. End what else runs on this machine, or measure with fewer threads "
            "(DeviceMeter(threads=1)), and start again. DeviceMeter(max_noise=...) accepts more."
        )


def is_decided(samples: Sequence[float], bound: float | None, protocol: Protocol) -> bool:
    """Return whether more samples of a network would be of no use."""
    if len(samples) >= protocol.max_samples:
        return True
    low, high = confidence_sequence(samples, protocol.quantile, protocol.alpha)
    if bound is None:
        return high - low <= 2 * protocol.guard * low
    margin = 1 + protocol.guard
    within = high * margin <= bound
    over = low > bound * margin
    # On one side, but surely nearer to the bound than the guard: no more can be known here.
    close = (high <= bound < low * margin) or (high / margin <= bound < low)
    return within or over or close


def summarise(samples: Sequence[float], protocol: Protocol, fingerprint: str) -> Measurement:
    """Return the quantile of the samples and its interval, as far as this session can tell."""
    low, high = confidence_sequence(samples, protocol.quantile, protocol.alpha)
    value = float(np.quantile(samples, protocol.quantile))
    return Measurement(value, low, high, len(samples), fingerprint)


def settle(
    session: Mapping[Shape, Measurement],
    guard: float,
    bound: float | None,
    again: Callable[[list[Shape]], Mapping[Shape, Measurement]],
) -> dict[Shape, Measurement]:
    """Make the measurements of one session hold beyond it.

    Intervals are widened by the guard. Networks within the bound by less than the guard would
    thereby lose it, and are measured in a second session instead: their interval then is the one
    that holds those of both.

    Args:
        session: What :func:`measure_latency` returned.
        guard: Relative difference between sessions to allow for.
        bound: In seconds, or None.
        again: Measures some networks in another session; those that it cannot are left out.
    """

    def is_close(measurement: Measurement) -> bool:
        return bound is not None and measurement.high <= bound < measurement.high * (1 + guard)

    close = [shape for shape, measurement in session.items() if is_close(measurement)]
    second = again(close) if close else {}
    return {
        shape: _united(measurement, second[shape])
        if shape in second
        else replace(
            measurement, low=measurement.low / (1 + guard), high=measurement.high * (1 + guard)
        )
        for shape, measurement in session.items()
    }


def _united(first: Measurement, second: Measurement) -> Measurement:
    return replace(
        first,
        value=(first.value + second.value) / 2,
        low=min(first.low, second.low),
        high=max(first.high, second.high),
        samples=first.samples + second.samples,
        note=second.note or "measured in two processes",
    )


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
