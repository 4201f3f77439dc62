"""How all figures look: colours that colour-blind readers and printers keep apart, units on every axis."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")  # Okabe and Ito (2008)
LINES = ("-", "--", ":", "-.")  # taken in turn when the colours are used up
WIDTH = 10.6  # inches, of a page
INK, FAINT, GRID = "#222222", "#767676", "#dddddd"
STYLE: Any = {
    "font.size": 9.5,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "white",
    "svg.fonttype": "path",  # looks the same where the font is missing
    "svg.hashsalt": "hpcddrl",  # the same picture is the same text
}
P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Let a function draw in this style, whatever else the program draws."""

    @wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return inside


def panels(
    rows: int, columns: int, height: float, sharey: Literal["none", "row"] = "none"
) -> tuple[Figure, list[Axes]]:
    """Return an empty figure of panels, row by row; ``height`` is a row's, in inches."""
    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
    return figure, list(axes.flat)


def colours(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Give each name a colour and a kind of line."""
    names = list(dict.fromkeys(names))
    n = len(COLOURS)
    return {name: (COLOURS[i % n], LINES[i // n % len(LINES)]) for i, name in enumerate(names)}


def dotted_bars(axes: Axes, values: Mapping[str, Sequence[float]]) -> None:
    """Draw a row for each name: a dot a value, the bar their mean; NaN leaves no trace."""
    looks = colours(values)
    for row, (name, found) in enumerate(values.items()):
        known = [value for value in found if np.isfinite(value)]
        if known:
            axes.barh(row, float(np.mean(known)), color=looks[name][0], alpha=0.35, height=0.62)
            axes.plot(known, [row] * len(known), "o", color=looks[name][0], markersize=4.5)
    axes.set(yticks=range(len(values)), yticklabels=list(values), ylim=(-0.6, len(values) - 0.4))
    axes.grid(visible=False, axis="y")
    short("x", axes)
    axes.set_xlim(left=0)


def gap(axes: Axes, why: str) -> None:
    """Say in an empty panel why it is empty."""
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    text = textwrap.fill(why, 52, break_on_hyphens=False)
    axes.text(0.5, 0.5, text, ha="center", va="center", color=FAINT, style="italic", transform=axes.transAxes)


@styled
def gap_figure(why: str) -> Figure:
    """Return a picture that says why there is none."""
    figure, (axes,) = panels(1, 1, 1.0)
    gap(axes, why)
    return figure


def short(axis: str, axes: Axes, unit: str = "", whole: bool = False) -> None:
    """Write the numbers of an axis ("x" or "y") shortly, 1.5k or 30 MB; only ``whole`` ones if so asked."""
    which = axes.xaxis if axis == "x" else axes.yaxis
    which.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10], integer=whole))
    which.set_major_formatter(
        FuncFormatter(lambda value, _: si(value, unit) if unit or abs(value) >= 1e3 else f"{value:g}")
    )


def si(value: float, unit: str = "") -> str:
    """Write a number, or a number of bytes, with three digits and k, M, G or T."""
    if not np.isfinite(value):
        return "–"
    space = " " if unit else ""
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor * 0.9995:
            digits = 0 if abs(value) >= 99.95 * factor else 1 if abs(value) >= 9.995 * factor else 2
            text = f"{value / factor:.{digits}f}"
            return f"{text.rstrip('0').rstrip('.') if digits else text}{space}{letter}{unit}"
    return f"{value:.3g}{space}{unit}"
