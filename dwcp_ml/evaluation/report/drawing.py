"""Figures as inline SVG that follow the page: its colours, its font, light and dark.

Every colour that is drawn is a placeholder which becomes a CSS variable of the page, so one and the
same drawing is readable on white and on black. The hues are those of Okabe and Ito ("Color
Universal Design", 2008), which people with colour-blindness can tell apart; where two lines could
be confused they differ in their dashes too.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK: Final = "#101112"
QUIET: Final = "#606162"
GRID: Final = "#d0d1d2"
MODEL: Final = "#0072b1"
BASELINE: Final = "#e69f01"
ALARM: Final = "#d55e01"
GOOD: Final = "#009e71"
OTHER: Final = "#cc79a1"

VARIABLES: Final = {
    INK: "var(--ink)",
    QUIET: "var(--quiet)",
    GRID: "var(--grid)",
    MODEL: "var(--model)",
    BASELINE: "var(--baseline)",
    ALARM: "var(--alarm)",
    GOOD: "var(--good)",
    OTHER: "var(--other)",
}
"""Colour of a plot -> CSS variable of the page."""

BASELINE_STYLES: Final = (
    (BASELINE, "--"),
    (OTHER, "-."),
    (QUIET, ":"),
    (GOOD, (0, (5, 1, 1, 1, 1, 1))),
)
"""Colour and dashes of the baselines, in order."""

RASTER: Final = "#3a8fc7"
"""Colour of rasterized elements, readable in light and dark mode."""

STYLE: Final[Any] = {
    "axes.edgecolor": QUIET,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 11,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.6,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": QUIET,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 10,
    "ytick.color": QUIET,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 10,
}


@dataclass(frozen=True)
class Plot:
    """One figure of a report.

    ``name`` is unique on its page (letters, digits and ``-``), ``description`` is also for screen
    readers, and ``svg`` has no references to other files.
    """

    name: str
    title: str
    description: str
    svg: str


Drawn = tuple[str, str, str, Callable[["Axes"], None], float]
"""Name, title and description of a plot, the function that draws it, and its height in inches."""


def figure(height: float = 3.5) -> tuple[Figure, Axes]:
    """Return an empty figure, 5.6 inches wide, and its axes, without pyplot's global state."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(5.6, height), layout="constrained")
    FigureCanvasSVG(drawn)
    return drawn, drawn.add_subplot()


def svg(drawn: Figure, name: str) -> str:
    """Return the figure as an ``<svg>`` element for a page, without metadata or addresses."""
    import matplotlib as mpl

    stream = io.StringIO()
    # With a salt the ids of two runs are equal; with a prefix those of one page differ.
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        drawn.savefig(stream, format="svg", dpi=160, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    # The page gives the drawing its width; the view box keeps its shape.
    text = re.sub(r'(<svg[^>]*?)\swidth="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?)\sheight="[^"]*"', r'\1 aria-hidden="true"', text, count=1)
    text = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font: ([0-9.]+px)[^;\"]*", r"font: \1 var(--font)", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    return text.strip()
