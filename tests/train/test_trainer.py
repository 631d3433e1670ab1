from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from optuna_shape import InvalidProblem
from optuna_shape import Shape
from optuna_shape.families import mlp
from optuna_shape.families import resnet
from optuna_shape.families import vit
from optuna_shape.train.data import Data
from optuna_shape.train.data import Distortion
from optuna_shape.train.recipe import Recipe
from optuna_shape.train.trainer import Teacher
from optuna_shape.train.trainer import _repeatable
from optuna_shape.train.trainer import evaluate
from optuna_shape.train.trainer import train


def stripes(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of upright (0) and level (1) stripes under noise."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 2, (count,), generator=generator)
    wave = (torch.arange(6) % 2).float().expand(count, 1, 6, 6)
    x = torch.where((y == 0).view(-1, 1, 1, 1), wave, wave.transpose(2, 3))
    return x + 0.5 * torch.randn(x.shape, generator=generator), y


DATA = Data("stripes", *stripes(101, 0), *stripes(80, 1), *stripes(80, 2), classes=2)
VARIED = dataclasses.replace(DATA, augment=Distortion(rotation=5, clutter=0.2), passes=2)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return resnet([1], [3], input_shape=(1, 6, 6), classes=2).build(Shape(1, 3))


def curve(
    model: nn.Module, data: Data, *, seed: int, epochs: int = 3, device: str = "cpu"
) -> list[float]:
    accuracies: list[float] = []
    train(
        model,
        data,
        epochs=epochs,
        seed=seed,
        device=device,
        report=lambda _, accuracy: accuracies.append(accuracy),
    )
    return accuracies


def test_a_network_learns() -> None:
    accuracy = train(network(), DATA, epochs=15, seed=0)
    assert accuracy > 0.9


def test_each_epoch_is_reported_once_as_a_fraction() -> None:
    reports: list[tuple[int, float]] = []
    model = network()
    accuracy = train(model, DATA, epochs=4, seed=0, report=lambda *report: reports.append(report))
    assert [epoch for epoch, _ in reports] == [1, 2, 3, 4]
    assert all(0 <= value <= 1 for _, value in reports)
    assert accuracy == reports[-1][1]
    assert accuracy == evaluate(model, DATA.validation_x, DATA.validation_y)


@pytest.mark.parametrize("data", [DATA, VARIED], ids=["plain", "varied"])
def test_the_seed_fixes_the_training_whatever_torch_drew_before(data: Data) -> None:
    first, again, other = network(), network(), network()
    first_curve = curve(first, data, seed=5)
    torch.manual_seed(99)
    assert curve(again, data, seed=5) == first_curve
    curve(other, data, seed=6)
    weights, same, different = (m.state_dict() for m in (first, again, other))
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert not all(torch.equal(weights[name], different[name]) for name in weights)


def test_training_leaves_torchs_own_generator_and_the_data_alone() -> None:
    model = network()
    before, images = torch.get_rng_state(), VARIED.train_x.clone()
    train(model, VARIED, epochs=1, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(VARIED.train_x, images)


def test_passes_are_more_steps_of_one_epoch() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(36, 2)
            self.sizes: list[int] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                self.sizes.append(len(x))
            out: torch.Tensor = self.layer(x.flatten(1))
            return out

    for passes in (1, 3):
        model = Counting()
        train(model, dataclasses.replace(DATA, passes=passes), epochs=2, seed=0)
        assert sum(model.sizes) == 2 * passes * 101
        assert min(model.sizes) >= 32, "no small batch is left over"
        assert max(model.sizes) <= 48


def test_the_learning_rate_rises_and_then_falls_over_all_epochs() -> None:
    rates: list[float] = []
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[-1]["lr"])
    )
    recipe = Recipe(batch_size=25, learning_rate=0.5, warmup=0.25)
    train(network(), DATA, epochs=5, seed=0, recipe=recipe)
    hook.remove()
    assert len(rates) == 5 * 4
    assert rates[:5] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert rates[5:] == pytest.approx([0.25 * (1 + math.cos(math.pi * i / 15)) for i in range(15)])


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe.usual("sgd"),
        Recipe(head="llr"),
        Recipe.usual("sgd", head="llr", label_smoothing=0.0),
        Recipe(group_decay=0.01),
    ],
    ids=str,
)
def test_every_recipe_learns(recipe: Recipe) -> None:
    assert train(network(), DATA, epochs=15, seed=0, recipe=recipe) > 0.9


def test_group_decay_empties_whole_filters_but_no_class() -> None:
    def empty(group_decay: float) -> list[int]:
        model = mlp([2], [40], input_shape=(1, 6, 6), classes=2).build(Shape(2, 40))
        recipe = Recipe(group_decay=group_decay)
        assert train(model, DATA, epochs=15, seed=0, recipe=recipe) > 0.9
        weights = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
        return [int((w == 0).all(1).sum()) for w in weights]

    torch.manual_seed(0)
    assert empty(0.0) == [0, 0, 0]
    first, second, last = empty(1.0)
    assert first > 10
    assert second > 10
    assert last == 0


def empty_rows(model: nn.Module) -> dict[str, int]:
    """How many rows of each matrix and filter are exactly zero."""
    return {
        name: int((p.flatten(1) == 0).all(dim=1).sum())
        for name, p in model.named_parameters()
        if p.ndim > 1
    }


def test_group_decay_empties_filters_of_a_convolutional_network_but_no_class() -> None:
    torch.manual_seed(0)
    model = resnet([1], [8], input_shape=(1, 6, 6), classes=2).build(Shape(1, 8))
    assert sum(empty_rows(model).values()) == 0
    train(model, DATA, epochs=5, seed=0, recipe=Recipe(group_decay=10.0))
    *filters, classes = empty_rows(model).values()
    assert len(filters) == 7
    assert min(filters) > 0
    assert classes == 0


def test_group_decay_of_a_transformer_spares_token_positions_and_classes() -> None:
    torch.manual_seed(0)
    space = vit([1], [16], input_shape=(1, 6, 6), classes=2, patch_size=3, head_size=8)
    model = space.build(Shape(1, 16))
    with torch.no_grad():
        model.class_token.normal_()  # torchvision begins with zeros.
    train(model, DATA, epochs=5, seed=0, recipe=Recipe(group_decay=10.0))
    empty = empty_rows(model)
    spared = ("class_token", "encoder.pos_embedding", "heads.head.weight")
    assert [empty.pop(name) for name in spared] == [0, 0, 0]
    assert len(empty) == 5
    assert min(empty.values()) > 0


def test_the_loss_of_short_outputs_is_taken_in_32_bits() -> None:
    """As where a GPU multiplies in bfloat16: heads and teachers see what rounding has left."""

    class Short(nn.Module):
        def __init__(self, widened: bool) -> None:
            super().__init__()
            self.layer = nn.Linear(36, 2)
            self.widened = widened

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            outputs: torch.Tensor = self.layer(x.flatten(1)).bfloat16()
            return outputs.float() if self.widened else outputs

    def trained(widened: bool) -> torch.Tensor:
        torch.manual_seed(0)
        model, teacher = Short(widened), Teacher(Short(widened))
        train(model, DATA, epochs=2, seed=0, recipe=Recipe(head="llr"), teacher=teacher)
        return model.layer.weight

    assert torch.equal(trained(widened=False), trained(widened=True))


def test_a_network_that_wants_to_know_is_told_how_much_is_done() -> None:
    class Curious(nn.Flatten):
        def set_progress(self, share: float) -> None:
            shares.append(share)

    shares: list[float] = []
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    train(model, DATA, epochs=2, seed=0)
    assert shares == []
    told = Curious()
    told.head = nn.Linear(36, 2)
    told.forward = lambda x: told.head(x.flatten(1))  # type: ignore[method-assign]
    train(told, DATA, epochs=4, seed=0)
    assert shares == [0.0, 0.25, 0.5, 0.75]


def test_fewer_images_than_a_batch_still_train() -> None:
    few = dataclasses.replace(DATA, train_x=DATA.train_x[:5], train_y=DATA.train_y[:5])
    assert 0 <= train(network(), few, epochs=1, seed=0) <= 1


def test_a_training_that_diverges_ends_as_nan_without_a_report(warnings: list[str]) -> None:
    reports: list[int] = []
    model = mlp([2], [8], input_shape=(1, 6, 6), classes=2).build(Shape(2, 8))
    accuracy = train(
        model,
        DATA,
        epochs=5,
        seed=0,
        report=lambda epoch, _: reports.append(epoch),
        recipe=Recipe(learning_rate=1e30),
    )
    assert math.isnan(accuracy)
    assert reports == []
    assert not model.training
    assert len(warnings) == 1
    # Three steps of the four in which the rate rises.
    assert "diverged in epoch 1: after learning rates up to 7.5e+29, its losses" in warnings[0]
    assert "Lower the learning rate of the recipe, 1e+30." in warnings[0]


def test_a_training_that_diverges_in_its_very_last_step_is_no_accuracy_of_chance(
    warnings: list[str],
) -> None:
    """The only loss is that of the initial weights, and finite."""
    reports: list[int] = []
    model = mlp([2], [8], input_shape=(1, 6, 6), classes=2).build(Shape(2, 8))
    accuracy = train(
        model,
        DATA,
        epochs=1,
        seed=0,
        report=lambda epoch, _: reports.append(epoch),
        recipe=Recipe(batch_size=101, learning_rate=1e30, weight_decay=0.0),
    )
    assert all(p.isfinite().all() for p in model.parameters()), "only its outputs overflow"
    assert math.isnan(accuracy)
    assert reports == []
    assert "diverged in epoch 1: after learning rates up to 1e+30" in warnings[0]
    assert 0 <= evaluate(model, DATA.validation_x, DATA.validation_y) <= 1


def test_a_training_that_converges_warns_of_nothing(warnings: list[str]) -> None:
    train(network(), DATA, epochs=2, seed=0)
    assert warnings == []


def test_what_the_report_raises_ends_the_training() -> None:
    seen: list[int] = []

    def report(epoch: int, accuracy: float) -> None:
        seen.append(epoch)
        if epoch == 2:
            raise optuna.TrialPruned

    with pytest.raises(optuna.TrialPruned):
        train(network(), DATA, epochs=5, seed=0, report=report)
    assert seen == [1, 2]


class _EverySecondPixel(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, ::2, ::2]


@pytest.mark.parametrize(
    ("channels", "layout"),
    [(4, torch.contiguous_format), (16, torch.channels_last)],
    ids=["few", "many"],
)
def test_a_stride_leaves_pixels_out_and_changes_no_gradient(
    channels: int, layout: torch.memory_format
) -> None:
    def narrowing(*layers: nn.Module) -> nn.Module:
        torch.manual_seed(0)
        first = [nn.Conv2d(1, channels, kernel_size=3, padding=1), nn.ReLU()]
        last = [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)]
        return nn.Sequential(*first, *layers, *last)

    strided = narrowing(nn.Conv2d(channels, 8, kernel_size=1, stride=2))
    sliced = narrowing(_EverySecondPixel(), nn.Conv2d(channels, 8, kernel_size=1))
    sliced.load_state_dict(dict(zip(sliced.state_dict(), strided.state_dict().values())))
    assert curve(strided, DATA, seed=0) == curve(sliced, DATA, seed=0)
    for one, other in zip(strided.parameters(), sliced.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    # Where the layout does no harm, it is the quicker one.
    kernels = next(strided.parameters())
    assert kernels.stride() == torch.empty(kernels.shape, memory_format=layout).stride()


@pytest.mark.parametrize("epochs", [0, -1])
def test_no_epoch_is_no_training(epochs: int) -> None:
    with pytest.raises(InvalidProblem, match="1 or more"):
        train(network(), DATA, epochs=epochs, seed=0)


@pytest.mark.parametrize("batch_size", [1, 7, 80, 1000])
def test_evaluation_counts_what_is_right_in_batches_of_any_size(batch_size: int) -> None:
    model = network().train()
    x, y = DATA.validation_x, DATA.validation_y
    accuracy = evaluate(model, x, y, batch_size=batch_size)
    assert not model.training
    with torch.no_grad():
        assert accuracy == (model(x).argmax(dim=1) == y).double().mean().item()


def cudnn_flags() -> tuple[bool, bool]:
    return torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark


@pytest.fixture
def fast() -> Iterator[None]:
    """A user's own settings of cuDNN, which need no GPU."""
    cudnn, before = torch.backends.cudnn, cudnn_flags()
    cudnn.deterministic, cudnn.benchmark = False, True
    yield
    cudnn.deterministic, cudnn.benchmark = before


@pytest.mark.usefixtures("fast")
def test_cudnn_is_as_it_was_after_trainings_on_a_gpu_in_whatever_order_they_end() -> None:
    first, second = _repeatable(torch.device("cuda")), _repeatable(torch.device("cuda:1"))
    first.__enter__()
    assert cudnn_flags() == (True, False)
    with contextlib.suppress(optuna.TrialPruned), second:
        first.__exit__(None, None, None)
        assert cudnn_flags() == (True, False)
        raise optuna.TrialPruned
    assert cudnn_flags() == (False, True)


@pytest.mark.usefixtures("fast")
def test_a_training_on_a_cpu_leaves_cudnn_alone() -> None:
    flags: list[tuple[bool, bool]] = []
    train(network(), DATA, epochs=1, seed=0, report=lambda *_: flags.append(cudnn_flags()))
    assert flags == [(False, True)]


@pytest.mark.gpu
@pytest.mark.usefixtures("fast")
def test_a_training_on_a_gpu_lends_cudnn() -> None:
    flags: list[tuple[bool, bool]] = []

    def report(epoch: int, _: float) -> None:
        flags.append(cudnn_flags())
        raise optuna.TrialPruned

    with pytest.raises(optuna.TrialPruned):
        train(network(), DATA, epochs=2, seed=0, device="cuda", report=report)
    assert flags == [(True, False)]
    assert cudnn_flags() == (False, True)


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", [Recipe(), Recipe.usual("sgd", head="llr")], ids=str)
def test_a_gpu_trains_too(recipe: Recipe) -> None:
    model = network()
    assert train(model, VARIED, epochs=10, seed=0, device="cuda", recipe=recipe) > 0.8
    assert {p.dtype for p in model.parameters()} == {torch.float32}, "only products are shorter"


# Two of 80 images: cuDNN repeats its results on a GPU, but other kernels may add in another order,
# which tips few images in few epochs.
FEW_IMAGES = 2 / 80


@pytest.mark.gpu
def test_images_that_do_not_fit_stay_in_main_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    held = train(network(), VARIED, epochs=3, seed=0, device="cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1, 1))
    assert train(network(), VARIED, epochs=3, seed=0, device="cuda") == pytest.approx(
        held, abs=FEW_IMAGES
    )


@pytest.mark.gpu
def test_a_training_on_a_gpu_goes_on(tmp_path: Path) -> None:
    class Ended(Exception):
        pass

    def run(seed: int, end_after: int = 4) -> tuple[nn.Module, list[float]]:
        accuracies: list[float] = []

        def report(epoch: int, accuracy: float) -> None:
            accuracies.append(accuracy)
            if epoch == end_after:
                raise Ended

        model, file = network(seed), tmp_path / "progress.safetensors"
        with pytest.raises(Ended):
            train(model, VARIED, epochs=4, seed=0, device="cuda", report=report, progress=file)
        return model, accuracies

    whole = curve(network(), VARIED, seed=0, epochs=4, device="cuda")
    before, first = run(seed=0, end_after=2)
    # It is put back to the bit, whatever the kernels do later.
    after, again = run(seed=1, end_after=2)
    assert again == first
    kept, restored = before.state_dict(), after.state_dict()
    assert all(torch.equal(tensor, restored[name]) for name, tensor in kept.items())
    _, accuracies = run(seed=1)
    assert accuracies[:2] == first
    assert accuracies == pytest.approx(whole, abs=FEW_IMAGES)


def test_gradients_may_be_adjusted_in_each_step() -> None:
    plain, same, frozen = network(), network(), network()
    calls: list[int] = []
    train(plain, DATA, epochs=2, seed=0)
    train(same, DATA, epochs=2, seed=0, adjust=lambda: calls.append(1))
    assert len(calls) == 2 * (101 // 32)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name])
    before = {name: p.detach().clone() for name, p in frozen.named_parameters()}

    def drop() -> None:
        for parameter in frozen.parameters():
            assert parameter.grad is not None
            parameter.grad.zero_()

    train(frozen, DATA, epochs=1, seed=0, adjust=drop, recipe=Recipe(weight_decay=0.0))
    for name, parameter in frozen.named_parameters():
        assert torch.equal(parameter, before[name])
