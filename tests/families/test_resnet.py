from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock
from torchvision.models.resnet import Bottleneck

from optuna_shape import BuildFailed
from optuna_shape import InvalidSpace
from optuna_shape import Shape
from optuna_shape.families import resnet


def build(depth: int, width: int, **options: object) -> nn.Module:
    return resnet([depth], [width], **options).build(Shape(depth, width))  # type: ignore[arg-type]


OPTIONS = [
    {"variant": "plain"},
    {"variant": "bottleneck"},
    {"variant": "wide"},
    {"variant": "plain", "stem": "imagenet"},
    {"variant": "bottleneck", "stem": "imagenet"},
]


def sizes(model: nn.Module) -> list[torch.Size]:
    return [value.shape for value in model.state_dict().values()]


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


def test_resnet_164_has_the_published_parameters_as_rounded() -> None:
    with torch.device("meta"):
        assert round(parameters(build(18, 16, variant="bottleneck")) / 1e6, 1) == 1.7


@pytest.mark.parametrize(("variant", "block"), [("plain", BasicBlock), ("bottleneck", Bottleneck)])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_with_the_imagenet_stem_weights_are_those_of_torchvision(
    variant: str, block: type[nn.Module], depth: int
) -> None:
    shape = (3, 224, 224)
    with torch.device("meta"):
        ours = build(depth, 64, input_shape=shape, classes=1000, variant=variant, stem="imagenet")
        theirs = torchvision.models.ResNet(block, [depth] * 4)
    assert sizes(ours) == sizes(theirs)


@pytest.mark.parametrize(
    ("variant", "count"),
    [("plain", 11_689_512), ("bottleneck", 15_995_176)],  # ResNet-18 of torchvision, 26 of timm
)
def test_resnet_18_and_26_have_the_published_parameters(variant: str, count: int) -> None:
    with torch.device("meta"):
        model = build(
            2, 64, input_shape=(3, 224, 224), classes=1000, variant=variant, stem="imagenet"
        )
    assert parameters(model) == count


@pytest.mark.parametrize("variant", ["plain", "bottleneck"])
def test_with_the_imagenet_stem_outputs_are_those_of_torchvision(variant: str) -> None:
    block = BasicBlock if variant == "plain" else Bottleneck
    ours = build(1, 64, input_shape=(3, 40, 32), variant=variant, stem="imagenet").eval()
    theirs = torchvision.models.ResNet(block, [1] * 4, num_classes=10).eval()
    # Both hold their weights in the order of the forward pass, shortcuts last.
    weights = zip(theirs.state_dict(), ours.state_dict().values(), strict=True)
    theirs.load_state_dict(dict(weights))
    x = torch.randn(2, 3, 40, 32)
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)


@pytest.mark.parametrize("variant", ["plain", "bottleneck", "wide"])
@pytest.mark.parametrize("input_shape", [(1, 4, 4), (3, 5, 9), (2, 12, 7), (3, 32, 32)])
@pytest.mark.parametrize("width", [1, 3, 20])
def test_any_image_gives_one_score_per_class(
    variant: str, input_shape: tuple[int, int, int], width: int
) -> None:
    model = build(2, width, input_shape=input_shape, classes=7, variant=variant)
    x = torch.randn(3, *input_shape)
    assert model(x).shape == (3, 7)
    assert model.eval()(x).isfinite().all()


@pytest.mark.parametrize("variant", ["plain", "bottleneck"])
@pytest.mark.parametrize("input_shape", [(1, 32, 32), (3, 37, 64)])
@pytest.mark.parametrize("width", [1, 6])
def test_the_imagenet_stem_takes_any_larger_image(
    variant: str, input_shape: tuple[int, int, int], width: int
) -> None:
    model = build(2, width, input_shape=input_shape, classes=7, variant=variant, stem="imagenet")
    x = torch.randn(3, *input_shape)
    assert model(x).shape == (3, 7)
    assert model.eval()(x).isfinite().all()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_network_on_meta_has_the_sizes_of_a_real_one(options: dict[str, str]) -> None:
    with torch.device("meta"):
        meta = build(2, 6, **options)
    assert sizes(meta) == sizes(build(2, 6, **options))
    assert all(p.device.type == "meta" for p in meta.parameters())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_parameter_receives_a_gradient(options: dict[str, str]) -> None:
    model = build(2, 4, **options)
    torch.autograd.backward(model(torch.randn(8, 3, 32, 32)).square().sum())
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
        ({"variant": "tall"}, "'plain', 'bottleneck', 'wide'"),
        ({"stem": "flower"}, "'cifar', 'imagenet'"),
        ({"stem": "imagenet", "input_shape": (3, 32, 31)}, "height and width of 32 or more"),
        ({"stem": "imagenet", "variant": "wide"}, "Choose stem='cifar'"),
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
