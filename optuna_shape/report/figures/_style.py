"""What the figures have in common: colours, titles, axes, and how texts and intervals are told."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from optuna_shape.space import Shape

# Okabe and Ito's palette, which the colour-blind tell apart.
TRAINED = "#0072b2"
PREDICTED = "#56b4e9"
ANSWER = "#d55e00"
CUT = "#e69f00"
RUNNING = "#009e73"
INK = "#202124"
GREY = "#80868b"
_PALE = "#e8eaed"

_CHARACTERS = 95  # of a wide font, such as Verdana, beside another figure of the dashboard
_BELOW = 80  # pixels


def plain(text: str) -> str:
    """Text that Plotly shows as it is, whatever marks it holds."""
    shown = html.escape(text.replace("<=", "≤").replace(">=", "≥"), quote=False)
    return shown.replace("%{", "%&#123;")  # Where it stands in a template, no name is put in.


def named(shape: Shape) -> str:
    """A shape, for a legend or a hover text."""
    return f"depth {shape.depth}, width {shape.width}"


def percent(value: float) -> float:
    """A fraction in per cent, with no more digits than a figure shows."""
    return round(100 * float(value), 2)


def percents(values: Iterable[float]) -> list[float]:
    """Fractions in per cent."""
    return [percent(value) for value in values]


def layout(title: str, subtitle: str = "", *, height: int = 450, **more: Any) -> dict[str, Any]:
    """A layout with the title at the left and the legend below the axes."""
    lines = textwrap.wrap(subtitle, _CHARACTERS)
    above = 60 + 16 * len(lines)
    return {
        "template": None,
        "height": height,
        "margin": {"l": 70, "r": 30, "t": above, "b": _BELOW},
        "title": {
            "text": plain(title),
            "font": {"size": 17},
            "subtitle": {
                "text": "<br>".join(map(plain, lines)),
                "font": {"size": 12, "color": GREY},
            },
            "x": 0.01,
            "xanchor": "left",
            "yref": "container",
            "y": 0.98,
            "yanchor": "top",
        },
        # Below the title of the axis. What does not fit into a row lets the margin grow.
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": -_BELOW / (height - above - _BELOW),
            "yanchor": "top",
        },
        "plot_bgcolor": "white",
        "font": {"color": INK},
        "hoverlabel": {"align": "left"},
        **more,
    }


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with its title, unit included."""
    return {
        "title": {"text": title, "standoff": 10},
        "automargin": True,
        "gridcolor": _PALE,
        "linecolor": GREY,
        "ticks": "outside",
        "tickcolor": GREY,
        "zeroline": False,
        **more,
    }


def centred(text: str) -> dict[str, Any]:
    """An annotation that stands where there is nothing to draw."""
    return {
        "text": plain(text),
        "xref": "paper",
        "yref": "paper",
        "x": 0.5,
        "y": 0.5,
        "showarrow": False,
        "font": {"size": 14, "color": GREY},
    }


def padded(values: Sequence[float], share: float = 0.06) -> list[float]:
    """A range that holds these values with some room around them."""
    low, high = min(values), max(values)
    room = share * (high - low) or 1.0
    return [low - room, high + room]


def marker(symbol: str, colour: str, size: int, line: str = INK) -> Mapping[str, object]:
    """A marker that stands out on any ground."""
    return {
        "symbol": symbol,
        "size": size,
        "color": colour,
        "line": {"width": 1.5, "color": line},
    }
