"""Sets drawn from the images of another one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optuna_shape import DataUnavailable
from optuna_shape.train.data.split import tenths

counts = st.lists(st.just(0) | st.integers(3, 60), min_size=1, max_size=8).filter(any)


def shuffled(counts: list[int], seed: int) -> torch.Tensor:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


@given(counts, st.integers(1, 2), st.integers(0, 2**32))
def test_sets_share_no_image_and_lose_none(counts: list[int], sets: int, seed: int) -> None:
    labels = shuffled(counts, seed)
    parts = tenths(labels, sets, torch.Generator().manual_seed(seed))
    assert len(parts) == sets + 1
    assert sorted(torch.cat(parts).tolist()) == list(range(len(labels)))


@given(counts, st.integers(1, 2), st.integers(0, 2**32))
def test_sets_have_a_tenth_of_each_class(counts: list[int], sets: int, seed: int) -> None:
    labels = shuffled(counts, seed)
    *drawn, rest = tenths(labels, sets, torch.Generator().manual_seed(seed))
    for indices in drawn:
        for count, got in zip(counts, labels[indices].bincount(minlength=len(counts)).tolist()):
            assert got == min(count, max(1, int(count / 10 + 0.5)))
    assert set(labels[rest].tolist()) == set(labels.tolist())


def test_the_seed_fixes_the_sets() -> None:
    labels = shuffled([30, 40], 0)
    first, again, other = (
        tenths(labels, 1, torch.Generator().manual_seed(seed))[0].tolist() for seed in (3, 3, 4)
    )
    assert first == again
    assert set(first) != set(other)


@pytest.mark.parametrize(("fewest", "sets"), [(1, 1), (2, 2)])
def test_classes_of_too_few_images_are_refused(fewest: int, sets: int) -> None:
    with pytest.raises(DataUnavailable, match=f"Give {sets + 1} or more of each class"):
        tenths(shuffled([30, fewest], 0), sets, torch.Generator())
