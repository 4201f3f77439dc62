"""How old data and gradients were when they were learned from, in updates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpcddrl.figures.style import COLOURS, INK, dotted_bars, gap, gap_figure, panels, short, styled

POINTS = 120
BARS = 40
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8}  # under text
NO_LAG = "no lag was logged: no learner has made an update yet"


@styled
def ages(learning: pd.DataFrame, staleness: pd.DataFrame) -> Figure:
    """Draw lag over time with its spread, how the intervals' mean lags are distributed, and staleness if there is any.

    Args:
        learning: lag_min, lag_mean, lag_max [updates] and seconds, of one run.
        staleness: a row a bin of an interval's histogram: staleness [updates], count; empty without servers.
    """
    figure, axes = panels(1, 3 if len(staleness) else 2, 2.4)
    _lag_over_time(axes[0], learning)
    _lags(axes[1], learning)
    if len(staleness):
        _staleness(axes[2], staleness)
    return figure


@styled
def ages_of_settings(learning: pd.DataFrame, staleness: pd.DataFrame) -> Figure:
    """Draw the mean lag and staleness of several settings side by side, a dot a run, a bar their mean.

    Args:
        learning: of all runs: setting, run and lag_mean [updates].
        staleness: setting, run, staleness [updates], count; empty without servers.
    """
    names = list(dict.fromkeys(learning["setting"]))
    if not names:
        return gap_figure(NO_LAG)
    figure, axes = panels(1, 2 if len(staleness) else 1, 1.1 + 0.34 * len(names), sharey="row")
    dotted_bars(axes[0], _by_run(learning, names, lambda own: float(own["lag_mean"].mean())))
    axes[0].set_xlabel("lag of data, updates" if learning["lag_mean"].notna().any() else NO_LAG)
    if len(staleness):
        dotted_bars(axes[1], _by_run(staleness, names, mean_staleness))
        axes[1].set_xlabel("staleness of gradients, updates")
    axes[0].invert_yaxis()
    return figure


def _by_run(table: pd.DataFrame, names: Sequence[str], mean: Callable[[pd.DataFrame], float]) -> dict[str, list[float]]:
    """Return a number for each run of each setting."""
    return {name: [mean(own) for _, own in table[table["setting"] == name].groupby("run")] for name in names}


def mean_staleness(staleness: pd.DataFrame) -> float:
    """Return the mean age of applied gradients, NaN if there are none."""
    counts = staleness["count"].to_numpy(float)
    return float(np.average(staleness["staleness"].to_numpy(float), weights=counts)) if counts.sum() else float("nan")


def lag_over_time(learning: pd.DataFrame) -> pd.DataFrame:
    """Return least, mean and greatest lag of all learners together, in about as many bins as one of them has rows."""
    rows = int(learning.groupby(["segment", "rank"]).size().max())
    bins = pd.cut(learning["seconds"], min(rows, POINTS), labels=False)
    how = {"seconds": "mean", "lag_min": "min", "lag_mean": "mean", "lag_max": "max"}
    return learning.groupby(bins).agg(how).reset_index(drop=True)


def _lag_over_time(axes: Axes, learning: pd.DataFrame) -> None:
    known = learning.dropna(subset=["lag_mean"])
    if not len(known):
        gap(axes, NO_LAG)
        return
    line = lag_over_time(known)
    axes.fill_between(line["seconds"], line["lag_min"], line["lag_max"], color=COLOURS[0], alpha=0.2, linewidth=0)
    axes.plot(line["seconds"], line["lag_mean"], color=COLOURS[0])
    axes.set(title="lag: mean, least to greatest", xlabel="seconds of running", ylabel="updates")
    axes.set_ylim(0, max(1.0, 1.05 * line["lag_max"].max()))
    short("y", axes)


def _lags(axes: Axes, learning: pd.DataFrame) -> None:
    lags = learning["lag_mean"].dropna().to_numpy(float)
    if not len(lags):
        gap(axes, NO_LAG)
        return
    edges = np.linspace(min(0.0, lags.min()), max(1.0, lags.max()), min(BARS, max(8, len(lags) // 3)) + 1)
    axes.hist(lags, bins=edges.tolist(), color=COLOURS[0], edgecolor="white")
    _mark(axes, float(lags.mean()))
    axes.set(title="lag: means of the intervals", xlabel="updates", ylabel="intervals")
    short("y", axes, whole=True)


def _staleness(axes: Axes, staleness: pd.DataFrame) -> None:
    counts = staleness.groupby("staleness")["count"].sum()
    most = int(counts.index.max())
    edges = np.linspace(-0.5, most + 0.5, min(most, BARS) + 2)
    axes.hist(counts.index, bins=edges.tolist(), weights=counts, color=COLOURS[1], edgecolor="white")
    _mark(axes, mean_staleness(staleness))
    axes.set(title="staleness of applied gradients", xlabel="updates", ylabel="gradients")
    short("x", axes, whole=True)
    short("y", axes, whole=True)


def _mark(axes: Axes, mean: float) -> None:
    axes.axvline(mean, color=INK, linewidth=1, linestyle="--")
    axes.annotate(
        f" mean {mean:.3g}", (mean, 0.97), xycoords=("data", "axes fraction"), va="top", fontsize=8.5, bbox=PAPER
    )
