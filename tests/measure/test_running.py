from __future__ import annotations

import pytest
import torch
from torch import nn

from optuna_shape.errors import BuildFailed
from optuna_shape.errors import MeasurementUnavailable
from optuna_shape.measure.running import Setting
from optuna_shape.measure.running import impossible
from optuna_shape.measure.running import out_of_memory
from optuna_shape.measure.running import set_switches
from optuna_shape.measure.running import switches
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape

CPU = torch.device("cpu")
ANY = Shape(1, 1)


class Spy(nn.Module):
    """Keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.given: list[torch.Tensor] = []
        self.grad: list[bool] = []

    def forward(self, x: torch.Tensor) -> object:
        self.given.append(x)
        self.grad.append(torch.is_grad_enabled())
        return self.convolution(x)


def _spied(setting: Setting, calls: int = 1) -> Spy:
    spy = Spy()
    call = setting.prepare(DesignSpace([1], [1], lambda shape: spy, input_shape=(3, 8, 6)), ANY)
    for _ in range(calls):
        call()
    return spy


def test_networks_run_as_deployed() -> None:
    spy = _spied(Setting(CPU, batch_size=5), calls=2)
    assert not spy.training
    assert spy.grad == [False, False]
    first, second = spy.given
    assert first is second
    assert first.shape == (5, 3, 8, 6)
    assert first.dtype == torch.float32
    assert first.is_contiguous()
    assert 0.5 < float(first.std()) < 2


def test_settings_reach_weights_and_inputs() -> None:
    spy = _spied(Setting(CPU, batch_size=2, dtype=torch.bfloat16, channels_last=True))
    for tensor in (spy.given[0], spy.convolution.weight):
        assert tensor.dtype == torch.bfloat16
        assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_same_seed_same_weights_whatever_was_drawn_before() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.rand(1)
        built: list[nn.Module] = []

        def build(shape: Shape) -> nn.Module:
            built.append(nn.Linear(4, 4))
            return built[0]

        Setting(CPU, seed=seed).prepare(DesignSpace([1], [1], build, input_shape=(4,)), ANY)()
        return next(built[0].parameters())

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_the_random_state_stays_as_it_was() -> None:
    space = DesignSpace([1], [1], lambda shape: nn.Linear(4, 4), input_shape=(4,))
    before = torch.get_rng_state()
    Setting(CPU, seed=7).prepare(space, ANY)()
    Setting(CPU).reference()()
    assert torch.equal(torch.get_rng_state(), before)


def test_an_unknown_input_says_what_to_do() -> None:
    space = DesignSpace([1], [1], lambda shape: nn.Linear(2, 2))
    with pytest.raises(MeasurementUnavailable, match="input_shape="):
        Setting(CPU).prepare(space, ANY)


def test_channels_last_is_for_images() -> None:
    space = DesignSpace([1], [1], lambda shape: nn.Linear(2, 2), input_shape=(2,))
    with pytest.raises(MeasurementUnavailable, match="channels_last"):
        Setting(CPU, channels_last=True).prepare(space, ANY)


@pytest.mark.slow
def test_every_network_is_compiled_however_many_there_are() -> None:
    import torch._dynamo
    from torch._dynamo.utils import counters

    space = DesignSpace(
        [1],
        range(1, 12),
        lambda shape: nn.Sequential(nn.Linear(4, shape.width), nn.ReLU()),
        input_shape=(4,),
    )
    torch._dynamo.reset()
    counters.clear()
    for shape in space.shapes:
        Setting(CPU, compile=True).prepare(space, shape)()
    assert counters["stats"]["unique_graphs"] == len(space.shapes)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_memory_errors_are_known_by_what_they_say(error: Exception) -> None:
    assert out_of_memory(error)
    build_failed = BuildFailed("build((1, 1)) raised")
    build_failed.__cause__ = error
    assert out_of_memory(build_failed)


def test_the_allocator_of_this_machine_is_known_by_what_it_says() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert out_of_memory(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError(), BuildFailed()])
def test_other_errors_are_no_memory_errors(error: Exception) -> None:
    assert not out_of_memory(error)


@pytest.mark.parametrize("error", [BuildFailed("broken"), MeasurementUnavailable("no input")])
def test_errors_that_are_not_of_the_network_pass(error: Exception) -> None:
    with pytest.raises(type(error)):
        impossible(error, "f")


def test_a_network_that_cannot_run_is_over_every_bound() -> None:
    measurement = impossible(ValueError("odd"), "f")
    assert measurement.low == float("inf")
    assert measurement.samples == 0
    assert measurement.note == "does not run: ValueError: odd"


def test_what_decides_on_kernels_is_told_and_set() -> None:
    assert switches() == {}
    torch.backends.cudnn.benchmark = True
    torch.use_deterministic_algorithms(True)
    try:
        told = switches()
        assert told == {"cudnn benchmark": True, "deterministic": True}
        set_switches({})
        assert switches() == {}
        set_switches(told)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        set_switches({})
