"""Plotly figures of a study, for notebooks, dashboards and reports.

Each is made of the problem and the study alone. They hold plain lists and no template: a dashboard
keeps their JSON in the study. Accuracies that nobody has measured are always called predicted.
"""

from __future__ import annotations

from optuna_shape.report.figures._certainty import certainty
from optuna_shape.report.figures._curves import learning_curves
from optuna_shape.report.figures._map import shape_map
from optuna_shape.report.figures._tradeoff import properties_shown
from optuna_shape.report.figures._tradeoff import tradeoff

__all__ = ["certainty", "learning_curves", "properties_shown", "shape_map", "tradeoff"]
