"""Learning curves over frames and over seconds, and what the learners logged beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpcddrl.figures.statistics import binned, interquartile_mean, interval, running_mean
from hpcddrl.figures.style import FAINT, colours, gap_figure, panels, short, styled
from hpcddrl.figures.told import shade
from hpcddrl.types import Array

WINDOW = 100  # episodes that each point of a curve is the mean of
POINTS = 120
MANY = 8  # groups; more of them are drawn with their mean
OVER = {"job_frames": "environment frames", "seconds": "seconds of running"}
NO_EPISODES = "no episode has finished yet: there is no return to draw"


@styled
def learning_curves(
    episodes: pd.DataFrame,
    window: int = WINDOW,
    label: str | None = None,
    stages: pd.DataFrame | None = None,
    settings: Sequence[str] = (),
) -> Figure:
    """Draw returns over frames and over seconds: a row an environment, a line a setting, faint lines its seeds.

    A line is the interquartile mean over the seeds, the band its 95 % bootstrap interval. It reaches as far as all
    of them do.

    Args:
        episodes: a row a finished episode: run, setting, game, return, job_frames, seconds, superseded.
        window: episodes that each point is the mean of.
        label: of the vertical axes, if the rows are something else than returns of episodes.
        stages: of the one run that is drawn, as bands: stage, reason, job_frames, seconds, superseded.
        settings: that take the first colours, in this order, so that several figures agree.
    """
    games = list(dict.fromkeys(episodes["game"]))
    if not games:
        return gap_figure(NO_EPISODES)
    looks = colours([*settings, *episodes["setting"]])
    figure, axes = panels(len(games), len(OVER), 3.4, sharey="row")
    for row, game in enumerate(games):
        own = episodes[episodes["game"] == game]
        for panel, over in zip(axes[len(OVER) * row :], OVER, strict=False):
            kept = own[~own["superseded"].astype(bool)] if over == "job_frames" else own
            for setting, theirs in kept.groupby("setting", sort=False):
                _curve(panel, theirs, over, looks[str(setting)], str(setting), window)
            panel.set(xlabel=OVER[over], title=game if over == "job_frames" else "")
            short("x", panel)
            panel.set_xlim(left=0)
            if stages is not None:
                shade(panel, stages, over, float(kept[over].max()))
        axes[len(OVER) * row].set_ylabel(label or f"return, last {window} episodes")
    handles = {
        label: handle for panel in axes for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    if len(handles) > 1:
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=min(4, len(handles)))
    return figure


def _curve(axes: Axes, episodes: pd.DataFrame, over: str, look: tuple[str, str], label: str, window: int) -> None:
    """Draw one setting."""
    colour, line = look
    at, seeds = curves(episodes, over, window)
    for seed in seeds if len(seeds) > 1 else ():
        axes.plot(at, seed, color=colour, linewidth=0.7, alpha=0.45)
    axes.plot(at, interquartile_mean(seeds), color=colour, linestyle=line, label=label)
    if len(seeds) > 1 and np.isfinite(seeds).all():  # NaN where one ended before another's first episode
        axes.fill_between(at, *interval(seeds), color=colour, alpha=0.18, linewidth=0)


def curves(episodes: pd.DataFrame, over: str, window: int = WINDOW, points: int = POINTS) -> tuple[Array, Array]:
    """Return the running mean return of a setting's runs at even distances, as far as all of them reach.

    Args:
        episodes: of one setting: run, return and the column ``over``; at least one.
        over: "job_frames" or "seconds".
        window: episodes in a mean.
        points: of a curve.

    Returns:
        where [points], the means [runs, points].
    """
    runs = [
        (own[over].to_numpy(float), own["return"].to_numpy(float)) for _, own in episodes.groupby("run", sort=False)
    ]
    start = max(np.sort(x)[min(window, len(x)) // 4] for x, _ in runs)  # before, a mean of so few says little
    end = min(x.max() for x, _ in runs)
    at = np.linspace(min(start, end), end, points)
    return at, np.stack([running_mean(x, values, at, window) for x, values in runs])


def final_returns(episodes: pd.DataFrame, window: int = WINDOW) -> pd.DataFrame:
    """Return how each setting ended on each environment: seeds, iqm, low, high of the last episodes' mean returns.

    ``low`` and ``high`` are NaN where there is one seed only.
    """
    rows = []
    for (game, setting), own in episodes.groupby(["game", "setting"], sort=False):
        last = [run.sort_values("seconds")["return"].to_numpy()[-window:].mean() for _, run in own.groupby("run")]
        seeds = np.array(last)
        low, high = interval(seeds) if len(seeds) > 1 else (np.nan, np.nan)
        rows.append([game, setting, len(seeds), float(interquartile_mean(seeds)), float(low), float(high)])
    return pd.DataFrame(rows, columns=["game", "setting", "seeds", "iqm", "low", "high"])


@styled
def learned(learning: pd.DataFrame, names: Sequence[str], units: Mapping[str, str]) -> Figure:
    """Draw what learners logged over frames, a panel a quantity and a line a group; those never logged are left out.

    Of many groups the lines are faint, with their mean.

    Args:
        learning: of one run: group, job_frames, superseded and the quantities.
        names: of the quantities.
        units: by name; "1" is not written.
    """
    kept = learning[~learning["superseded"].astype(bool)]
    names = [name for name in names if kept[name].notna().any()]
    if not names:
        return gap_figure("no update has been made yet: nothing was logged of learning")
    columns = min(3, len(names))
    figure, axes = panels(-(-len(names) // columns), columns, 2.1)
    for panel, name in zip(axes, names, strict=False):
        _groups(panel, kept, name)
        unit = units.get(name, "1")
        panel.set(title=name.replace("_", " "), ylabel="" if unit == "1" else unit)
        short("x", panel)
        short("y", panel)
    for panel in axes[max(0, len(names) - columns) : len(names)]:
        panel.set_xlabel(OVER["job_frames"])
    for panel in axes[len(names) :]:
        panel.set_visible(False)
    if kept["group"].nunique() > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=MANY)
    return figure


def _groups(axes: Axes, learning: pd.DataFrame, name: str) -> None:
    """Draw a quantity of each group."""
    looks = colours("servers" if group < 0 else f"group {group}" for group in sorted(learning["group"].unique()))
    many = len(looks) > MANY
    for (owner, (colour, dashes)), (_, own) in zip(looks.items(), learning.groupby("group"), strict=True):
        line = binned(own, "job_frames", [name], POINTS)
        look: Any = {"color": FAINT, "alpha": 0.3, "linewidth": 0.6} if many else {"color": colour, "linestyle": dashes}
        axes.plot(line["job_frames"], line[name], label="" if many else owner, **({"linewidth": 1.2} | look))
    if many:
        mean = binned(learning, "job_frames", [name], POINTS)
        axes.plot(mean["job_frames"], mean[name], label=f"mean of {len(looks)}")
