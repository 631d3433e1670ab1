"""Images of the same proportions of classes, drawn for sets that share none."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from optuna_shape.errors import DataUnavailable


def balanced(
    labels: torch.Tensor, sizes: Sequence[int], classes: int, generator: torch.Generator
) -> list[torch.Tensor]:
    """Draw disjoint sets with as many of each class, in random order.

    Args:
        labels:
            ``(n,)`` int64 tensor of classes.
        sizes:
            How many to draw for each set.
        classes:
            Number of classes.
        generator:
            Draws them.

    Returns:
        For each set a ``(size,)`` tensor of indices.

    Raises:
        DataUnavailable: A size is no multiple of the number of classes, or a class has too few.
    """
    available = int(labels.bincount(minlength=classes).min())
    if any(size % classes for size in sizes) or sum(sizes) > available * classes:
        raise DataUnavailable(
            f"Sets of {' and '.join(map(str, sizes))} images cannot be drawn with as many of each "
            f"class. Give multiples of {classes}, {available * classes} at most together."
        )
    order = torch.randperm(len(labels), generator=generator)
    rank = _rank_in_class(labels[order])
    sets, begin = [], 0
    for size in sizes:
        end = begin + size // classes
        sets.append(order[(begin <= rank) & (rank < end)])
        begin = end
    return sets


def tenths(labels: torch.Tensor, sets: int, generator: torch.Generator) -> list[torch.Tensor]:
    """Draw disjoint sets of a tenth of each class, rounded, but one image at least.

    Args:
        labels:
            ``(n,)`` int64 tensor of classes.
        sets:
            How many to draw.
        generator:
            Draws them.

    Returns:
        For each set a tensor of indices, and one of those that are left; their classes are mixed.

    Raises:
        DataUnavailable: A class has too few images to be in every set and among those left.
    """
    counts = labels.bincount()
    fewest = int(counts[labels].min())
    if fewest <= sets:
        raise DataUnavailable(
            f"A class has only {fewest} of the images that {sets + 1} different sets are to be "
            f"drawn from. Give {sets + 1} or more of each class."
        )
    order = torch.randperm(len(labels), generator=generator)
    share = ((counts + 5) // 10).clamp(min=1)[labels[order]]
    part = (_rank_in_class(labels[order]) // share).clamp(max=sets)
    return [order[part == index] for index in range(sets + 1)]


def _rank_in_class(labels: torch.Tensor) -> torch.Tensor:
    """Number the images of each class 0, 1, ... in the order in which they come."""
    counts = labels.bincount()
    by_class = labels.argsort(stable=True)
    first = (counts.cumsum(dim=0) - counts)[labels[by_class]]
    rank = torch.empty_like(labels)
    rank[by_class] = torch.arange(len(labels)) - first
    return rank
