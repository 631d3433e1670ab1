"""Exact counts of a network: parameters, bytes of its weights, operations of one forward pass."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils.flop_counter import FlopCounterMode

from optuna_shape.errors import BuildFailed
from optuna_shape.errors import MeasurementUnavailable
from optuna_shape.measure.measurement import Measurement
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape

#: Quantities that follow from the network alone; no device takes part.
COUNTED = ("size", "parameters", "flops")

# All three come of one network, and are asked for one after the other.
_counted: WeakKeyDictionary[DesignSpace, dict[Shape, Counts]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Counts:
    """What can be counted of a network without a clock.

    Attributes:
        parameters: Number of weights; tied ones count once.
        size_bytes: Bytes of all that a checkpoint holds, parameters and persistent buffers, each
            in the type that ``build`` gives it; tied ones count once.
        flops: Floating point operations of one forward pass of one input in eval mode, two for a
            multiply-add, as PyTorch's own counter has them (matrix products, convolutions and
            attention; operations element by element count nothing). :obj:`None` where the space
            states no ``input_shape`` or the network does not run on such an input.
    """

    parameters: int
    size_bytes: int
    flops: int | None


def count(space: DesignSpace, shape: Shape) -> Counts:
    """Count the network of one shape.

    It is built on the meta device: no memory, no arithmetic, the same numbers. A network that
    asks for values while it is built or run (``.item()``) is counted on the CPU instead.

    Raises:
        BuildFailed: ``build(shape)`` raised on the CPU too.
        MeasurementUnavailable: Weights of the network take their size from the first input
            (``nn.Lazy...``), and there is none to give.

    Example:
        >>> from optuna_shape.families import mlp
        >>> count(mlp([1], [32], input_shape=(64,)), Shape(1, 32))
        Counts(parameters=2410, size_bytes=9640, flops=4736)
    """
    known = _counted.setdefault(space, {})
    if shape in known:
        return known[shape]
    with preserved_randomness():
        counts = _count_on(torch.device("meta"), space, shape)
        # Without FLOPs, either the space has no input or the meta device was the trouble.
        if counts is None or (counts.flops is None and space.input_shape is not None):
            counts = _count_on(torch.device("cpu"), space, shape)
    if counts is None:
        raise MeasurementUnavailable(
            f"The weights of shape {shape} have no size before the first input. "
            "State it by DesignSpace(..., input_shape=(3, 32, 32)), or build without lazy modules."
        )
    known[shape] = counts
    return counts


def measure_count(
    space: DesignSpace, shape: Shape, quantity: str, fingerprint: str
) -> Measurement:
    """Count one of :data:`COUNTED`, as an exact measurement.

    A shape that cannot be built, or not run where FLOPs are asked for, is measured as impossible.

    Raises:
        MeasurementUnavailable: FLOPs without an ``input_shape``.
    """
    try:
        counts = count(space, shape)
    except BuildFailed as error:
        return Measurement.impossible(fingerprint, str(error))
    values = {"size": counts.size_bytes, "parameters": counts.parameters, "flops": counts.flops}
    value = values[quantity]
    if value is not None:
        return Measurement.exact(float(value), fingerprint)
    if space.input_shape is None:
        raise MeasurementUnavailable(
            f"{quantity} cannot be counted without the shape of an input. "
            "State it by DesignSpace(..., input_shape=(3, 32, 32))."
        )
    note = f"does not run on an input of shape {space.input_shape}"
    return Measurement.impossible(fingerprint, note)


@contextmanager
def preserved_randomness() -> Iterator[None]:
    """Leave the global random states of torch, numpy and Python as they were found."""
    python = random.getstate()
    array = np.random.get_state()  # noqa: NPY002
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if started else ()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(array)  # noqa: NPY002


def _count_on(device: torch.device, space: DesignSpace, shape: Shape) -> Counts | None:
    """Count on one device; :obj:`None` if nothing could be counted there."""
    try:
        with device:
            network = space.build(shape).to(device).eval()
    except BuildFailed:
        if device.type == "meta":
            return None
        raise
    # Operations first: they give lazy weights their size.
    flops = None if space.input_shape is None else _flops(network, space.input_shape, device)
    # By identity: a tied weight is one object under two names.
    stored = {
        id(value): value
        for value in network.state_dict(keep_vars=True).values()
        if isinstance(value, torch.Tensor)
    }.values()
    parameters = list(network.parameters())
    if any(is_lazy(value) for value in (*stored, *parameters)):
        return None
    return Counts(
        parameters=sum(value.numel() for value in parameters),
        size_bytes=sum(value.numel() * value.element_size() for value in stored),
        flops=flops,
    )


def _flops(network: nn.Module, input_shape: tuple[int, ...], device: torch.device) -> int | None:
    # The device is a context too: a forward pass may make tensors of its own.
    try:
        with device, torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.randn(1, *input_shape))
    except Exception:
        return None
    return int(counter.get_total_flops())
