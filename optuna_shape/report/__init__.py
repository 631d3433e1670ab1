"""Figures, notes, tables and reports that say what a study has found."""

from optuna_shape.report.figures import certainty
from optuna_shape.report.figures import learning_curves
from optuna_shape.report.figures import shape_map
from optuna_shape.report.figures import tradeoff
from optuna_shape.report.page import write_report

__all__ = ["certainty", "learning_curves", "shape_map", "tradeoff", "write_report"]
