from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_shape.measure.boundary import find_boundary
from optuna_shape.space import Shape


class Grid:
    """A planted truth, and a record of what was asked of it."""

    def __init__(self, within: dict[Shape, bool]) -> None:
        self.within = within
        self.batches: list[list[Shape]] = []

    def measure(self, shapes: Sequence[Shape]) -> dict[Shape, bool]:
        self.batches.append(list(shapes))
        return {shape: self.within[shape] for shape in shapes}


@st.composite
def monotone_grids(draw: st.DrawFn) -> Grid:
    """Any boundary at all, width by width; nothing is within below something over."""
    depths = draw(st.integers(1, 12))
    deepest = draw(st.lists(st.integers(0, depths), min_size=1, max_size=12))
    return Grid(
        {
            Shape(depth, width): depth <= deepest[width - 1]
            for depth in range(1, depths + 1)
            for width in range(1, len(deepest) + 1)
        }
    )


arbitrary_grids = st.dictionaries(
    st.builds(Shape, st.integers(1, 9), st.integers(1, 9)), st.booleans(), max_size=60
).map(Grid)


@given(grid=monotone_grids(), seed=st.integers(0, 5))
def test_no_error_where_cost_rises_with_depth(grid: Grid, seed: int) -> None:
    boundary = find_boundary(grid.within, grid.measure, seed=seed)
    assert not boundary.contradicted
    for shape, inside in grid.within.items():
        assert (shape in boundary.measured and boundary.measured[shape]) == inside


@given(grid=monotone_grids())
def test_effort_is_bounded(grid: Grid) -> None:
    boundary = find_boundary(grid.within, grid.measure)
    over = sum(not inside for inside in boundary.measured.values())
    widths = len({shape.width for shape in grid.within})
    # At least one is audited, where there is one.
    assert over <= max(widths + 1, len(grid.within) / 5)


@given(grid=arbitrary_grids, seed=st.integers(0, 5))
def test_any_grid_is_classified_once_and_never_within_unmeasured(grid: Grid, seed: int) -> None:
    boundary = find_boundary(grid.within, grid.measure, seed=seed)
    asked = [shape for batch in grid.batches for shape in batch]
    assert len(asked) == len(set(asked))
    assert set(asked) == set(boundary.measured)
    assert boundary.measured.keys().isdisjoint(boundary.inferred)
    assert boundary.measured.keys() | boundary.inferred.keys() == set(grid.within)
    assert all(grid.within[shape] == inside for shape, inside in boundary.measured.items())
    for shape, witness in boundary.inferred.items():
        assert witness.width == shape.width
        assert witness.depth < shape.depth
        assert not boundary.measured[witness]


@given(grid=arbitrary_grids, seed=st.integers(0, 5))
def test_same_seed_same_questions(grid: Grid, seed: int) -> None:
    again = Grid(dict(reversed(grid.within.items())))
    find_boundary(grid.within, grid.measure, seed=seed)
    find_boundary(again.within, again.measure, seed=seed)
    assert [sorted(batch) for batch in grid.batches] == [sorted(b) for b in again.batches]


def test_all_widths_advance_together() -> None:
    grid = Grid({Shape(d, w): d * w <= 8 for d in range(1, 5) for w in (2, 4, 8)})
    find_boundary(grid.within, grid.measure)
    assert grid.batches[0] == [Shape(1, 2), Shape(1, 4), Shape(1, 8)]
    assert grid.batches[1] == [Shape(2, 2), Shape(2, 4), Shape(2, 8)]
    assert grid.batches[2] == [Shape(3, 2), Shape(3, 4)]


def test_a_fifth_of_the_grid_at_most_is_measured_in_vain() -> None:
    grid = Grid({Shape(d, w): d <= 3 for d in range(1, 10) for w in range(7)})
    boundary = find_boundary(grid.within, grid.measure)
    assert len(boundary.audited) == 4  # a tenth of the 35 that were inferred
    assert len(boundary.measured) == 3 * 7 + 7 + 4


def test_a_contradiction_has_its_width_measured_to_the_end() -> None:
    # Width 3 is over at depth 2 only, by a spell of bad luck.
    grid = Grid({Shape(d, w): d <= 2 or w == 3 for d in range(1, 41) for w in range(1, 5)})
    grid.within[Shape(2, 3)] = False
    boundary = find_boundary(grid.within, grid.measure)
    assert {shape.width for shape in boundary.contradicted} == {3}
    assert all(Shape(d, 3) in boundary.measured for d in range(1, 41))
    assert not any(shape.width == 3 for shape in boundary.inferred)
    assert any(shape.width == 1 for shape in boundary.inferred)


@pytest.mark.parametrize("depths", [1, 2])
def test_nothing_within(depths: int) -> None:
    grid = Grid({Shape(d, w): False for d in range(1, depths + 1) for w in (1, 2)})
    boundary = find_boundary(grid.within, grid.measure)
    assert not any(boundary.measured.values())
    assert len(boundary.measured) + len(boundary.inferred) == 2 * depths


def test_no_shapes() -> None:
    boundary = find_boundary([], Grid({}).measure)
    assert not boundary.measured
    assert not boundary.inferred


@given(grid=monotone_grids(), seed=st.integers(0, 5))
def test_something_is_audited_wherever_something_is_inferred(grid: Grid, seed: int) -> None:
    boundary = find_boundary(grid.within, grid.measure, seed=seed)
    assert bool(boundary.audited) == bool(boundary.audited | boundary.inferred.keys())


def test_audits_look_near_the_boundary_first() -> None:
    shapes = [Shape(depth, 8) for depth in range(1, 21)]
    steps = [
        shape.depth - 6
        for seed in range(300)
        for shape in find_boundary(
            shapes, lambda batch: {s: s.depth < 6 for s in batch}, seed=seed
        ).audited
    ]
    assert min(steps) == 1
    assert max(steps) > 7  # Anything may be drawn,
    assert sum(step <= 4 for step in steps) > len(steps) / 2  # but rarely the dear.


def test_nothing_is_inferred_from_what_is_undecided() -> None:
    """Depth 3 cannot be decided: the walk goes on to depth 4, which is surely over."""
    shapes = [Shape(depth, 8) for depth in range(1, 8)]
    side = {3: None}
    boundary = find_boundary(
        shapes, lambda batch: {s: side.get(s.depth, s.depth < 3) for s in batch}
    )
    assert boundary.measured[Shape(3, 8)] is None
    assert boundary.measured[Shape(4, 8)] is False
    assert set(boundary.inferred.values()) <= {Shape(depth, 8) for depth in range(4, 7)}
