"""How fast a job was and what it held in memory, over time."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hpcddrl.figures.style import COLOURS, colours, dotted_bars, gap_figure, panels, short, styled
from hpcddrl.logs.axes import total
from hpcddrl.types import Array

RATES = {  # columns of /progress
    "env_steps": "env steps/s",
    "predictions": "observations answered/s",
    "trained": "samples trained on/s",
}
POINTS = 80
NOTHING = "no rank has written its first row yet: wait for one logging interval"


def rate(progress: pd.DataFrame, count: str, edges: Array) -> Array:
    """Return how much of a count the ranks of a run together made a second between edges [n + 1], as [n].

    Args:
        progress: of one run: segment, rank, time, seconds and ``count``, which each segment begins at 0.
        count: a cumulative column.
        edges: seconds of running.
    """
    lines = []
    for _, rows in progress.groupby(["segment", "rank"]):
        offset = rows["seconds"].iloc[0] - rows["time"].iloc[0]
        lines.append((np.r_[offset, rows["seconds"]], np.r_[0.0, rows[count].fillna(0.0)]))
    at, summed = total(lines)
    return np.diff(np.interp(edges, at, summed)) / np.diff(edges)


def mean_rate(progress: pd.DataFrame, count: str) -> float:
    """Return the mean rate of a run over all its seconds, NaN if it has none."""
    end = progress["seconds"].max()
    return float(rate(progress, count, np.array([0.0, end]))[0]) if end > 0 else float("nan")


@styled
def throughput(progress: pd.DataFrame) -> Figure:
    """Draw the rates of a run over its seconds; one that stays 0 is left out."""
    end = progress["seconds"].max()
    if not end > 0:
        return gap_figure(NOTHING)
    figure, (axes,) = panels(1, 1, 2.5)
    edges = edges_of(progress)
    looks = zip(COLOURS, (3.4, 2.2, 1.2), strict=False)  # thinner over thicker: often two of them are the same
    for (name, label), (colour, width) in zip(RATES.items(), looks, strict=False):
        if progress[name].max() > 0:
            axes.stairs(rate(progress, name, edges), edges, color=colour, label=label, linewidth=width, baseline=None)
    axes.set(xlabel="seconds of running", ylabel="of the whole job", xlim=(0, end), ylim=(0, None))
    short("y", axes, "/s")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


@styled
def throughput_of_settings(progress: pd.DataFrame) -> Figure:
    """Draw the mean rates of several settings side by side, a dot a run, a bar their mean."""
    shown = {name: label for name, label in RATES.items() if progress[name].max() > 0}
    if not shown:
        return gap_figure(NOTHING)
    settings = list(dict.fromkeys(progress["setting"]))
    figure, axes = panels(1, len(shown), 1.1 + 0.34 * len(settings), sharey="row")
    for panel, (name, label) in zip(axes, shown.items(), strict=True):
        rates = {
            setting: [mean_rate(own, name) for _, own in progress[progress["setting"] == setting].groupby("run")]
            for setting in settings
        }
        dotted_bars(panel, rates)
        panel.set_xlabel(label)
    axes[0].invert_yaxis()
    return figure


@styled
def memory(progress: pd.DataFrame) -> Figure:
    """Draw the resident memory of a run's ranks over time: a line a role, its greatest rank's; a band, all of them."""
    known = progress.dropna(subset=["rss"])
    if not len(known):
        return gap_figure(NOTHING)
    figure, (axes,) = panels(1, 1, 2.3)
    edges = edges_of(known)
    for role, (colour, _) in colours(known["role"]).items():
        own = known[known["role"] == role]
        rss = own.groupby(pd.cut(own["seconds"], edges))["rss"].agg(["min", "max"]).dropna()
        at = [bin_.right for bin_ in rss.index]
        axes.plot(at, rss["max"], color=colour, label=f"{role} × {own.groupby('segment')['rank'].nunique().max()}")
        axes.fill_between(at, rss["min"], rss["max"], color=colour, alpha=0.18, linewidth=0)
    axes.set(xlabel="seconds of running", ylabel="resident memory of a rank", ylim=(0, None), xlim=(0, edges[-1]))
    short("y", axes, "B")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def edges_of(table: pd.DataFrame) -> Array:
    """Return the edges of bins over a run's seconds, about as many as a rank has rows, `POINTS` at most."""
    rows = int(table.groupby(["segment", "rank"]).size().max())
    return np.linspace(0, float(table["seconds"].max()), min(rows, POINTS) + 1)
