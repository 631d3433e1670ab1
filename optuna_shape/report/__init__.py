"""Figures and notes that say what a study has found."""
