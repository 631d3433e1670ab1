from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from optuna_shape import InvalidSpace
from optuna_shape import Shape
from optuna_shape.families import densenet


def build(depth: int, width: int, **options: object) -> nn.Module:
    return densenet([depth], [width], **options).build(Shape(depth, width))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layers", "growth", "millions"),
    [
        (100, 12, 0.8),
        (250, 24, 15.3),
        (190, 40, 25.6),
        (40, 36, 1.5),
        (40, 48, 2.7),
        (40, 60, 4.3),
    ],
)
def test_densenet_bc_has_the_published_parameters_as_rounded(
    layers: int, growth: int, millions: float
) -> None:
    with torch.device("meta"):
        model = build((layers - 4) // 6, growth)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize(
    ("layers", "growth", "millions"), [(40, 12, 1.0), (100, 12, 7.0), (100, 24, 27.2)]
)
def test_densenet_has_the_published_parameters_as_rounded(
    layers: int, growth: int, millions: float
) -> None:
    with torch.device("meta"):
        model = build((layers - 4) // 3, growth, bc=False)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize(
    ("depth", "bc", "layers"), [(16, True, 100), (6, True, 40), (12, False, 40), (32, False, 100)]
)
def test_depth_counts_the_layers_that_publications_count(
    depth: int, bc: bool, layers: int
) -> None:
    with torch.device("meta"):
        model = build(depth, 4, bc=bc)
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == layers


def test_behind_its_stem_densenet_bc_is_the_network_of_torchvision() -> None:
    ours = build(3, 5, input_shape=(3, 9, 12)).eval()
    theirs = torchvision.models.DenseNet(5, (3, 3, 3), num_init_features=10, num_classes=10).eval()
    theirs.features.conv0 = nn.Conv2d(3, 10, kernel_size=3, padding=1, bias=False)
    for unwanted in ("norm0", "relu0", "pool0"):
        setattr(theirs.features, unwanted, nn.Identity())
    weights = zip(theirs.state_dict(), ours.state_dict().values(), strict=True)
    theirs.load_state_dict(dict(weights))
    x = torch.randn(2, 3, 9, 12)
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)


@pytest.mark.parametrize("bc", [True, False])
@pytest.mark.parametrize("input_shape", [(1, 4, 4), (3, 5, 9), (2, 12, 7), (3, 32, 32)])
@pytest.mark.parametrize("width", [1, 3])
def test_any_image_gives_one_score_per_class(
    bc: bool, input_shape: tuple[int, int, int], width: int
) -> None:
    model = build(2, width, input_shape=input_shape, classes=7, bc=bc)
    x = torch.randn(3, *input_shape)
    assert model(x).shape == (3, 7)
    assert model.eval()(x).isfinite().all()


@pytest.mark.parametrize("bc", [True, False])
def test_a_network_on_meta_has_the_sizes_of_a_real_one(bc: bool) -> None:
    with torch.device("meta"):
        meta = build(2, 6, bc=bc)
    real = build(2, 6, bc=bc).state_dict()
    assert {name: t.shape for name, t in meta.state_dict().items()} == {
        name: t.shape for name, t in real.items()
    }
    assert all(p.device.type == "meta" for p in meta.parameters())


@pytest.mark.parametrize("bc", [True, False])
def test_every_parameter_receives_a_gradient(bc: bool) -> None:
    model = build(2, 4, input_shape=(1, 8, 8), bc=bc)
    torch.autograd.backward(model(torch.randn(8, 1, 8, 8)).square().sum())
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (3, 3, 8)}, "height and width of 4 or more"),
        ({"input_shape": (8, 8)}, "no image for a densely connected network"),
        ({"input_shape": (0, 8, 8)}, "positive integers"),
        ({"classes": 1}, "2 or more"),
        ({"bc": "yes"}, "bc='yes' is neither True nor False"),
    ],
)
def test_what_makes_no_network_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidSpace, match=message):
        densenet([1], [4], **options)  # type: ignore[arg-type]


def test_widths_below_one_are_refused() -> None:
    with pytest.raises(InvalidSpace, match="width holds 0"):
        densenet([1], [0])
