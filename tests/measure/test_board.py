from __future__ import annotations

import pynvml
import pytest
import torch

from optuna_shape.measure.board import Board


@pytest.mark.gpu
def test_a_board_tells_of_itself() -> None:
    board = Board(torch.device("cuda", 0))
    torch.cuda.synchronize()
    assert board.strangers() >= 0
    before = board.joules()
    for _ in range(200):
        torch.randn(2000, 2000, device="cuda") @ torch.randn(2000, 2000, device="cuda")
    torch.cuda.synchronize()
    assert board.joules() >= before > 0
    watts = board.watts()
    assert watts is None or 5 < watts < 2000
    assert isinstance(board.slowed_by(), str)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_driver_there_is_no_board() -> None:
    with pytest.raises((pynvml.NVMLError, RuntimeError, AssertionError)):
        Board(torch.device("cuda", 0))
