from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from optuna_shape import InvalidSpace
from optuna_shape import Shape
from optuna_shape.families import vit
from optuna_shape.measure import count


def build(depth: int, width: int, **options: object) -> nn.Module:
    return vit([depth], [width], **options).build(Shape(depth, width))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("depth", "width", "patch_size", "parameters"),
    [
        (12, 192, 16, 5_717_416),  # Ti, S: Touvron et al., DeiT, in timm
        (12, 384, 16, 22_050_664),
        (12, 768, 16, 86_567_656),  # B, L: torchvision
        (12, 768, 32, 88_224_232),
        (24, 1024, 16, 304_326_632),
    ],
)
def test_vision_transformers_have_the_published_parameters(
    depth: int, width: int, patch_size: int, parameters: int
) -> None:
    with torch.device("meta"):
        model = build(depth, width, input_shape=(3, 224, 224), classes=1000, patch_size=patch_size)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("side", "patch_size"),
    [(1, 1), (8, 1), (11, 1), (12, 2), (28, 4), (32, 4), (64, 8), (96, 16), (224, 16), (331, 16)],
)
def test_the_patch_follows_the_longer_side(side: int, patch_size: int) -> None:
    space = vit([1], [64], input_shape=(1, side, 1))
    assert space.builder.patch_size == patch_size  # type: ignore[union-attr]


@pytest.mark.parametrize("input_shape", [(1, 1, 1), (1, 12, 12), (2, 7, 13), (3, 32, 32)])
@pytest.mark.parametrize("head_size", [1, 8])
def test_any_image_gives_one_score_per_class(
    input_shape: tuple[int, int, int], head_size: int
) -> None:
    model = build(2, 16, input_shape=input_shape, classes=7, head_size=head_size)
    x = torch.randn(3, *input_shape)
    assert model(x).shape == (3, 7)
    assert model.eval()(x).isfinite().all()


def test_an_image_is_padded_to_a_square_of_patches() -> None:
    torch.manual_seed(0)
    model = build(1, 8, input_shape=(1, 5, 7), patch_size=3, head_size=4)
    assert isinstance(model, nn.Sequential)
    x = torch.rand(1, 1, 5, 7)
    padded = model[0](x)
    assert padded.shape == (1, 1, 9, 9)
    assert torch.equal(padded[:, :, :5, :7], x)
    assert padded.sum() == x.sum()


def test_a_square_of_patches_is_torchvisions_own_network() -> None:
    model = build(2, 128, input_shape=(1, 12, 12))
    assert isinstance(model, VisionTransformer)
    assert (model.patch_size, model.mlp_dim) == (2, 512)
    assert model.encoder.layers[0].num_heads == 2


def test_grey_images_have_weights_drawn_as_those_of_colour_images() -> None:
    torch.manual_seed(0)
    model = build(1, 512, input_shape=(1, 32, 32), patch_size=8)
    assert model.conv_proj.weight.std().item() == pytest.approx(1 / 8, rel=0.02)
    assert not model.conv_proj.bias.any()


@pytest.mark.parametrize("input_shape", [(1, 8, 8), (3, 7, 8)])
def test_a_network_on_meta_has_the_sizes_of_a_real_one(input_shape: tuple[int, int, int]) -> None:
    options = {"input_shape": input_shape, "patch_size": 2, "head_size": 4}
    with torch.device("meta"):
        meta = build(2, 8, **options)
    real = build(2, 8, **options).state_dict()
    assert {name: t.shape for name, t in meta.state_dict().items()} == {
        name: t.shape for name, t in real.items()
    }
    assert all(p.device.type == "meta" for p in meta.parameters())


def test_the_operations_of_attention_are_counted() -> None:
    depth, width, patches = 3, 16, 16
    space = vit([depth], [width], input_shape=(1, 8, 8), patch_size=2, head_size=8, classes=5)
    tokens = patches + 1
    layer = 12 * tokens * width**2 + 2 * tokens**2 * width  # multiply-adds
    expected = 2 * (4 * width * patches + depth * layer + 5 * width)
    assert count(space, Shape(depth, width)).flops == expected


def test_every_parameter_receives_a_gradient() -> None:
    model = build(2, 8, input_shape=(1, 8, 8), head_size=4)
    nn.init.normal_(model.heads.head.weight)  # Zero at first, and so is every gradient behind it.
    torch.autograd.backward(model(torch.randn(8, 1, 8, 8)).square().sum())
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_the_seed_says_the_initial_weights() -> None:
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        model = build(1, 8, input_shape=(1, 8, 8), head_size=4)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (8, 8)}, "no image for a vision transformer"),
        ({"input_shape": (0, 8, 8)}, "positive integers"),
        ({"classes": 1}, "2 or more"),
        ({"patch_size": 0}, "patch_size=0 is no positive integer"),
        ({"patch_size": 4.0}, "patch_size=4.0 is no positive integer"),
        ({"patch_size": 33}, "more than the 32 x 32 pixels of an image. Give 32 or less"),
        ({"head_size": 0}, "head_size=0 is no positive integer"),
        ({"head_size": True}, "head_size=True is no positive integer"),
        ({"head_size": 48}, "width=64 is no multiple of 48: .* Nearest that works: 48 or 96"),
        ({"head_size": 100}, "Nearest that works: 100"),
    ],
)
def test_what_makes_no_network_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidSpace, match=message):
        vit([1], [64], **options)  # type: ignore[arg-type]
