"""Matrices such as pruned and shared weights are, and odd ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def pruned(
    n: int, m: int, *, zeros: float, k: int, seed: int = 0, dtype: str = "f4"
) -> npt.NDArray[Any]:
    """A Gaussian matrix of which a share is zero, and the rest has at most ``k`` values."""
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((n, m))
    kept = np.abs(matrix) > np.quantile(np.abs(matrix), zeros) if zeros else matrix != 0
    values = np.linspace(-3.1, 3.2, k)
    nearest = np.abs(matrix[..., None] - values).argmin(axis=-1)
    return np.where(kept, values[nearest], 0).astype(dtype)


ODD: dict[str, npt.NDArray[Any]] = {
    "one entry": np.full((1, 1), 2.5, "f4"),
    "one zero": np.zeros((1, 1), "f4"),
    "one value": np.full((7, 300), -1.5, "f4"),
    "zeros": np.zeros((600, 5), "f4"),
    "one entry that is not zero": np.eye(1, 5000, 4321, dtype="f4").reshape(50, 100),
    "empty columns": np.concatenate(
        [np.zeros((9, 4)), pruned(9, 3, zeros=0.5, k=4), np.zeros((9, 60))], axis=1
    ).astype("f4"),
    "column": pruned(3000, 1, zeros=0.9, k=5),
    "row": pruned(1, 3000, zeros=0.9, k=5),
    "no rows": np.zeros((0, 4), "f4"),
    "no columns": np.zeros((4, 0), "f4"),
    "minus zero and other bits": np.array(
        [[0.0, -0.0, np.inf, -np.inf], [np.nan, -np.nan, 1e-45, 3.4e38]] * 9, "f4"
    ),
    "long codes": np.repeat(np.arange(1, 23, dtype="f4"), 2 ** np.arange(22) // 64 + 1).reshape(
        1, -1
    ),
    "doubles": pruned(200, 30, zeros=0.8, k=17, dtype="f8"),
    "halves": pruned(200, 30, zeros=0.8, k=17, dtype="f2"),
}
