"""The sections of a report, each made of :class:`Facts`."""

from __future__ import annotations

from optuna_shape.report.sections._asked import device
from optuna_shape.report.sections._asked import question
from optuna_shape.report.sections._asked import remaining
from optuna_shape.report.sections._asked import summary
from optuna_shape.report.sections._facts import Facts
from optuna_shape.report.sections._found import comparison
from optuna_shape.report.sections._found import spending
from optuna_shape.report.sections._found import trained
from optuna_shape.report.sections._trust import rebuilding
from optuna_shape.report.sections._trust import trust

__all__ = [
    "Facts",
    "comparison",
    "device",
    "question",
    "rebuilding",
    "remaining",
    "spending",
    "summary",
    "trained",
    "trust",
]
