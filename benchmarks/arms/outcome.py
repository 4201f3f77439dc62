"""What came of a run, as a row: returns of its groups, when it reached what, where its time went, its curve."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.rows import Row
from hpcddrl.figures.curves import WINDOW
from hpcddrl.figures.shares import PHASES
from hpcddrl.figures.statistics import running_mean
from hpcddrl.logs.read import read_runs
from hpcddrl.types import Array

POINTS = 60  # of a curve in a row
FINE = 70 * POINTS  # moments at which returns are looked at
LEAST = WINDOW // 4  # games of every group before a return counts as reached
RATES = ("frames", "wall_s", "frames_per_s", "predictions_per_s", "trained_per_s", "lag", "updates")
VALUES = ("final", "best_group", "groups", "reached", *RATES, "phases", "curve")
SCORE = re.compile(r"^(\S+)(?: version \d+)?(?: \([\d,]+ frames\))?: return (\S+) \[", re.MULTILINE)


class Course(NamedTuple):
    """The return of a run's groups over time; NaN where one has finished no game yet."""

    seconds: Array  # [points]
    frames: Array  # [points] of the whole job
    groups: Array  # [groups, points] mean of the group's last `WINDOW` games
    games: Array  # [groups, points] that it had finished

    @property
    def mean(self) -> Array:
        """Return the mean over the groups [points]."""
        return np.asarray(self.groups.mean(0))

    @property
    def best(self) -> Array:
        """Return the best group's at each moment [points]."""
        return np.asarray(self.groups.max(0))


def course_of(episodes: pd.DataFrame, progress: pd.DataFrame, seconds: float, points: int) -> Course:
    """Return the course of one run at even distances up to its end."""
    at = np.linspace(0, seconds, points + 1)[1:]
    known = progress.sort_values("seconds")
    frames = np.interp(at, known["seconds"], known["job_frames"])
    groups, games = [], []
    for group in groups_of(progress):
        own = episodes[episodes["group"] == group]
        ended = own["seconds"].to_numpy(float)
        groups.append(running_mean(ended, own["return"].to_numpy(float), at, WINDOW))
        games.append(np.searchsorted(np.sort(ended), at, side="right"))
    return Course(at, frames, np.stack(groups), np.stack(games))


def groups_of(progress: pd.DataFrame) -> list[int]:
    """Return the groups of a run, servers being of none."""
    return sorted(group for group in progress["group"].unique() if group >= 0)


def reached(course: Course, target: float) -> tuple[float, float]:
    """Return the frames and seconds after which the groups' mean return was a target's, NaN if it never was."""
    there = (course.mean >= target) & (course.games >= LEAST).all(0)
    if not there.any():
        return np.nan, np.nan
    first = int(np.argmax(there))
    return float(course.frames[first]), float(course.seconds[first])


def phases_of(timing: pd.DataFrame) -> dict[str, float]:
    """Return the seconds that a rank of each role spent in each phase, the mean over its ranks, by role.phase."""
    known = [phase for phase in PHASES if phase in timing]
    whole = timing.groupby(["role", "segment", "rank"])[known].sum()
    each = whole.groupby("role").mean()
    found = {f"{role}.{phase}": float(each.loc[role, phase]) for role in each.index for phase in known}
    return {name: seconds for name, seconds in found.items() if seconds > 0}


def scores_of(printed: str) -> dict[str, float]:
    """Return what `export` or `evaluate` printed of each network's mean return, by the network's name."""
    return {name: float(value) for name, value in SCORE.findall(printed)}


def row_of(run: Path, targets: Sequence[float]) -> Row:
    """Read a finished run into a row, but for its scores."""
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    tables = read_runs([run]).tables
    seconds = float(summary["wall_s"])
    course = course_of(tables["episodes"], tables["progress"], seconds, FINE)
    groups = last_returns(tables["episodes"], groups_of(tables["progress"]))
    return {
        "final": _number(float(np.mean(groups))),
        "best_group": _number(float(np.max(groups))),
        "groups": to_text({str(group): value for group, value in enumerate(groups)}),
        "reached": " ".join(":".join(map(_number, (target, *reached(course, target)))) for target in targets),
        "frames": f"{summary['frames']:.0f}",
        "wall_s": _number(seconds),
        "frames_per_s": _number(summary["frames"] / seconds),
        "predictions_per_s": _number(summary["predictions_per_s"]),
        "trained_per_s": _number(summary["trained_samples_per_s"]),
        "lag": "" if summary["lag_mean"] is None else _number(summary["lag_mean"]),
        "updates": f"{summary['updates']:.0f}",
        "phases": to_text(phases_of(tables["timing"])),
        "curve": " ".join(":".join(map(_number, point)) for point in thinned(course)),
    }


def last_returns(episodes: pd.DataFrame, groups: Sequence[int]) -> list[float]:
    """Return the mean return of each group's last `WINDOW` games, NaN of a group that finished none."""
    ordered = episodes.sort_values("seconds", kind="stable")
    return [float(ordered["return"][ordered["group"] == group].iloc[-WINDOW:].mean()) for group in groups]


def thinned(course: Course) -> Array:
    """Return the points of a curve: frames, seconds, mean and best group [points, 4], once all groups have a return."""
    every = max(1, len(course.seconds) // POINTS)
    points = np.stack([course.frames, course.seconds, course.mean, course.best], 1)[every - 1 :: every]
    return np.asarray(points[np.isfinite(points).all(1)])


def _number(value: float) -> str:
    """Write a number with six digits; nothing if there is none."""
    return f"{value:.6g}" if np.isfinite(value) else ""


def to_text(numbers: Mapping[str, float]) -> str:
    """Write named numbers as one cell of a CSV file."""
    return " ".join(f"{name}:{value:.6g}" for name, value in numbers.items())


def from_text(text: str) -> dict[str, float]:
    """Read what `to_text` wrote."""
    return {name: float(value) for name, _, value in (part.partition(":") for part in text.split())}


def points_of(row: Row) -> pd.DataFrame:
    """Return a row's curve: frames, seconds, mean, best."""
    points = [[float(x) for x in point.split(":")] for point in row["curve"].split()]
    return pd.DataFrame(points, columns=["frames", "seconds", "mean", "best"])


def passed(row: Row) -> dict[float, tuple[float, float]]:
    """Return the frames and seconds after which a run had reached each target, NaN if it never had."""
    parts = [[float(x or "nan") for x in part.split(":")] for part in row["reached"].split()]
    return {target: (frames, seconds) for target, frames, seconds in parts}
