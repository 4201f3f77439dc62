"""What a run did once it was going: rates and shares of wall time, its start left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

START_S = 10.0  # in which ranks build their parts and actors fill their first rollouts


class Steady(NamedTuple):
    """A run after its start."""

    rates: dict[str, float]  # by column of /progress: per second, all ranks
    shares: dict[str, dict[str, float]]  # by role, then phase: of wall time, the mean over ranks


def read_steady(run: Path, columns: Sequence[str], start_s: float = START_S) -> Steady:
    """Read the rates of some cumulative columns, and the phases, from the intervals that began after ``start_s``.

    Raises:
        ValueError: a rank has no such interval.
    """
    rates: dict[str, float] = dict.fromkeys(columns, 0.0)
    shares: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with h5py.File(run / "run.h5") as file:
        for number, rank in file["ranks"].items():
            time = rank["progress/time"][:]
            first = int(np.searchsorted(time, start_s))
            if first > len(time) - 2:
                raise ValueError(f"{run}: rank {number} has no interval after its first {start_s:g} s; run longer")
            for column in columns:
                counted = rank[f"progress/{column}"][first:]
                rates[column] += float(counted[-1] - counted[0]) / float(time[-1] - time[first])
            wall = rank["timing/wall"][first + 1 :].sum()
            for phase in set(rank["timing"]) - {"wall", "cpu"}:
                share = float(np.nansum(rank[f"timing/{phase}"][first + 1 :]) / wall)
                shares[rank.attrs["role"]][phase].append(share)
    means = {role: {phase: float(np.mean(of)) for phase, of in phases.items()} for role, phases in shares.items()}
    return Steady(rates, means)
