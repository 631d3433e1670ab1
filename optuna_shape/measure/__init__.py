"""Latency, energy and size of shapes: how they are measured, and which shapes need it."""
