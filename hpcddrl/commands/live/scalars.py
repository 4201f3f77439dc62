"""A run as named curves over frames and seconds: what is known of it at even distances of time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from hpcddrl.figures.curves import WINDOW
from hpcddrl.figures.rates import rate
from hpcddrl.figures.shares import shares_over_time
from hpcddrl.figures.statistics import running_mean
from hpcddrl.logs.read import AXES, ORIGIN, Runs
from hpcddrl.types import Array

RATES = ("frames", "env_steps", "predictions", "trained")
MEANS = ("learning", "exchange", "compression", "evaluation")  # tables whose columns are curves
MANY = 8  # groups; of more of them the mean over all is shown


class Scalars(NamedTuple):
    """Curves of a run with the same places, n of them."""

    seconds: Array  # [n] of running
    frames: Array  # [n] environment frames of the job by then
    curves: dict[str, Array]  # by name: [n], NaN where nothing is known


def scalars(run: Runs, every_s: float) -> Scalars:
    """Return a run's curves at multiples of ``every_s`` seconds, as far as all its ranks have told.

    What a resumed run did anew, from an older checkpoint, is left out, so that frames only rise.
    """
    progress = run.tables["progress"]
    newest = progress[progress["segment"] == progress["segment"].max()]
    told = float(newest.groupby("rank")["seconds"].max().min()) if len(newest) else 0.0
    edges = np.arange(0.0, told + 1e-9, every_s)
    if len(edges) < 2:
        return Scalars(np.empty(0), np.empty(0), {})
    known = progress.sort_values("seconds")
    frames = np.interp(edges[1:], known["seconds"], known["job_frames"])
    kept = ~known["superseded"].to_numpy(bool)[np.searchsorted(known["seconds"], edges[1:])]
    return Scalars(edges[1:][kept], frames[kept], {name: values[kept] for name, values in _curves(run, edges)})


def _curves(run: Runs, edges: Array) -> Iterator[tuple[str, Array]]:
    tables = run.tables
    progress, episodes = tables["progress"], tables["episodes"]
    for game, own in episodes.groupby("game", sort=False):
        x, values = own["seconds"].to_numpy(float), own["return"].to_numpy(float)
        yield f"return/{game}", running_mean(x, values, edges[1:], WINDOW)
    for name in RATES:
        yield f"rate/{name}_per_s", rate(progress, name, edges)
    for role, own in tables["timing"].groupby("role", sort=False):
        shares = shares_over_time(own, edges)
        for phase in shares:
            if (shares[phase] > 0).any():
                yield f"share_{role}/{phase}", shares[phase].to_numpy(float)
    for role, own in progress.groupby("role", sort=False):
        yield f"memory/{role}_max_bytes", _binned(own, "rss", edges, "max")
    for table in MEANS:
        yield from _means(table, tables[table], edges)


def _means(name: str, table: pd.DataFrame, edges: Array) -> Iterator[tuple[str, Array]]:
    """Yield the mean of each column of a table between the edges, of each group where they are few."""
    few = 1 < table["group"].nunique() <= MANY
    columns = [column for column in table if column not in (*ORIGIN, *AXES) and table[column].notna().any()]
    for column in columns:
        for group, own in table.groupby("group") if few else [("", table)]:
            owner = "servers" if few and group == -1 else f"group_{group}"
            yield f"{name}/{column}" + (f"/{owner}" if few else ""), _binned(own, column, edges, "mean")


def _binned(table: pd.DataFrame, column: str, edges: Array, how: str) -> Array:
    """Return the mean or greatest of a column between edges [n + 1], as [n]; NaN where there is no row."""
    bins = np.searchsorted(edges, table["seconds"].to_numpy(float), side="left") - 1
    values = table[column].groupby(bins).agg(how)
    return np.asarray(values.reindex(range(len(edges) - 1)).to_numpy(float))
