from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_shape import Constraint
from optuna_shape import InvalidConstraint
from optuna_shape import Shape
from optuna_shape.constraints import UNITS
from optuna_shape.constraints import format_quantity


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("latency <= 2 ms", Constraint("latency", 0.002)),
        ("latency<=2ms", Constraint("latency", 0.002)),
        ("LATENCY ≤ 250 us", Constraint("latency", 250e-6)),
        ("latency <= 250 μs", Constraint("latency", 250e-6)),
        ("energy <= 40 mJ", Constraint("energy", 0.04)),
        ("size <= 500 kB", Constraint("size", 500_000)),
        ("size <= 1 MiB", Constraint("size", 1_048_576)),
        ("memory <= 2 GB", Constraint("memory", 2e9)),
        ("parameters <= 1.5 M", Constraint("parameters", 1.5e6)),
        ("parameters <= 1_500_000", Constraint("parameters", 1.5e6)),
        ("flops <= 3e8", Constraint("flops", 3e8)),
        ("accuracy >= 92 %", Constraint("accuracy", 0.92)),
        ("accuracy >= 0.92", Constraint("accuracy", 0.92)),
        ("latency <= 60 % of (9, 16)", Constraint("latency", 0.6, Shape(9, 16))),
        ("size <= 110% of 9x16", Constraint("size", 1.1, Shape(9, 16))),
    ],
)
def test_reads_what_people_write(text: str, expected: Constraint) -> None:
    constraint = Constraint.parse(text)
    assert constraint.property == expected.property
    assert constraint.bound == pytest.approx(expected.bound, rel=1e-12)
    assert constraint.reference == expected.reference


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fast", "Cannot read the constraint"),
        ("speed <= 2 ms", "Unknown property 'speed'"),
        ("latency <= 2", "has no unit"),
        ("latency <= 2 MS", "Did you mean ms"),
        ("latency <= 2 furlongs", "Unknown unit 'furlongs'"),
        ("latency >= 2 ms", "can only be bounded by 'latency <="),
        ("accuracy <= 90 %", "can only be bounded by 'accuracy >="),
        ("latency < 2 ms", "can only be bounded by 'latency <="),
        ("latency <= -2 ms", "The bound in 'latency <= -2 ms' is -2"),
        ("latency <= 0 ms", "above 0"),
        ("latency <= nan ms", "above 0"),
        ("size <= inf B", "above 0"),
        ("accuracy >= 101 %", "up to 100 %"),
        ("accuracy >= 93", "Did you mean 93 %"),
        ("accuracy >= 90 % of (9, 16)", "only a percentage of a cost"),
        ("latency <= 2 ms of (9, 16)", "only a percentage of a cost"),
        ("latency <= 60 %", "Unknown unit '%'"),
    ],
)
def test_says_what_is_wrong_and_what_would_be_right(text: str, said: str) -> None:
    with pytest.raises(InvalidConstraint) as info:
        Constraint.parse(text)
    assert said in str(info.value)


@given(
    name=st.sampled_from(sorted(set(UNITS) - {"accuracy"})),
    bound=st.floats(1e-9, 1e12),
    share=st.booleans(),
)
def test_text_of_a_constraint_reads_back(name: str, bound: float, share: bool) -> None:
    constraint = Constraint(name, bound, Shape(3, 16) if share else None)
    back = Constraint.parse(str(constraint))
    assert (back.property, back.reference) == (name, constraint.reference)
    assert math.isclose(back.bound, bound, rel_tol=1e-11)
    assert str(back) == str(constraint)


@given(text=st.text(max_size=40))
def test_no_text_breaks_the_parser(text: str) -> None:
    with pytest.raises(InvalidConstraint, match="Cannot read|Unknown property"):
        Constraint.parse(text)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("latency", 0.9996e-3, "1 ms"),
        ("latency", 0.999e-3, "999 us"),
        ("latency", 1.5, "1.5 s"),
        ("latency", 1e-9, "0.001 us"),
        ("size", 1_234_567, "1.23 MB"),
        ("size", 0, "0 B"),
        ("parameters", 269_722, "270 k"),
        ("accuracy", 0.9173, "91.7 %"),
        ("latency", math.inf, "out of memory"),
    ],
)
def test_prints_the_unit_a_person_would_choose(name: str, value: float, text: str) -> None:
    assert format_quantity(name, value) == text
