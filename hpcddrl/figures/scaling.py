"""How fast jobs are at several sizes, measured and simulated."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from hpcddrl.figures.rates import NOTHING, mean_rate
from hpcddrl.figures.style import FAINT, colours, gap_figure, panels, short, si, styled
from hpcddrl.logs.read import Runs, only

SIZES = ["recipe", "run", "ranks", "frames_per_s", "lag"]


def sizes(runs: Runs) -> pd.DataFrame:
    """Return the size, frames a second and mean lag [updates] of each run that has come so far as to have a rate."""
    rows = []
    for about in runs.runs.itertuples():
        own = only(runs, about.run).tables
        rate, lag = mean_rate(own["progress"], "frames"), own["learning"]["lag_mean"].mean()
        rows.append([about.recipe, about.run, about.ranks, rate, lag])
    return pd.DataFrame(rows, columns=SIZES).dropna(subset=["frames_per_s"])


@styled
def scaling(measured: pd.DataFrame, simulated: pd.DataFrame | None = None) -> Figure:
    """Draw frames a second and lag over the number of ranks: dots measured, the line their mean; crosses simulated.

    Args:
        measured: as `sizes` gives it.
        simulated: ranks, frames_per_s and lag of each size, as simulate writes them; None: nothing was simulated.
    """
    if not len(measured):
        return gap_figure(NOTHING)
    if measured["ranks"].nunique() == 1 and simulated is None:
        rates = ", ".join(f"{row.run} {si(row.frames_per_s)} frames/s" for row in measured.itertuples())
        return gap_figure(f"all runs have {measured['ranks'].iloc[0]} ranks, which says nothing of scaling: {rates}")
    figure, (speed, age) = panels(1, 2, 3.4)
    for recipe, (colour, dashes) in colours(measured["recipe"]).items():
        own = measured[measured["recipe"] == recipe]
        means = own.groupby("ranks")[["frames_per_s", "lag"]].mean()
        for panel, name in ((speed, "frames_per_s"), (age, "lag")):
            panel.plot(own["ranks"], own[name], "o", color=colour, markersize=5)
            panel.plot(means.index, means[name], linestyle=dashes, color=colour, label=recipe)
    _in_proportion(speed, measured)
    if simulated is not None:
        for panel, name in ((speed, "frames_per_s"), (age, "lag")):
            panel.plot(simulated["ranks"], simulated[name], "x--", color=FAINT, label="simulated")
    speed.set(xlabel="ranks", ylabel="environment frames a second", xscale="log", yscale="log")
    age.set(xlabel="ranks", ylabel="mean lag of data, updates", xscale="log")
    ticks = sorted({*measured["ranks"], *(() if simulated is None else simulated["ranks"])})
    for panel in (speed, age):
        panel.set_xticks(ticks, [f"{n:,}" for n in ticks])
        panel.minorticks_off()
    speed.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    speed.yaxis.set_major_formatter(FuncFormatter(lambda value, _: si(value)))
    age.set_ylim(bottom=0)
    short("y", age)
    figure.legend(*speed.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _in_proportion(axes: Axes, measured: pd.DataFrame) -> None:
    """Draw what the smallest runs would be if frames came in proportion to ranks."""
    smallest = measured[measured["ranks"] == measured["ranks"].min()]
    each = float(smallest["frames_per_s"].mean()) / measured["ranks"].min()
    ends = np.array([measured["ranks"].min(), measured["ranks"].max()])
    axes.plot(ends, each * ends, linestyle=":", color=FAINT, linewidth=1.2, label="in proportion to the ranks")
