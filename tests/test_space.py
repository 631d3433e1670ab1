from __future__ import annotations

import pytest
from torch import nn

from optuna_shape import BuildFailed
from optuna_shape import DesignSpace
from optuna_shape import InvalidSpace
from optuna_shape import Shape


def test_shapes_are_depth_major_sorted_and_unique() -> None:
    space = DesignSpace(depth=[2, 1, 2], width=[16, 8])
    assert space.shapes == (Shape(1, 8), Shape(1, 16), Shape(2, 8), Shape(2, 16))
    assert len(space) == 4
    assert Shape(2, 8) in space
    assert (2, 8) in space
    assert Shape(3, 8) not in space


@pytest.mark.parametrize(
    ("depth", "width", "said"),
    [
        ([], [8], "depth is empty"),
        ([1], [], "width is empty"),
        ([1], [0], "width holds 0"),
        ([-3], [8], "depth holds -3"),
        ([1.5], [8], "depth holds 1.5"),
        ([True], [8], "depth holds True"),
        (3, [8], "depth=3 is not a list"),
        ([1], ["8"], "width holds '8'"),
    ],
)
def test_impossible_lists_are_named(depth: object, width: object, said: str) -> None:
    with pytest.raises(InvalidSpace, match=said):
        DesignSpace(depth, width)  # type: ignore[arg-type]


def test_build_returns_a_fresh_network_of_the_shape() -> None:
    space = DesignSpace([1], [4], build=lambda shape: nn.Linear(shape.width, shape.depth))
    first, second = space.build(Shape(1, 4)), space.build(Shape(1, 4))
    assert isinstance(first, nn.Linear)
    assert first.in_features == 4
    assert first is not second


def test_build_that_raises_is_told_with_its_shape_and_cause() -> None:
    def build(shape: Shape) -> nn.Module:
        raise KeyError("stage")

    with pytest.raises(BuildFailed, match=r"build\(\(1, 4\)\) raised KeyError: 'stage'") as info:
        DesignSpace([1], [4], build).build(Shape(1, 4))
    assert isinstance(info.value.__cause__, KeyError)


def test_build_that_returns_no_module_is_told() -> None:
    space = DesignSpace([1], [4], build=lambda shape: shape.width)  # type: ignore[arg-type,return-value]
    with pytest.raises(BuildFailed, match="returned int, not a torch.nn.Module"):
        space.build(Shape(1, 4))


def test_a_space_without_build_says_so() -> None:
    with pytest.raises(BuildFailed, match="has no `build`"):
        DesignSpace([1], [4]).build(Shape(1, 4))
