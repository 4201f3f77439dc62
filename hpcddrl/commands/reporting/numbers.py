"""The numbers of a run, computed from its tables."""

from __future__ import annotations

import math
from typing import NamedTuple

import pandas as pd

from hpcddrl.figures.ages import mean_staleness
from hpcddrl.figures.curves import WINDOW
from hpcddrl.figures.rates import mean_rate
from hpcddrl.logs.read import Runs


class Numbers(NamedTuple):
    """A run in numbers; NaN where nothing tells."""

    seconds: float  # of running, all segments
    frames: float  # environment frames, of the whole job
    frames_per_s: float
    predictions_per_s: float
    trained_per_s: float
    updates: float
    episodes: int
    return_mean: float  # of the last `WINDOW` episodes
    return_best: float
    lag: float  # updates, mean
    staleness: float  # updates, mean
    memory: float  # bytes, of the rank with the most


def numbers(run: Runs) -> Numbers:
    """Return the numbers of one run."""
    progress, episodes = run.tables["progress"], run.tables["episodes"].sort_values("seconds")
    seconds, frames = progress["seconds"].max(), progress["job_frames"].max()
    return Numbers(
        seconds=float(seconds),
        frames=float(frames),
        frames_per_s=mean_rate(progress, "frames"),
        predictions_per_s=mean_rate(progress, "predictions"),
        trained_per_s=mean_rate(progress, "trained"),
        updates=updates_of(progress),
        episodes=len(episodes),
        return_mean=float(episodes["return"].iloc[-WINDOW:].mean()),
        return_best=float(episodes["return"].max()),
        lag=float(run.tables["learning"]["lag_mean"].mean()),
        staleness=mean_staleness(run.tables["staleness"]),
        memory=float(progress["rss"].max()),
    )


def updates_of(progress: pd.DataFrame) -> float:
    """Return the optimizer's steps: the first server's, else the sum of the groups' (all learners of one take each)."""
    newest = progress[progress["segment"] == progress["segment"].max()]
    servers = newest[newest["role"] == "server"]
    if len(servers):
        return float(servers["updates"].max())
    learners = newest[newest["role"] == "learner"]
    return float(learners.groupby("group")["updates"].max().sum()) if len(learners) else math.nan
