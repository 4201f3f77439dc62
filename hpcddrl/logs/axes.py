"""What rows are drawn over: seconds and environment frames of the whole job, joined over segments by frames.

A rank counts its own frames and seconds, from 0 in each segment. Those of the job are a sum over ranks that report at
different times, each being linear between its reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from hpcddrl.types import Array


def timed(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return one rank's tables with the column ``time`` [s] in each, as far as its table of progress tells."""
    progress = tables.get("progress", pd.DataFrame({"time": [], "frames": [], "updates": []}))
    found = {}
    for name, table in tables.items():
        if "time" in table:
            found[name] = table
        elif name == "episodes":
            found[name] = table.assign(time=_when(progress, "frames", table["frames"]))
        elif "version" in table:  # the group's own when something happened, which is no interval's end
            found[name] = table.assign(time=_when(progress, "updates", table["version"]))
        elif "tag" in table:
            parts = [part.assign(time=_last(progress["time"], len(part))) for _, part in table.groupby("tag")]
            found[name] = pd.concat(parts, ignore_index=True)
        else:
            found[name] = table.assign(time=_last(progress["time"], len(table)))
    return found


def with_axes(tables: Mapping[str, pd.DataFrame], starts: Mapping[int, float | None]) -> dict[str, pd.DataFrame]:
    """Return a run's tables with the columns ``seconds``, ``job_frames`` and ``superseded``.

    Args:
        tables: of all segments and ranks, with ``segment``, ``rank`` and ``time``.
        starts: the frames that each segment went on from. Where one does not say, all those before it are taken.
    """
    progress = tables["progress"]
    offset, frames, lines = 0.0, 0.0, dict[int, tuple[float, Array, Array]]()
    begun: dict[int, float] = {}
    for segment in sorted(starts):
        start = starts[segment]
        begun[segment] = frames if start is None else float(start)
        rows = progress[progress["segment"] == segment].groupby("rank")
        times, counts = total([(r["time"].to_numpy(), r["frames"].to_numpy()) for _, r in rows])
        lines[segment] = (offset, times, counts + begun[segment])
        offset, frames = offset + float(times[-1]), float(lines[segment][2][-1])
    return {name: _placed(table, lines, begun) for name, table in tables.items()}


def total(lines: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Return the sum [n] of polylines and its corners [n]; each begins at (0, 0) and stays as it was at its end."""
    corners, bends = [np.zeros(1)], [np.zeros(1)]
    for x, y in lines:
        x, y = np.r_[0.0, x], np.r_[0.0, y]
        rising = np.diff(x) > 0
        x, y = x[np.r_[True, rising]], y[np.r_[True, rising]]
        corners.append(x)
        bends.append(np.diff(np.diff(y) / np.diff(x), prepend=0.0, append=0.0) if len(x) > 1 else np.zeros(1))
    order = np.argsort(np.concatenate(corners), kind="stable")
    at = np.concatenate(corners)[order]
    slope = np.cumsum(np.concatenate(bends)[order])
    return at, np.r_[0.0, np.cumsum(slope[:-1] * np.diff(at))]


def _placed(
    table: pd.DataFrame, lines: Mapping[int, tuple[float, Array, Array]], begun: Mapping[int, float]
) -> pd.DataFrame:
    """Give each row of a table its place on the job's axes."""
    seconds, job_frames = np.full(len(table), np.nan), np.full(len(table), np.nan)
    superseded = np.zeros(len(table), bool)
    for segment, (offset, times, counts) in lines.items():
        here = (table["segment"] == segment).to_numpy()
        own = table["time"].to_numpy(float)[here]
        seconds[here] = offset + own
        job_frames[here] = np.interp(own, times, counts)
        later = min((frames for other, frames in begun.items() if other > segment), default=np.inf)
        superseded[here] = job_frames[here] > later
    return table.assign(seconds=seconds, job_frames=job_frames, superseded=superseded)


def _when(progress: pd.DataFrame, count: str, values: pd.Series) -> Array:
    """Return when a rank's count had these values, between its reports; NaN if it has none."""
    if not len(progress):
        return np.full(len(values), np.nan)
    known = np.r_[0.0, progress[count].to_numpy(float)]
    return np.asarray(np.interp(values.to_numpy(float), known, np.r_[0.0, progress["time"].to_numpy(float)]))


def _last(times: pd.Series, count: int) -> Array:
    """Return the last so many times: a table that began late has had a row with each since."""
    own = times.to_numpy(float)[-count:] if count else np.empty(0)
    return np.concatenate([np.full(count - len(own), np.nan), own])
