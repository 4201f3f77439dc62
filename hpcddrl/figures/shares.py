"""Where the time went: every second of a rank belongs to one phase, so the shares of a role add up to one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpcddrl.figures.rates import NOTHING, edges_of, rate
from hpcddrl.figures.style import INK, gap_figure, panels, styled
from hpcddrl.types import Array

PHASES = {  # colours by kind: acting green, learning blue, messages orange to purple, waiting and the rest grey
    "env": "#009E73",
    "act": "#5CC9A7",
    "collect": "#B7E4D6",
    "batch": "#A9CFE8",
    "gradient": "#0072B2",
    "peers": "#003F6B",
    "pretext": "#3F6FB5",
    "update": "#56B4E9",
    "compress": "#08406B",
    "send": "#F6D48F",
    "publish": "#E69F00",
    "refresh": "#B87A00",
    "reduce": "#D55E00",
    "exchange": "#CC79A7",
    "checkpoint": "#8A6D4F",
    "evaluate": "#C9B28F",
    "log": "#777777",
    "other": "#A8A8A8",
    "wait": "#EDEDED",
}
HATCHED = {"wait": "////"}  # so that idle time shows in print too
LABELLED = 0.06  # of a bar; a smaller phase has no room for its number
SHOWN = 0.005  # of any bar; a smaller phase is not in the legend


def phase_shares(timing: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return the share of each phase in the wall time of the ranks of a kind together.

    Args:
        timing: a row a rank's interval: a column a phase [s], and ``by``.
        by: columns that tell the kinds apart, such as role; they index the result.
    """
    known = [phase for phase in PHASES if phase in timing]
    seconds = timing.groupby(list(by), sort=False)[known].sum()
    return seconds.div(seconds.sum(axis=1), axis=0)


@styled
def phase_bars(timing: pd.DataFrame, by: Sequence[str] = ("role",)) -> Figure:
    """Draw the share of each phase, a bar a role (and whatever else tells ranks apart)."""
    shares = phase_shares(timing, by)
    if not len(shares):
        return gap_figure(NOTHING)
    figure, (axes,) = panels(1, 1, 0.9 + 0.42 * len(shares))
    left = np.zeros(len(shares))
    for phase in _shown(shares):
        width = shares[phase].to_numpy()
        hatch = HATCHED.get(phase)
        axes.barh(
            range(len(shares)), width, left=left, color=PHASES[phase], label=phase, hatch=hatch, edgecolor="white"
        )
        for row in np.flatnonzero(width >= LABELLED).tolist():
            text = f"{phase} {width[row]:.0%}" if width[row] >= 0.1 else f"{width[row]:.0%}"
            axes.text(left[row] + width[row] / 2, row, text, ha="center", va="center", fontsize=8, color=_ink(phase))
        left += width
    names = [" · ".join(map(str, key if isinstance(key, tuple) else (key,))) for key in shares.index]
    axes.set(yticks=range(len(shares)), yticklabels=names, xlim=(0, 1), xlabel="share of wall time")
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=9)
    return figure


@styled
def phases_over_time(timing: pd.DataFrame) -> Figure:
    """Draw the share of each phase over the seconds of a run, a panel a role, its ranks together."""
    roles = list(dict.fromkeys(timing["role"]))
    if not roles:
        return gap_figure(NOTHING)
    figure, axes = panels(len(roles), 1, 1.5)
    edges, shown = edges_of(timing), _shown(phase_shares(timing, ["role"]))
    for panel, role in zip(axes, roles, strict=True):
        own = timing[timing["role"] == role]
        _stack(panel, own, shown, edges)
        count = own.groupby("segment")["rank"].nunique().max()
        panel.set(title=f"{role} × {count}", ylim=(0, 1), xlim=(0, edges[-1]))
        panel.yaxis.set_major_formatter("{x:.0%}")
        panel.grid(visible=False)
        panel.tick_params(labelbottom=panel is axes[-1])
    axes[-1].set_xlabel("seconds of running")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=9)
    return figure


def shares_over_time(timing: pd.DataFrame, edges: Array) -> pd.DataFrame:
    """Return the share of each phase between edges [n + 1] of a run's seconds, a row a bin; NaN where nobody ran.

    Args:
        timing: of one run's role: segment, rank, time, seconds and a column a phase [s].
        edges: seconds of running. An interval that reaches over one counts on either side in proportion.
    """
    known = [phase for phase in PHASES if phase in timing]
    running = timing.assign(**timing.groupby(["segment", "rank"])[known].cumsum())
    seconds = pd.DataFrame({phase: rate(running, phase, edges) for phase in known})
    whole = seconds.sum(axis=1)
    return seconds.div(whole.where(whole > 0), axis=0)


def _stack(axes: Axes, timing: pd.DataFrame, phases: Sequence[str], edges: Array) -> None:
    """Draw one role."""
    shares = shares_over_time(timing, edges)
    bottom = np.zeros(len(shares))
    for phase in phases:
        height = shares[phase].fillna(0).to_numpy()
        look: Any = {"color": PHASES[phase], "hatch": HATCHED.get(phase), "edgecolor": "white", "linewidth": 0.0}
        axes.bar(edges[:-1], height, width=np.diff(edges), bottom=bottom, align="edge", label=phase, **look)
        bottom += height


def _shown(shares: pd.DataFrame) -> list[str]:
    return [phase for phase in shares.columns if shares[phase].max() >= SHOWN]


def _ink(phase: str) -> str:
    """Return the colour of text that can be read on a phase's own."""
    red, green, blue = (int(PHASES[phase][i : i + 2], 16) for i in (1, 3, 5))
    return INK if 0.3 * red + 0.59 * green + 0.11 * blue > 140 else "white"
