from __future__ import annotations

import logging
from collections.abc import Iterator

import optuna
import pytest


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """The warnings of a test, as they are logged."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logger, handler, messages = logging.getLogger("optuna"), logging.Handler(), list[str]()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)
