from __future__ import annotations

import pytest
import torch
from torch import nn

from optuna_shape import BuildFailed
from optuna_shape import InvalidSpace
from optuna_shape import Shape
from optuna_shape.families import resnet


def build(depth: int, width: int, **options: object) -> nn.Module:
    return resnet([depth], [width], **options).build(Shape(depth, width))  # type: ignore[arg-type]


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("depth", "count"), [(3, 269_722), (5, 464_154), (7, 658_586), (9, 853_018)]
)
def test_plain_networks_have_the_published_parameters(depth: int, count: int) -> None:
    with torch.device("meta"):
        assert parameters(build(depth, 16)) == count


@pytest.mark.parametrize(
    ("layers", "factor", "count"),
    [
        (40, 2, 2_243_546),
        (16, 4, 2_748_890),
        (40, 4, 8_949_210),
        (16, 8, 10_961_370),  # As 16-4 and 16-10 imply: quadratic in the factor.
        (22, 8, 17_158_106),
        (16, 10, 17_116_634),
        (28, 10, 36_479_194),
    ],
)
def test_wide_networks_have_the_published_parameters(layers: int, factor: int, count: int) -> None:
    with torch.device("meta"):
        model = build((layers - 4) // 6, 16 * factor, variant="wide")
    assert parameters(model) == count


@pytest.mark.parametrize("variant", ["plain", "wide"])
@pytest.mark.parametrize("input_shape", [(1, 4, 4), (3, 5, 9), (2, 12, 7), (3, 32, 32)])
@pytest.mark.parametrize("width", [1, 3, 20])
def test_any_image_gives_one_score_per_class(
    variant: str, input_shape: tuple[int, int, int], width: int
) -> None:
    model = build(2, width, input_shape=input_shape, classes=7, variant=variant)
    x = torch.randn(3, *input_shape)
    assert model(x).shape == (3, 7)
    assert model.eval()(x).isfinite().all()


@pytest.mark.parametrize("variant", ["plain", "wide"])
def test_a_network_on_meta_has_the_sizes_of_a_real_one(variant: str) -> None:
    with torch.device("meta"):
        meta = build(2, 6, variant=variant)
    real = build(2, 6, variant=variant).state_dict()
    assert {name: t.shape for name, t in meta.state_dict().items()} == {
        name: t.shape for name, t in real.items()
    }
    assert all(p.device.type == "meta" for p in meta.parameters())


@pytest.mark.parametrize("variant", ["plain", "wide"])
def test_every_parameter_receives_a_gradient(variant: str) -> None:
    model = build(2, 4, input_shape=(1, 8, 8), variant=variant)
    torch.autograd.backward(model(torch.randn(8, 1, 8, 8)).square().sum())
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_a_shortcut_takes_every_second_pixel_and_centres_the_channels() -> None:
    model = build(1, 2, input_shape=(1, 8, 8)).eval()
    assert isinstance(model, nn.Sequential)
    block = model[4]  # The first of the second stage: 2 to 4 channels.
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.rand(1, 2, 8, 8)
    y = block(x)
    assert torch.equal(y[:, 1:3], x[:, :, ::2, ::2])
    assert not y[:, [0, 3]].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (3, 3, 8)}, "height and width of 4 or more"),
        ({"input_shape": (8, 8)}, "no image"),
        ({"input_shape": (0, 8, 8)}, "positive integers"),
        ({"input_shape": (3, 8.0, 8)}, "positive integers"),
        ({"classes": 1}, "2 or more"),
        ({"classes": True}, "2 or more"),
        ({"variant": "tall"}, "'plain', 'wide'"),
    ],
)
def test_what_makes_no_network_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidSpace, match=message):
        resnet([1], [4], **options)  # type: ignore[arg-type]


def test_the_space_knows_its_input() -> None:
    space = resnet(depth=range(1, 4), width=[8, 16], input_shape=[1, 12, 12], name="digits nets")
    assert space.input_shape == (1, 12, 12)
    assert space.name == "digits nets"
    assert len(space) == 6
    with pytest.raises(BuildFailed):
        space.build((0, 8))  # type: ignore[arg-type]
