"""Stages of training: bands of random play, of progress and of the plateau behind the curve of returns."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hpcddrl.config.stages import DetectedStages, Telling
from hpcddrl.figures.curves import NO_EPISODES, OVER, WINDOW, curves
from hpcddrl.figures.style import COLOURS, gap_figure, panels, short, styled
from hpcddrl.figures.told import BANDS
from hpcddrl.rl.stages import decisions
from hpcddrl.types import Stage

COLUMNS = ["run", "stage", "start", "end", "reason"]
TWO = 2  # episodes at least, to draw a line


def spans(episodes: pd.DataFrame, stages: Telling | None = None) -> pd.DataFrame:
    """Return the stages of each run as its returns tell them: a row a span of frames, with its name and why it began.

    This is judged from the finished run, by the same rules (`rl.stages`) that a running one would be.

    Args:
        episodes: run, return, job_frames, superseded.
        stages: how to tell; None: detected, with the default settings.
    """
    rows: list[list[object]] = []
    for run, own in episodes[~episodes["superseded"].astype(bool)].groupby("run", sort=False):
        own = own.dropna(subset=["job_frames"]).sort_values("job_frames", kind="stable")
        if not len(own):
            continue
        made = decisions(zip(own["job_frames"], own["return"], strict=True), stages or DetectedStages())
        starts = [(Stage.EARLY, 0.0, "every run begins here"), *((d.stage, d.frames, d.reason) for d in made)]
        ends = [start for _, start, _ in starts[1:]] + [float(own["job_frames"].max())]
        rows += [
            [run, stage.name.lower(), start, end, why] for (stage, start, why), end in zip(starts, ends, strict=True)
        ]
    return pd.DataFrame(rows, columns=COLUMNS)


@styled
def stage_bands(episodes: pd.DataFrame, found: pd.DataFrame, window: int = WINDOW) -> Figure:
    """Draw the return of each run over frames, with its stages behind it.

    Args:
        episodes: run, setting, game, return, job_frames, superseded.
        found: as `spans` gives it.
        window: episodes in a mean.
    """
    kept = episodes[~episodes["superseded"].astype(bool)].dropna(subset=["job_frames"])
    runs = [(run, own) for run, own in kept.groupby("run", sort=False) if len(own) >= TWO]
    if not runs:
        return gap_figure(NO_EPISODES)
    columns = min(2, len(runs))
    figure, axes = panels(-(-len(runs) // columns), columns, 2.6)
    for panel, (run, own) in zip(axes, runs, strict=False):
        _bands(panel, found[found["run"] == run])
        at, means = curves(own, "job_frames", min(window, len(own)))
        panel.plot(at, means[0], color=COLOURS[0])
        panel.set(title=str(run), xlabel=OVER["job_frames"], ylabel="return")
        panel.set_xlim(0, float(own["job_frames"].max()))
        short("x", panel)
    for panel in axes[len(runs) :]:
        panel.set_visible(False)
    patches = [Patch(facecolor=colour, label=stage) for stage, colour in BANDS.items()]
    figure.legend(handles=patches, loc="outside upper center", ncols=len(BANDS))
    return figure


def _bands(axes: Axes, found: pd.DataFrame) -> None:
    for row in found.itertuples():
        axes.axvspan(row.start, row.end, facecolor=BANDS[row.stage], edgecolor="none", zorder=0)
