"""Where a run stands: the numbers of its newest rows, and how they came to be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hpcddrl.commands.reporting.numbers import updates_of
from hpcddrl.figures.ages import lag_over_time, mean_staleness
from hpcddrl.figures.curves import WINDOW
from hpcddrl.figures.evaluations import rounds
from hpcddrl.figures.rates import rate
from hpcddrl.figures.shares import phase_shares
from hpcddrl.figures.statistics import running_mean
from hpcddrl.logs.read import Runs
from hpcddrl.types import Array, Stage

RECENT_S = 30.0  # over which rates and shares are averaged
SILENT_INTERVALS = 3  # behind the newest row of any rank, after which a rank counts as silent
POINTS = 32  # of a history


class Curve(NamedTuple):
    """A quantity now, its best or greatest, and how it came there."""

    now: float
    extreme: float
    history: Array  # [at most POINTS], NaN where it is not known


class RoleNow(NamedTuple):
    """What the ranks of a role do, all together, over the last `RECENT_S`."""

    role: str
    ranks: int
    env_steps: float  # a second
    predictions: float
    trained: float
    processors: float  # busy with each of its ranks
    memory: float  # bytes, of all
    shares: Mapping[str, float]  # of wall time, by phase


class Window(NamedTuple):
    """The seconds of a run that count as now."""

    start: float
    end: float
    silent: Mapping[int, float]  # ranks that write no more, and the seconds that they are behind


class Now(NamedTuple):
    """A run as it stands; NaN where nothing tells."""

    seconds: float
    frames: float
    frames_per_s: float
    done: float  # share of the budget that ends first
    left_s: float
    updates: float
    episodes: int
    roles: tuple[RoleNow, ...]
    returns: Mapping[str, Curve]  # by environment
    evaluated: Curve | None  # mean over groups of each round; None where nothing was
    lag: Curve
    staleness: float
    stage: tuple[Stage, float] | None  # in which the newest rank is, and the seconds at which it entered it
    exchange: Mapping[str, float]  # means over groups of their newest rows; empty without any
    silent: Mapping[int, float]


def now_of(run: Runs) -> Now:
    """Return where one run stands."""
    progress, episodes = run.tables["progress"], run.tables["episodes"]
    (config,) = run.configs.values()
    if not len(progress):  # nobody has written a row yet
        return Now(0.0, 0.0, math.nan, 0.0, math.nan, 0.0, 0, (), {}, None, _no_curve(), math.nan, None, {}, {})
    window = _window(progress, config["logging"]["interval_s"])
    frames, frames_per_s = float(progress["job_frames"].max()), _rate(progress, "frames", window)
    done, left_s = _budget(config["budget"], window.end, frames, frames_per_s)
    return Now(
        seconds=window.end,
        frames=frames,
        frames_per_s=frames_per_s,
        done=done,
        left_s=left_s,
        updates=updates_of(progress),
        episodes=len(episodes),
        roles=tuple(
            _role(str(role), own, run.tables["timing"], window) for role, own in progress.groupby("role", sort=False)
        ),
        returns={str(game): _returns(own) for game, own in episodes.groupby("game", sort=False)},
        evaluated=_evaluated(run.tables["evaluation"]),
        lag=_lag(run.tables["learning"]),
        staleness=mean_staleness(_recent(run.tables["staleness"], window)),
        stage=_stage(run.tables.get("stages", pd.DataFrame())),
        exchange=_exchange(run.tables["exchange"]),
        silent=window.silent,
    )


def _window(progress: pd.DataFrame, interval_s: float) -> Window:
    """Return the newest seconds that all ranks but the silent ones have told of."""
    newest = progress[progress["segment"] == progress["segment"].max()]
    last = newest.groupby("rank")["seconds"].max()
    behind = last.max() - last
    silent = behind > SILENT_INTERVALS * interval_s
    end = float(last[~silent].min())
    began = float((newest["seconds"] - newest["time"]).min())
    return Window(
        max(began, end - RECENT_S), end, {int(rank): float(behind[rank]) for rank in silent.index[silent].tolist()}
    )


def _recent(table: pd.DataFrame, window: Window) -> pd.DataFrame:
    newest = table["segment"] == table["segment"].max()
    return table[newest & (table["seconds"] > window.start)]


def _rate(progress: pd.DataFrame, count: str, window: Window) -> float:
    if not window.end > window.start:
        return math.nan
    return float(rate(progress, count, np.array([window.start, window.end]))[0])


def _budget(budget: Mapping[str, Any], seconds: float, frames: float, frames_per_s: float) -> tuple[float, float]:
    """Return the share done and the seconds left of whichever part of a budget ends first."""
    parts = []
    if budget.get("frames"):
        left = max(0.0, budget["frames"] - frames)
        parts.append((frames / budget["frames"], left / frames_per_s if frames_per_s > 0 else math.inf))
    if budget.get("seconds"):
        parts.append((seconds / budget["seconds"], max(0.0, budget["seconds"] - seconds)))
    done, left_s = min(parts, key=lambda part: part[1], default=(math.nan, math.nan))
    return min(1.0, done), left_s


def _role(role: str, progress: pd.DataFrame, timing: pd.DataFrame, window: Window) -> RoleNow:
    own = _recent(timing[timing["role"] == role], window)
    shares = phase_shares(own, ["role"])
    newest = progress[progress["segment"] == progress["segment"].max()].groupby("rank")
    return RoleNow(
        role=role,
        ranks=newest.ngroups,
        env_steps=_rate(progress, "env_steps", window),
        predictions=_rate(progress, "predictions", window),
        trained=_rate(progress, "trained", window),
        processors=float(own["cpu"].sum() / own["wall"].sum()) if len(own) else math.nan,
        memory=float(newest["rss"].last().sum()),
        shares=shares.loc[role].to_dict() if role in shares.index else {},
    )


def _returns(episodes: pd.DataFrame) -> Curve:
    """Return the mean return of the last `WINDOW` episodes, the best of all, and that mean over the seconds."""
    x, values = episodes["seconds"].to_numpy(float), episodes["return"].to_numpy(float)
    history = running_mean(x, values, np.linspace(0.0, x.max(), POINTS), WINDOW)
    return Curve(float(history[-1]), float(values.max()), history)


def _evaluated(evaluation: pd.DataFrame) -> Curve | None:
    """Return the newest round of evaluations, the best, and the last `POINTS` of them."""
    if not len(evaluation):
        return None
    values = rounds(evaluation.assign(setting=""), {})["return"].to_numpy(float)
    return Curve(float(values[-1]), float(values.max()), values[-POINTS:])


def _lag(learning: pd.DataFrame) -> Curve:
    known = learning.dropna(subset=["lag_mean"])
    if not len(known):
        return _no_curve()
    line = lag_over_time(known).iloc[-POINTS:]
    return Curve(float(line["lag_mean"].iloc[-1]), float(line["lag_max"].iloc[-1]), line["lag_mean"].to_numpy(float))


def _stage(stages: pd.DataFrame) -> tuple[Stage, float] | None:
    """Return the stage that was entered last; None for a run without stages."""
    if not len(stages):
        return None
    newest = stages.loc[stages["seconds"].idxmax()]
    return Stage(int(newest["stage"])), float(newest["seconds"])


def _exchange(exchange: pd.DataFrame) -> dict[str, float]:
    known = exchange.dropna(subset=["version"])
    columns = [name for name in ("peers", "age", "beta", "kl", "divergence", "disagreement") if name in known]
    if not len(known):
        return {}
    means = known.sort_values("seconds").groupby("group")[columns].last().mean()
    return {name: float(value) for name, value in means.items() if math.isfinite(value)}


def _no_curve() -> Curve:
    return Curve(math.nan, math.nan, np.empty(0))
