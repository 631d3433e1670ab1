from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optuna_shape import InvalidProblem
from optuna_shape import InvalidSpace
from optuna_shape import Shape
from optuna_shape.families import nasnet
from optuna_shape.families._nasnet_cells import NORMAL
from optuna_shape.families._nasnet_cells import REDUCTION
from optuna_shape.families._nasnet_cells import Cell
from optuna_shape.families._nasnet_cells import DropPath
from optuna_shape.families._nasnet_cells import Wiring
from optuna_shape.families.nasnet import NASNetA
from optuna_shape.measure import count

MOBILE = {"input_shape": (3, 224, 224), "classes": 1000, "stem": "imagenet"}
LARGE = {"input_shape": (3, 331, 331), "classes": 1000, "stem": "imagenet", "stem_filters": 96}


def build(depth: int, width: int, **options: object) -> NASNetA:
    network = nasnet([depth], [width], **options).build(Shape(depth, width))  # type: ignore[arg-type]
    assert isinstance(network, NASNetA)
    return network


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_6_at_768_has_the_published_parameters_as_rounded() -> None:
    with torch.device("meta"):
        assert round(parameters(build(6, 768)) / 1e6, 1) == 3.3


@pytest.mark.parametrize(
    ("depth", "width", "options", "exactly", "millions"),
    [(4, 1056, MOBILE, 5_289_978, 5.3), (6, 4032, LARGE, 88_753_150, 88.9)],
)
def test_imagenet_networks_have_the_weights_of_public_implementations(
    depth: int, width: int, options: dict[str, object], exactly: int, millions: float
) -> None:
    with torch.device("meta"):
        model = build(depth, width, **options)
    assert parameters(model) == exactly
    # With the running statistics, they are as many as the publication says.
    statistics = sum(b.numel() for b in model.buffers() if b.ndim)
    assert (exactly + statistics) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize(
    ("depth", "width", "options", "millions"), [(4, 1056, MOBILE, 564), (6, 4032, LARGE, 23_800)]
)
def test_imagenet_networks_have_the_published_multiply_adds_as_rounded(
    depth: int, width: int, options: dict[str, object], millions: int
) -> None:
    space = nasnet([depth], [width], **options)  # type: ignore[arg-type]
    flops = count(space, Shape(depth, width)).flops
    assert flops is not None
    assert float(f"{flops / 2e6:.3g}") == millions


@pytest.mark.parametrize(
    ("options", "width", "expected"),
    [
        ({}, 768, [(192, 32)] * 2 + [(256, 16)] + [(384, 16)] * 2 + [(512, 8)] + [(768, 8)] * 2),
        (
            MOBILE,
            1056,
            [(44, 56), (88, 28)]
            + [(264, 28)] * 2
            + [(352, 14)]
            + [(528, 14)] * 2
            + [(704, 7)]
            + [(1056, 7)] * 2,
        ),
        (
            LARGE,
            4032,
            [(168, 83), (336, 42)]
            + [(1008, 42)] * 2
            + [(1344, 21)]
            + [(2016, 21)] * 2
            + [(2688, 11)]
            + [(4032, 11)] * 2,
        ),
    ],
)
def test_cells_have_the_sizes_of_the_authors_implementation(
    options: dict[str, object], width: int, expected: list[tuple[int, int]]
) -> None:
    with torch.device("meta"):
        model = build(2, width, **options)
        x = previous = model.stem(torch.empty(1, 3, *options.get("input_shape", (3, 32, 32))[1:]))
        sizes = []
        for cell in model.cells:
            x, previous = cell(x, previous), x
            assert x.shape[2] == x.shape[3]
            sizes.append((x.shape[1], x.shape[2]))
    assert sizes == expected


def cell_without_separables(wiring: Wiring) -> Cell:
    """A cell whose separable convolutions give zero; its states 0 and 1 are easily asked for."""
    cell = Cell(wiring, inputs=5, previous=7, filters=4, relation="same", drop_path=0.0).eval()
    for term in cell.terms:
        if any(isinstance(m, nn.Conv2d) for m in term.modules()):
            norms = [m for m in term.modules() if isinstance(m, nn.BatchNorm2d)]
            nn.init.zeros_(norms[-1].weight)
    return cell


def test_a_normal_cell_is_wired_as_published() -> None:
    cell = cell_without_separables(NORMAL)
    x, previous = torch.randn(2, 5, 6, 6), torch.randn(2, 7, 6, 6)
    h0, h1 = cell.entry(x), cell.previous_entry(previous)
    average = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    zero = torch.zeros_like(h0)
    expected = [h1, zero, zero, average(h0) + h1, 2 * average(h1), h0]
    assert torch.allclose(cell(x, previous), torch.cat(expected, dim=1), atol=1e-6)


def test_a_reduction_cell_is_wired_as_published() -> None:
    cell = cell_without_separables(REDUCTION)
    x, previous = torch.randn(2, 5, 7, 6), torch.randn(2, 7, 7, 6)
    h0 = cell.entry(x)
    average = F.avg_pool2d(h0, 3, stride=2, padding=1, count_include_pad=False)
    maximum = F.max_pool2d(h0, 3, stride=2, padding=1)
    expected = [maximum, average, maximum, maximum]
    assert torch.allclose(cell(x, previous), torch.cat(expected, dim=1), atol=1e-6)


@pytest.mark.parametrize(
    ("wiring", "kernels"),
    [(NORMAL, [5, 3, 5, 3, 3]), (REDUCTION, [5, 7, 7, 5, 3])],
)
def test_separable_convolutions_are_applied_twice(wiring: Wiring, kernels: list[int]) -> None:
    cell = Cell(wiring, inputs=5, previous=7, filters=4, relation="same", drop_path=0.0)
    depthwise = [
        m.kernel_size[0] for m in cell.modules() if isinstance(m, nn.Conv2d) and m.groups > 1
    ]
    assert depthwise == [kernel for kernel in kernels for _ in range(2)]


def test_paths_are_dropped_by_place_and_by_progress() -> None:
    model = build(2, 24, drop_path=0.4)
    assert len(model.cells) == 8
    for progress in (1.0, 0.5, 0.0):
        if progress < 1:  # As it is at first.
            model.set_progress(progress)
        for place, cell in enumerate(model.cells, start=1):
            paths = [m for m in cell.modules() if isinstance(m, DropPath)]
            assert len(paths) in (8, 9)  # Of ten terms, all that are no identity.
            for path in paths:
                assert path.highest * path.progress == pytest.approx(0.4 * place / 8 * progress)


def test_a_dropped_path_is_made_up_for() -> None:
    torch.manual_seed(0)
    path = DropPath(0.5)
    path.progress = 0.5
    x = torch.ones(4000, 2, 1, 3)
    y = path(x)
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert torch.equal(y, y[:, :1, :1, :1].expand_as(y))  # All of an input, or nothing.
    assert y.mean().item() == pytest.approx(1, abs=0.03)
    assert path.eval()(x) is x


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_progress_is_a_share(share: float) -> None:
    with pytest.raises(InvalidProblem, match="Give 0 to 1"):
        build(1, 24).set_progress(share)


def test_nothing_is_dropped_at_the_start_and_in_evaluation() -> None:
    torch.manual_seed(0)
    model = build(1, 48, input_shape=(1, 8, 8), drop_path=0.9)
    x = torch.randn(8, 1, 8, 8)
    assert not torch.equal(model(x), model(x))
    model.set_progress(0)
    assert torch.equal(model(x), model(x))
    model.set_progress(1)
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize(
    ("stem", "width", "input_shape"),
    [
        ("cifar", 24, (1, 4, 4)),
        ("cifar", 72, (3, 5, 9)),
        ("cifar", 48, (2, 12, 7)),
        ("imagenet", 96, (1, 32, 32)),
        ("imagenet", 288, (3, 37, 64)),
    ],
)
@pytest.mark.parametrize("depth", [1, 2])
def test_any_image_gives_one_score_per_class(
    stem: str, width: int, input_shape: tuple[int, int, int], depth: int
) -> None:
    model = build(depth, width, input_shape=input_shape, classes=7, stem=stem)
    x = torch.randn(3, *input_shape)
    assert model(x).shape == (3, 7)
    assert model.eval()(x).isfinite().all()


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_a_network_on_meta_has_the_sizes_of_a_real_one(stem: str) -> None:
    with torch.device("meta"):
        meta = build(1, 96, stem=stem)
    real = build(1, 96, stem=stem).state_dict()
    assert {name: t.shape for name, t in meta.state_dict().items()} == {
        name: t.shape for name, t in real.items()
    }
    assert all(p.device.type == "meta" for p in meta.parameters())


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_every_parameter_receives_a_gradient(stem: str) -> None:
    torch.manual_seed(0)
    model = build(1, 192, stem=stem, drop_path=0)
    torch.autograd.backward(model(torch.randn(8, 3, 32, 32)).square().sum())
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (3, 3, 8)}, "height and width of 4 or more"),
        ({"input_shape": (3, 31, 32), "stem": "imagenet"}, "height and width of 32 or more"),
        ({"input_shape": (8, 8)}, "no image for NASNet-A"),
        ({"classes": 1}, "2 or more"),
        ({"stem": "flower"}, "'cifar', 'imagenet'"),
        ({"stem_filters": 0}, "stem_filters=0 is no positive integer"),
        ({"drop_path": 1.0}, "drop_path=1.0 is no probability below 1"),
        ({"drop_path": -0.1}, "drop_path=-0.1 is no probability"),
        ({"drop_path": "much"}, "drop_path='much' is no probability"),
        ({"drop_path": True}, "drop_path=True is no probability"),
        ({"stem": "imagenet"}, "width=120 is no multiple of 96: .* Nearest that works: 96 or 192"),
    ],
)
def test_what_makes_no_network_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidSpace, match=message):
        nasnet([1], [120], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("width", "works"), [(8, "24"), (770, "768 or 792")])
def test_a_width_that_six_doubled_states_cannot_make_is_refused(width: int, works: str) -> None:
    with pytest.raises(InvalidSpace, match=f"no multiple of 24: .* works: {works}\\."):
        nasnet([1], [24, width])
