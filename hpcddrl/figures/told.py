"""The stages that a run was told while it ran, as its log has them: bands behind its curves."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes

from hpcddrl.figures.style import FAINT

BANDS = {"early": "#DDDDDD", "middle": "#FBE3C5", "late": "#CDE6F5"}  # apart in grey, too


class Span(NamedTuple):
    """Where a run is in a stage, in frames or seconds."""

    stage: str
    start: float
    end: float


def decisions(stages: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a table of stages that say why: those of the rank that decided, in order."""
    known = stages["reason"].fillna("").astype(str) != ""
    return stages[known & ~stages["superseded"].astype(bool)].sort_values("seconds")


def spans(stages: pd.DataFrame, over: str, end: float) -> list[Span]:
    """Return the stages of one run up to ``end``, over "job_frames" or "seconds"; none where no stage was told.

    A stage that was over at once, at the same place, is left out; so is one that a segment went on with.
    """
    made = decisions(stages)
    names = list(BANDS)
    entered = [(0.0, names[0]), *((float(row[over]), names[int(row["stage"])]) for _, row in made.iterrows())]
    if len(entered) == 1:
        return []
    ends = [*(start for start, _ in entered[1:]), end]
    found: list[Span] = []
    for (start, stage), stop in zip(entered, ends, strict=True):
        if found and found[-1].stage == stage:
            found[-1] = found[-1]._replace(end=stop)
        elif stop > start:
            found.append(Span(stage, start, stop))
    return found


def shade(axes: Axes, stages: pd.DataFrame, over: str, end: float) -> None:
    """Draw the stages of one run as bands, each with its name."""
    for span in spans(stages, over, end):
        axes.axvspan(span.start, span.end, color=BANDS[span.stage], zorder=0, linewidth=0)
        axes.text(
            (span.start + span.end) / 2, 0.985, span.stage, ha="center", va="top", color=FAINT, fontsize=8,
            transform=axes.get_xaxis_transform(),
        )  # fmt: skip
