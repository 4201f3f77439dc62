"""What each rank sent."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from hpcddrl.figures.style import gap_figure, panels, si, styled

ROWS = 48  # more ranks than that are drawn by their roles
WRITTEN = 200  # cells; with more of them they have no numbers
NOTHING = "no messages were logged: one rank alone sends none, and the first row comes after a logging interval"


def sent(traffic: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return the messages and bytes a second that ranks of a kind sent, all together, with each tag.

    Args:
        traffic: of one run: segment, rank, tag, time, seconds and, cumulative over a segment, messages and bytes.
        by: columns that tell kinds of ranks apart; they and the tag index the result.
    """
    ends = traffic.sort_values("time").groupby(["segment", "rank", "tag"], as_index=False).last()
    seconds = traffic.groupby("segment")["time"].max().sum()
    return ends.groupby([*by, "tag"], sort=False)[["messages", "bytes"]].sum() / seconds


@styled
def traffic_matrix(traffic: pd.DataFrame) -> Figure:
    """Draw the bytes a second that each rank (or role, with many ranks) sent with each tag."""
    if not len(traffic):
        return gap_figure(NOTHING)
    ranks = traffic["rank"].nunique()
    named = traffic.assign(who=traffic["role"] + (" " + traffic["rank"].astype(str) if ranks <= ROWS else " (all)"))
    matrix = sent(named, ["rank", "who"] if ranks <= ROWS else ["who"])["bytes"].unstack("tag").sort_index()
    matrix = matrix[matrix.sum().sort_values(ascending=False).index]
    values = matrix.to_numpy()
    figure, (axes,) = panels(1, 1, 0.9 + 0.28 * len(matrix))
    drawn = np.where(values > 0, values, np.nan)
    norm = LogNorm(vmin=max(1.0, float(np.nanmin(drawn))), vmax=max(10.0, float(np.nanmax(drawn))))
    image = axes.pcolormesh(drawn, norm=norm, cmap="Blues", edgecolors="white", linewidth=1.5)
    for row, column in np.argwhere(values > 0) if values.size <= WRITTEN else ():
        dark = norm(values[row, column]) > 0.6
        text = si(values[row, column], "B/s")
        axes.text(
            column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=8, color="white" if dark else "black"
        )
    names = [key[-1] if isinstance(key, tuple) else key for key in matrix.index]
    axes.set(xticks=np.arange(len(matrix.columns)) + 0.5, xticklabels=matrix.columns)
    axes.set(yticks=np.arange(len(matrix)) + 0.5, yticklabels=names)
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    axes.grid(visible=False)
    axes.invert_yaxis()
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.colorbar(image, label="bytes sent per second", format=lambda value, _: si(value, "B/s"), pad=0.01)
    return figure
