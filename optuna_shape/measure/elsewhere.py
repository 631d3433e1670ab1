"""Measuring in another process: what one session cannot know of itself.

How fast a network runs depends on where its tensors and its code came to lie, and stays so for
the life of a process. Measuring the same network in several processes (A/A) shows how much.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import ParamSpec
from typing import TypeVar

from loky import ProcessPoolExecutor
from loky import get_reusable_executor

from optuna_shape.measure.measurement import Measurement
from optuna_shape.measure.measurement import Meter
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape

_P = ParamSpec("_P")
_T = TypeVar("_T")

_IDLE = 30  # seconds after which the second process ends


def in_second_process(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function in a process that is kept for a while: starting one takes seconds.

    Raises:
        Whatever the function raises, or what keeps it and its arguments from being sent.
    """
    process = get_reusable_executor(max_workers=1, timeout=_IDLE)
    result: _T = process.submit(function, *args, **kwargs).result()
    return result


def measure_elsewhere(
    meter: Meter,
    space: DesignSpace,
    shapes: Sequence[Shape],
    quantity: str,
    bound: float | None = None,
) -> Mapping[Shape, Measurement]:
    """Do what ``meter.measure`` does, in a process of its own that ends afterwards.

    Raises:
        Whatever the meter raises.
    """
    with ProcessPoolExecutor(max_workers=1) as process:
        result: Mapping[Shape, Measurement]
        result = process.submit(meter.measure, space, shapes, quantity, bound).result()
    return result
