"""Learning curves: from a run's episodes, kept as text in its row, drawn as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from hpcddrl.figures.curves import WINDOW
from hpcddrl.figures.statistics import running_mean
from hpcddrl.figures.style import colours, panels, short, styled

POINTS = 60  # of a curve
Curve = list[tuple[float, float]]  # seconds since the start, mean return


class Panel(NamedTuple):
    """The curves of one setting."""

    title: str
    curves: dict[str, Curve]  # by what stands in the legend


def curve_of(episodes: pd.DataFrame, seconds: float) -> Curve:
    """Return the mean return of the last 100 episodes of all ranks at even distances up to ``seconds``."""
    at = np.linspace(0, seconds, POINTS + 1)[1:]
    means = running_mean(episodes["seconds"].to_numpy(float), episodes["return"].to_numpy(float), at, WINDOW)
    return [(float(x), float(mean)) for x, mean in zip(at, means, strict=True) if np.isfinite(mean)]


def to_text(curve: Curve) -> str:
    """Write a curve as one cell of a CSV file."""
    return " ".join(f"{at:g}:{value:.4g}" for at, value in curve)


def from_text(text: str) -> Curve:
    """Read what `to_text` wrote."""
    return [(float(at), float(value)) for at, _, value in (point.partition(":") for point in text.split())]


@styled
def draw(path: Path, settings: Sequence[Panel]) -> None:
    """Draw a panel below the other for every setting."""
    figure, axes = panels(len(settings), 1, 5)
    for panel, setting in zip(axes, settings, strict=True):
        for name, (colour, line) in colours(setting.curves).items():
            panel.plot(*zip(*setting.curves[name], strict=True), label=name, color=colour, linestyle=line)
        panel.set(title=setting.title, xlabel="seconds", ylabel=f"return, mean of the last {WINDOW} episodes")
        short("x", panel)
        panel.legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=110)
