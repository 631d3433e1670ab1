from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

# An example that takes long says nothing on a machine that others use too.
settings.register_profile("measure", deadline=None)
settings.load_profile("measure")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Run PyTorch on one thread: several of them stall each other where other tests run too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
