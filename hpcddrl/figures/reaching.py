"""How much it took until a return was reached: the speed-up that counts."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hpcddrl.figures.curves import NO_EPISODES, OVER, WINDOW
from hpcddrl.figures.statistics import running_mean
from hpcddrl.figures.style import dotted_bars, gap_figure, panels, styled
from hpcddrl.types import Array

REACHED = ["game", "setting", "run", "level", "job_frames", "seconds"]


def reached(episodes: pd.DataFrame, level: float | None = None, window: int = WINDOW) -> pd.DataFrame:
    """Return when the mean return of each run first reached a level: a row a run, NaN where it never did.

    Args:
        episodes: of all runs: game, setting, run, return, job_frames, seconds.
        level: of the mean of the last ``window`` episodes; None: on each game, the highest that every run reached.
        window: episodes in a mean; of a run with fewer, all it has.
    """
    rows: list[list[object]] = []
    for game, own in episodes.groupby("game", sort=False):
        curves = {key: _means(run, window) for key, run in own.groupby(["setting", "run"], sort=False)}
        goal = min(float(means.max()) for _, means in curves.values()) if level is None else level
        for (setting, run), (order, means) in curves.items():
            there = np.flatnonzero(means >= goal)
            row = order.iloc[there[0]] if len(there) else None
            at = [np.nan] * len(OVER) if row is None else [float(row[over]) for over in OVER]
            rows.append([game, setting, run, goal, *at])
    return pd.DataFrame(rows, columns=REACHED)


@styled
def reaching(found: pd.DataFrame) -> Figure:
    """Draw the frames and seconds that settings took to a return: a dot a run, a bar the mean of those that got there.

    Args:
        found: as `reached` gives it.
    """
    games = list(dict.fromkeys(found["game"]))
    if not games:
        return gap_figure(NO_EPISODES)
    most = int(found.groupby("game")["setting"].nunique().max())
    figure, axes = panels(len(games), len(OVER), 1.2 + 0.34 * most, sharey="row")
    for row, game in enumerate(games):
        own = found[found["game"] == game]
        names = list(dict.fromkeys(own["setting"]))
        for panel, (over, label) in zip(axes[len(OVER) * row :], OVER.items(), strict=False):
            dotted_bars(panel, {name: own.loc[own["setting"] == name, over].tolist() for name in names})
            panel.set_xlabel(label)
        missed = own["seconds"].isna()
        never = f"; never: {', '.join(own.loc[missed, 'run'])}" if missed.any() else ""
        axes[len(OVER) * row].set_title(f"{game}, to a mean return of {own['level'].iloc[0]:.4g}{never}")
        axes[len(OVER) * row].invert_yaxis()
    return figure


def _means(run: pd.DataFrame, window: int) -> tuple[pd.DataFrame, Array]:
    """Return a run's episodes in order, and the mean of a whole window up to each; with fewer, of them all."""
    order = run.sort_values("seconds", kind="stable")
    at = np.arange(len(order), dtype=float)
    means = running_mean(at, order["return"].to_numpy(float), at, window)
    first = min(window, len(order)) - 1
    return order.iloc[first:], means[first:]
