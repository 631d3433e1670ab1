from __future__ import annotations

import math

import pytest
import torch

from optuna_shape.train.agreement import differences
from optuna_shape.train.agreement import latency_ratio

BATCHES = [torch.randn(size, 3) for size in (1, 5)]


def test_difference_is_a_share_of_the_largest_output() -> None:
    x = torch.tensor([[1.0, -8.0], [2.0, 4.0]])
    assert differences(lambda x: x, lambda x: x + 0.5, [x]) == {2: 0.5 / 8}
    assert differences(lambda x: x, lambda x: x, BATCHES) == {1: 0, 5: 0}
    assert differences(torch.zeros_like, lambda x: torch.zeros_like(x) + 0.25, [x]) == {2: 0.25}


def test_each_batch_is_compared() -> None:
    found = differences(lambda x: x, lambda x: x + (len(x) > 1), BATCHES)
    assert found[1] == 0 < found[5]


@pytest.mark.parametrize(
    "other",
    [
        lambda x: x[:, :1],  # It would broadcast.
        lambda x: x.double(),
        lambda x: x * math.nan,
        lambda x: x / 0,
    ],
)
def test_other_kinds_of_outputs_and_none_differ_without_limit(other: object) -> None:
    assert differences(lambda x: x, other, BATCHES[1:]) == {5: math.inf}  # type: ignore[arg-type]


def test_outputs_that_are_never_finite_do_not_agree() -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        return x * math.nan

    assert differences(broken, broken, BATCHES[:1]) == {1: math.inf}


def test_latency_ratio_of_twice_the_work() -> None:
    batch = torch.randn(64, 64)

    def work(x: torch.Tensor, times: int = 40) -> torch.Tensor:
        for _ in range(times):
            x = torch.tanh(x @ batch)
        return x

    ratio = latency_ratio(work, lambda x: work(x, 80), batch)
    assert ratio.low <= ratio.value <= ratio.high
    assert 1.6 < ratio.value < 2.4
    assert ratio.network < ratio.other
