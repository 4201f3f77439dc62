"""A run as it stands, drawn for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpcddrl.commands.live.now import Curve, Now, RoleNow, now_of
from hpcddrl.commands.reporting.findings import findings
from hpcddrl.commands.tables import count, size
from hpcddrl.figures.curves import WINDOW
from hpcddrl.figures.shares import PHASES
from hpcddrl.figures.style import si
from hpcddrl.logs.read import Runs
from hpcddrl.runtime.display import bar, clock
from hpcddrl.types import Array

TICKS = "▁▂▃▄▅▆▇█"
BAR = 40  # cells of the progress bar
SHOWN = 0.02  # of a role's wall time; a smaller phase is left out
MOST_FINDINGS = 4
LOOKS = {"running": "green", "ended": "blue", "cut off": "red"}
UNITS = {"age": "updates", "kl": "nat", "divergence": "nat"}


def picture(run: Runs) -> RenderableType:
    """Draw one run."""
    now, about = now_of(run), run.runs.iloc[0]
    head = Text.assemble(
        (str(about["run"]), "bold"),
        f"  {about['recipe']} on {about['env']}, {count(int(about['ranks']), 'rank')}, seed {about['seed']}",
        f", segment {about['segments']}" if about["segments"] > 1 else "",
        "  ",
        (f"{about['state']}{' by ' + about['reason'] if about['reason'] else ''}", LOOKS[about["state"]]),
    )
    return Group(head, _progress(now, running=about["state"] == "running"), _roles(now.roles), _lines(now, run))


def sparkline(values: Array) -> str:
    """Draw numbers as ticks from the least to the greatest; unknown ones are blank."""
    known = values[np.isfinite(values)]
    if not len(known):
        return ""
    low, span = known.min(), np.ptp(known)
    heights = np.full(len(values), (len(TICKS) - 1) // 2) if not span else (values - low) / span * (len(TICKS) - 1)
    return "".join(
        TICKS[round(float(height))] if math.isfinite(value) else " "
        for height, value in zip(heights, values, strict=True)
    )


def _progress(now: Now, running: bool) -> Text:
    bounded = math.isfinite(now.done)
    return Text.assemble(
        f"{bar(now.done, BAR)} {now.done:4.0%}  " if bounded else "",
        f"{clock(now.seconds)}",
        f", ETA {clock(now.left_s)}" if running and bounded else "",
        f"  {si(now.frames)} frames, {si(now.frames_per_s)}/s",
    )


def _roles(roles: Sequence[RoleNow]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("role")
    for name in ("env steps/s", "answers/s", "trained/s", "cpu", "memory"):
        table.add_column(name, justify="right")
    table.add_column("time")
    for role in roles:
        table.add_row(
            f"{role.role} × {role.ranks}",
            *(si(rate) if rate else "" for rate in (role.env_steps, role.predictions, role.trained)),
            f"{role.processors:.0%}" if math.isfinite(role.processors) else "",
            size(role.memory),
            _shares(role.shares),
        )
    return table


def _shares(shares: Mapping[str, float]) -> Text:
    """Write the phases that take most, the greatest first, in their colours where there are any."""
    text = Text()
    for phase in sorted(shares, key=lambda phase: -shares[phase]):
        if shares[phase] >= SHOWN:
            text.append(f"{phase} {shares[phase]:.0%} ", style=f"bold {PHASES[phase]}" if phase != "wait" else "dim")
    return text


def _lines(now: Now, run: Runs) -> Table:
    """Write what there is beside rates, a line each."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    for game, curve in now.returns.items():
        name = "return" if len(now.returns) == 1 else f"return {game}"
        table.add_row(name, _curve(curve, f"last {WINDOW} episodes of {now.episodes:,}; best {si(curve.extreme)}"))
    if not now.returns:
        table.add_row("return", "no episode has ended yet")
    if now.evaluated is not None:
        table.add_row(
            "evaluated", _curve(now.evaluated, f"full games, beside the training; best {si(now.evaluated.extreme)}")
        )
    if math.isfinite(now.lag.now):
        table.add_row("lag", _curve(now.lag, f"updates; greatest {si(now.lag.extreme)}"))
    if math.isfinite(now.staleness):
        table.add_row("staleness", f"{si(now.staleness)} updates")
    table.add_row("updates", si(now.updates))
    if now.stage is not None:
        stage, since = now.stage
        table.add_row("stage", f"{stage.name.lower()}, since {clock(since)}")
    if now.exchange:
        parts = (f"{name} {si(value)} {UNITS.get(name, '')}".strip() for name, value in now.exchange.items())
        table.add_row("exchange", ", ".join(parts))
    if now.silent:
        table.add_row("silent", ", ".join(f"rank {rank} for {clock(s)}" for rank, s in now.silent.items()))
    for finding in [f for f in findings(run) if f.level != "note"][:MOST_FINDINGS]:
        table.add_row(finding.level, f"{finding.title}: {finding.evidence}")
    return table


def _curve(curve: Curve, words: str) -> str:
    return f"{si(curve.now)}  {sparkline(curve.history)}  {words}"
