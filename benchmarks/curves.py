"""Learning curves: read from a run's files, kept as text in its row, drawn as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

POINTS, WINDOW = 60, 100  # points of a curve; episodes that each is the mean of
Curve = list[tuple[float, float]]  # seconds since the start, mean return


class Panel(NamedTuple):
    """The curves of one setting."""

    title: str
    curves: dict[str, Curve]  # by what stands in the legend


def read_curve(run: Path, seconds: float) -> Curve:
    """Return the mean return of the last 100 episodes of all ranks at even distances up to ``seconds``.

    A rank's file says at which of its frames an episode ended; its table of progress says when that was.
    """
    ended, returns = [np.empty(0)], [np.empty(0)]
    with h5py.File(run / "run.h5") as file:
        for rank in file["ranks"].values():
            if "episodes" in rank:
                frames, time = (np.r_[0.0, rank[f"progress/{name}"][:]] for name in ("frames", "time"))
                ended.append(np.interp(rank["episodes/frames"][:], frames, time))
                returns.append(rank["episodes/return"][:])
    order = np.argsort(np.concatenate(ended), kind="stable")
    sorted_ends, sorted_returns = np.concatenate(ended)[order], np.concatenate(returns)[order]
    curve = []
    for at in np.linspace(0, seconds, POINTS + 1)[1:]:
        seen = int(np.searchsorted(sorted_ends, at, side="right"))
        if seen:
            curve.append((float(at), float(sorted_returns[max(0, seen - WINDOW) : seen].mean())))
    return curve


def read_staleness(run: Path) -> float:
    """Return the mean staleness of the gradients that servers applied; NaN where there are none."""
    with h5py.File(run / "run.h5") as file:
        tables = [rank.get("learning/staleness_mean") for rank in file["ranks"].values()]
        intervals = np.concatenate([np.empty(0)] + [table[:] for table in tables if table is not None])
    known = intervals[np.isfinite(intervals)]
    return float(known.mean()) if len(known) else math.nan


def to_text(curve: Curve) -> str:
    """Write a curve as one cell of a CSV file."""
    return " ".join(f"{at:g}:{value:.4g}" for at, value in curve)


def from_text(text: str) -> Curve:
    """Read what `to_text` wrote."""
    return [(float(at), float(value)) for at, _, value in (point.partition(":") for point in text.split())]


def draw(path: Path, panels: Sequence[Panel]) -> bool:
    """Draw a panel below the other for every setting; return False if matplotlib isn't there."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(9, 5 * len(panels)), layout="constrained")
    for axes, panel in zip(np.ravel(figure.subplots(len(panels))), panels, strict=True):
        for number, (name, curve) in enumerate(panel.curves.items()):
            axes.plot(*zip(*curve, strict=True), label=name, linestyle="-" if number < 10 else "--")  # ten colours
        axes.set(title=panel.title, xlabel="seconds", ylabel=f"return, mean of the last {WINDOW} episodes")
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")
    figure.savefig(path, dpi=110)
    return True
