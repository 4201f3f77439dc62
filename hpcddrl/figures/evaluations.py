"""Evaluations beside the training: what the weights reached in full games, over frames and over seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpcddrl.figures.curves import MANY, OVER, WINDOW, curves
from hpcddrl.figures.style import FAINT, colours, gap_figure, panels, short, styled

NOTHING = "nothing was evaluated while it ran; run --evaluate-every FRAMES does"
SPAN = ["job_frames", "seconds"]


def rounds(evaluation: pd.DataFrame, games: Mapping[str, str]) -> pd.DataFrame:
    """Return the mean over groups of the first, second, … evaluation of each run, as `curves.learning_curves` takes it.

    A group's evaluations are numbered as they were made, without those that a resumed run made anew; a round is placed
    where its last group's games began.

    Args:
        evaluation: run, setting, group, return, job_frames, seconds, superseded.
        games: what each run plays.
    """
    kept = evaluation[~evaluation["superseded"].astype(bool)].sort_values("seconds", kind="stable")
    number = kept.groupby(["run", "group"]).cumcount().rename("round")
    means = kept.groupby(["run", "setting", number], sort=False).agg({"return": "mean", **dict.fromkeys(SPAN, "max")})
    found = means.reset_index().drop(columns="round")
    return found.assign(superseded=False, game=found["run"].map(games))


@styled
def evaluation_curves(evaluation: pd.DataFrame, episodes: pd.DataFrame) -> Figure:
    """Draw one run's evaluations over frames and seconds, a line a group, beside its returns while training (faint).

    A band is the 95 % interval over the games; of many groups there is only the mean over all.

    Args:
        evaluation: run, group, return, low, high, job_frames, seconds, superseded.
        episodes: as `curves.learning_curves` takes them, of the game that is evaluated.
    """
    if not len(evaluation):
        return gap_figure(NOTHING)
    figure, axes = panels(1, len(OVER), 3.2, sharey="row")
    for panel, over in zip(axes, OVER, strict=True):
        kept = evaluation[~evaluation["superseded"].astype(bool)] if over == "job_frames" else evaluation
        seen = episodes[~episodes["superseded"].astype(bool)] if over == "job_frames" else episodes
        if len(seen):
            at, (line, *_) = curves(seen, over)
            panel.plot(at, line, color=FAINT, linewidth=1.0, label=f"training, last {WINDOW} episodes")
        _groups(panel, kept, over)
        panel.set(xlabel=OVER[over])
        panel.set_xlim(left=0)
        short("x", panel)
    axes[0].set_ylabel("return of full games")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure


def _groups(axes: Axes, evaluation: pd.DataFrame, over: str) -> None:
    """Draw each group's evaluations, or the mean over many."""
    looks = colours(f"group {group}" for group in sorted(evaluation["group"].unique()))
    if len(looks) > MANY:
        mean = rounds(evaluation.assign(setting=""), {}).sort_values(over)
        axes.plot(mean[over], mean["return"], marker="o", markersize=3.5, label=f"evaluated, mean of {len(looks)}")
        return
    for (name, (colour, dashes)), (_, own) in zip(looks.items(), evaluation.groupby("group"), strict=True):
        own = own.sort_values(over)
        look: Any = {"color": colour, "linestyle": dashes}
        label = "evaluated" if len(looks) == 1 else f"evaluated, {name}"
        axes.plot(own[over], own["return"], marker="o", markersize=3.5, label=label, **look)
        axes.fill_between(own[over], own["low"], own["high"], color=colour, alpha=0.15, linewidth=0)
