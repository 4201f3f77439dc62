"""What each rank of a run did and took, from its files: totals, counts of events and how their times scatter.

The intervals that count begin when every rank that makes updates has made some, and leave out each rank's last, with
the end of the run in it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from hpcddrl.logs.timing import Phase
from hpcddrl.types import Array

COUNTED = ("env_steps", "predictions", "trained", "updates")


class Measured(NamedTuple):
    """One rank over the intervals that count."""

    rank: int
    role: str
    wall_s: float
    cpu_s: float
    wait_cpu_s: float  # of it, spent waiting
    seconds: dict[Phase, float]
    events: dict[Phase, float]  # blocks of each phase
    squares: dict[Phase, float]  # s², of their durations
    counts: dict[str, float]  # see `COUNTED`
    messages: dict[str, float]  # sent, by tag's name
    nbytes: dict[str, float]
    lag: float  # mean; NaN where nothing has an age


def read_measured(run: Path) -> tuple[Measured, ...]:
    """Read the newest segment of a run.

    Raises:
        ValueError: this is no run, it was too short, or it was written before times of events were logged.
    """
    try:
        with h5py.File(run / "run.h5") as file:
            ranks = [file["ranks"][name] for name in sorted(file["ranks"])]
            if any("events" not in rank for rank in ranks):
                raise ValueError(f"{run}: its files have no /events, which came later; run it again with this version")
            start_s = max(_first_update_s(rank) for rank in ranks)
            return tuple(_measured(rank, start_s, run) for rank in ranks)
    except (OSError, KeyError) as error:
        raise ValueError(f"{run}: no readable run here: {error}") from error


def _first_update_s(file: h5py.Group) -> float:
    """Return the end of the interval with a rank's first update, of the ranks that make any."""
    if file.attrs["role"] not in ("learner", "server"):
        return 0.0
    made = np.flatnonzero(file["progress/updates"][:])
    return float(file["progress/time"][made[0]]) if len(made) else math.inf


def _measured(file: h5py.Group, start_s: float, run: Path) -> Measured:
    times = file["progress/time"][:]
    rows = len(times)
    first = int(np.searchsorted(times, start_s)) + 1
    if first >= rows - 1:
        raise ValueError(
            f"{run}: too short to tell, no whole interval of {_interval_s(file):g} s between its start and its end; "
            "run it longer, or with a shorter logging.interval_s"
        )
    counted = slice(first, rows - 1)

    def total(name: str) -> float:
        return float(np.nansum(_column(file, name, rows)[counted]))

    def gained(name: str) -> float:
        cumulative = np.nan_to_num(_column(file, name, rows))
        return float(cumulative[rows - 2] - cumulative[first - 1])

    tags = list(file.get("traffic", ()))
    lags = _column(file, "learning/lag_mean", rows)[counted]
    return Measured(
        rank=int(file.attrs["world_rank"]),
        role=str(file.attrs["role"]),
        wall_s=total("timing/wall"),
        cpu_s=total("timing/cpu"),
        wait_cpu_s=total("waiting/cpu"),
        seconds={phase: total(f"timing/{phase}") for phase in Phase},
        events={phase: total(f"events/{phase}") for phase in Phase},
        squares={phase: total(f"squares/{phase}") for phase in Phase},
        counts={name: gained(f"progress/{name}") for name in COUNTED},
        messages={tag: gained(f"traffic/{tag}/messages") for tag in tags},
        nbytes={tag: gained(f"traffic/{tag}/bytes") for tag in tags},
        lag=float(np.nanmean(lags)) if np.isfinite(lags).any() else math.nan,
    )


def _interval_s(file: h5py.Group) -> float:
    return float(json.loads(file.attrs["config"])["logging"]["interval_s"])


def _column(file: h5py.Group, name: str, rows: int) -> Array:
    """Return a column [rows]; NaN before its table's first row, for a table begins when there is something in it."""
    values = file[name][-rows:] if name in file else np.empty(0)
    return np.concatenate([np.full(rows - len(values), np.nan), values])
