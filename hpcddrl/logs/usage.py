"""What each rank of a run's newest segment used of its machine, from its file; also of a run that was killed."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from hpcddrl.logs.run_dir import RunDirectory


class Usage(NamedTuple):
    """One rank, from the start of its clocks to its last row."""

    role: str
    wall_s: float
    cpu_s: float  # of all its threads
    wait_s: float  # of its wall time
    peak_bytes: float  # resident, as its rows saw it


def read_usage(run: Path) -> tuple[list[Usage], list[Path]]:
    """Return what the ranks used, and the files that could not be read.

    Raises:
        ValueError: this is no run, or no rank has written anything.
    """
    directory = RunDirectory(run)
    segment = max(directory.segments, default=0)
    used, unreadable = [], []
    for path in sorted(directory.rank_file(segment, 0).parent.glob("rank-*.h5")):
        try:
            used.append(_usage(path))
        except (OSError, KeyError):
            unreadable.append(path)
    if not used:
        raise ValueError(f"{run}: no run here in which a rank has written what it used")
    return used, unreadable


def _usage(path: Path) -> Usage:
    with h5py.File(path) as file:
        wall, cpu, wait = (float(np.sum(file[f"timing/{name}"][:])) for name in ("wall", "cpu", "wait"))
        return Usage(str(file.attrs["role"]), wall, cpu, wait, float(np.max(file["progress/rss"][:])))
