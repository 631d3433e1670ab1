"""Whether two networks that should be the same are: by their outputs, and by their latency."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from optuna_shape.measure.running import Call
from optuna_shape.measure.running import settle_heap
from optuna_shape.measure.sequential import confidence_sequence
from optuna_shape.measure.sequential import fewest

Network = Callable[[torch.Tensor], torch.Tensor]

#: Largest difference that is rounding: float32 added up in another order, as a share of the
#: largest output.
TOLERANCE = 1e-4

_ALPHA = 0.01
_BLOCK = 10e-3  # seconds
_MIN_CALLS = 3  # per block, and before it, as the other network has filled the caches
_NARROW = 0.02  # of the ratio, to either side
_MOST_ROUNDS = 60
_LONGEST = 20.0  # seconds


def differences(
    network: Network, other: Network, batches: Iterable[torch.Tensor]
) -> dict[int, float]:
    """Compare outputs.

    Args:
        network: What is right.
        other: What should do the same.
        batches: Inputs ``(batch, ...)``, of different batch sizes.

    Returns:
        For each batch size the largest difference, as a share of the largest output; infinite
        where outputs are of another shape or type, or not finite.
    """
    result: dict[int, float] = {}
    with torch.inference_mode():
        for batch in batches:
            right, found = network(batch), other(batch)
            if (right.shape, right.dtype) != (found.shape, found.dtype):
                result[len(batch)] = math.inf
                continue
            scale = float(right.abs().max())
            difference = float((right - found).abs().max())
            share = difference / scale if scale else difference
            result[len(batch)] = share if math.isfinite(share) else math.inf
    return result


@dataclass(frozen=True)
class LatencyRatio:
    """How many times the latency of one network that of another is, on the same batch.

    Attributes:
        value: Median over rounds of ``other / network``.
        low: Lower end of its interval; either end is wrong with a probability of 1 %.
        high: Upper end.
        network: Median latency of the one, in seconds per call.
        other: Median latency of the other.
    """

    value: float
    low: float
    high: float
    network: float
    other: float


def latency_ratio(
    network: Network, other: Network, batch: torch.Tensor, *, seed: int = 0
) -> LatencyRatio:
    """Measure two networks against each other, in blocks of calls that take turns.

    What slows the machine down for longer than a round slows both, so a ratio can be had where
    latencies themselves mean little. It takes 20 seconds or a little more at most, or nine rounds
    where these take longer.

    Args:
        network: What the other is compared with.
        other: The other.
        batch: What both are called with, on the device of both.
        seed: Of the order in the rounds.
    """
    if batch.device.type == "cpu":
        settle_heap()
    rng = random.Random(seed)
    calls = [_call(run, batch) for run in (network, other)]
    counts = [_calls_per_block(call) for call in calls]
    times: tuple[list[float], list[float]] = ([], [])
    ratios: list[float] = []
    end = time.perf_counter() + _LONGEST
    while True:
        for i in rng.sample(range(2), k=2):
            _block(calls[i], _MIN_CALLS)
            times[i].append(_block(calls[i], counts[i]))
        ratios.append(times[1][-1] / times[0][-1])
        low, high = confidence_sequence(ratios, alpha=_ALPHA)
        late = len(ratios) >= fewest(0.5, _ALPHA) and time.perf_counter() > end
        if high - low <= 2 * _NARROW * low or len(ratios) >= _MOST_ROUNDS or late:
            return LatencyRatio(
                statistics.median(ratios), low, high, *map(statistics.median, times)
            )


def _call(run: Network, batch: torch.Tensor) -> Call:
    """Return what runs a network once, until the device is done."""

    def call() -> None:
        with torch.inference_mode():
            run(batch)
        if batch.device.type == "cuda":
            torch.cuda.synchronize(batch.device)

    return call


def _calls_per_block(call: Call) -> int:
    _block(call, _MIN_CALLS)  # The first calls load libraries and choose kernels.
    return max(_MIN_CALLS, math.ceil(_BLOCK / _block(call, _MIN_CALLS)))


def _block(call: Call, count: int) -> float:
    """Return the seconds of a call, on average over so many."""
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count
