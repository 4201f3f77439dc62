"""A drawing of a job: its groups, their roles, and what they send each other."""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from hpcddrl.figures.style import FAINT, GRID, INK, WIDTH, gap_figure, si, styled

ORDER = {"actor": "#009E73", "replay": "#CC79A7", "learner": "#0072B2", "server": "#D55E00"}  # left to right
BOX, TALL, LINE = 1.7, 0.95, 0.17  # inches: a role's width and height, a line of text
PAPER = "#fafafa"  # of a group
NO_RANKS = "no rank is known: nothing of the layout can be drawn"


class _Box(NamedTuple):
    """Where a role is drawn, in inches."""

    x: float  # its middle
    y: float
    column: int


@styled
def layout(roles: pd.DataFrame, messages: pd.DataFrame) -> Figure:
    """Draw the roles of a job as boxes, all groups as one, and its messages as arrows with bytes a second.

    Args:
        roles: a row a role: role, count (in the job), groups (that it stands in; 0: in none), ranks (in words).
        messages: a row a kind of message: kind, sender, receiver (roles), bytes_per_s (of the whole job), expected
            (computed and not measured: marked with a ~).
    """
    known = roles[roles["role"].isin(ORDER)]
    if not len(known):
        return gap_figure(NO_RANKS)
    present = [role for role in ORDER if role in set(known["role"])]
    arrows = _arrows(messages, present)
    loops = max((len(texts) for (a, b), texts in arrows.items() if a == b), default=0)
    arcs = max((len(texts) for (a, b), texts in arrows.items() if _far(present, a, b)), default=0)
    above, below = 0.45 + LINE * (loops + 2 * bool(loops)), 0.25 + (0.7 + LINE * arcs / 2) * bool(arcs)
    height = TALL + above + below + 0.2
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, height))
    axes.axis("off")
    boxes = _places(present, below + 0.1 + TALL / 2)
    _frame(axes, known, boxes, below, height)
    for (sender, receiver), texts in arrows.items():
        _arrow(axes, boxes[sender], boxes[receiver], texts)
    for row in known.itertuples():
        _role(axes, boxes[row.role], row.role, f"{row.role} × {row.count}", row.ranks)
    return figure


def _arrows(messages: pd.DataFrame, present: list[str]) -> dict[tuple[str, str], list[str]]:
    """Return the labels of the arrows between roles, the greatest first."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in messages.sort_values("bytes_per_s", ascending=False).itertuples():
        if row.sender in present and row.receiver in present:
            rate = f"{'~' if row.expected else ''}{si(row.bytes_per_s, 'B/s')}"
            found.setdefault((row.sender, row.receiver), []).append(f"{row.kind} {rate}")
    return found


def _places(present: list[str], y: float) -> dict[str, _Box]:
    """Put the roles beside each other, with room for the labels between them."""
    margin = 0.35 + BOX / 2
    step = min(3.6, (WIDTH - 2 * margin) / max(1, len(present) - 1))
    first = (WIDTH - step * (len(present) - 1)) / 2
    return {role: _Box(first + step * i, y, i) for i, role in enumerate(present)}


def _far(present: list[str], sender: str, receiver: str) -> bool:
    return abs(present.index(sender) - present.index(receiver)) > 1


def _frame(axes: Axes, roles: pd.DataFrame, boxes: dict[str, _Box], below: float, height: float) -> None:
    """Draw the group around its roles, others like it behind."""
    inside = roles[roles["groups"] > 0]
    if not len(inside):
        return
    groups = int(inside["groups"].max())
    xs = [boxes[role].x for role in inside["role"]]
    left, right = min(xs) - BOX / 2 - 0.18, max(xs) + BOX / 2 + 0.18
    for shift in (0.14, 0.07, 0.0)[-min(groups, 3) :]:
        patch = FancyBboxPatch(
            (left + shift, 0.08 + shift), right - left, height - 0.36, boxstyle="round,pad=0,rounding_size=0.12",
            facecolor=PAPER, edgecolor=GRID, linewidth=1.2,
        )  # fmt: skip
        axes.add_patch(patch)
    text = "the group" if groups == 1 else f"one of {groups} groups"
    axes.text(left + 0.12, height - 0.36, text, va="top", color=FAINT, fontsize=9)


def _role(axes: Axes, box: _Box, role: str, title: str, ranks: str) -> None:
    corner = (box.x - BOX / 2, box.y - TALL / 2)
    shape = "round,pad=0,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch(corner, BOX, TALL, boxstyle=shape, facecolor=ORDER[role], edgecolor="none", zorder=3))
    axes.text(box.x, box.y + 0.14, title, ha="center", va="center", color="white", weight="bold", fontsize=11, zorder=4)
    axes.text(box.x, box.y - 0.19, f"rank {ranks}", ha="center", va="center", color="white", fontsize=8, zorder=4)


def _arrow(axes: Axes, start: _Box, end: _Box, texts: list[str]) -> None:
    """Draw an arrow with its labels: to a neighbour above or below the middle, further below the boxes, or a loop."""
    label, forward = "\n".join(texts), end.column > start.column
    look: Any = {"arrowstyle": "-|>", "mutation_scale": 13, "color": INK, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0}
    if start.column == end.column:
        top = start.y + TALL / 2
        tips, bend, at, va = (
            ((start.x - 0.45, top), (start.x + 0.45, top)),
            "arc3,rad=-0.9",
            (start.x, top + 0.45),
            "bottom",
        )
    elif abs(start.column - end.column) == 1:
        side, lift = (1, 0.2) if forward else (-1, -0.2)
        tips = ((start.x + side * BOX / 2, start.y + lift), (end.x - side * BOX / 2, end.y + lift))
        bend, at, va = "arc3,rad=0", ((start.x + end.x) / 2, start.y + 1.35 * lift), "bottom" if forward else "top"
    else:  # below the boxes in between; the way there outside the way back
        foot, inset, depth = start.y - TALL / 2, (-0.3 if forward else 0.3), (0.75 if forward else 0.35)
        tips = ((start.x + inset, foot), (end.x - inset, foot))
        span = tips[1][0] - tips[0][0]
        bend, at, va = f"arc3,rad={2 * depth / span}", ((start.x + end.x) / 2, foot - depth), "center"
    axes.add_patch(FancyArrowPatch(*tips, connectionstyle=bend, **look))
    paper = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.0}
    axes.text(*at, label, ha="center", va=va, fontsize=8.5, zorder=5, linespacing=1.25, bbox=paper)
