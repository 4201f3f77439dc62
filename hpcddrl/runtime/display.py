"""What rank 0 tells people: a line with a progress bar every few seconds, a table at the end.

Plain lines only: a launcher gives its ranks a terminal even when its own output goes to a file, so a bar that redraws
itself would fill logs with escape codes.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from hpcddrl.comm.placement import Place, Role
from hpcddrl.config import Budget
from hpcddrl.roles.counters import View

RATE_S = 30.0  # over which the printed rates are averaged


class Display:
    """Prints to standard output and to `run.log`.

    Args:
        log: the path of `run.log`; None: print nothing at all (ranks other than 0).
        budget: for progress and ETA.
        frames_before: environment frames of earlier segments.
    """

    def __init__(self, log: Path | None, budget: Budget, frames_before: float = 0.0) -> None:
        self._file = log.open("a", buffering=1) if log is not None else None
        self._console = Console(color_system=None, force_terminal=False, highlight=False, soft_wrap=True, width=100)
        self._budget, self._frames_before = budget, frames_before
        self._history: deque[tuple[float, float, float, float]] = deque()

    def say(self, line: str) -> None:
        """Print a line; also where the disk has no room for it."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.write(line + "\n")
            self._console.print(line, markup=False)

    def close(self) -> None:
        """Close `run.log`."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # what was not written then is not now
                self._file.close()

    def show(self, view: View) -> None:
        """Print where the run stands, in the manner of GA3C."""
        frames = self._frames_before + view.total("frames")
        now = (view.seconds, frames, view.total("predictions"), view.total("trained"))
        self._history.append(now)
        while len(self._history) > 2 and now[0] - self._history[0][0] > RATE_S:
            self._history.popleft()
        before = self._history[0] if len(self._history) > 1 else (0.0, self._frames_before, 0.0, 0.0)
        elapsed = max(now[0] - before[0], 1e-9)
        fps, pps, tps = ((b - a) / elapsed for a, b in zip(before[1:], now[1:], strict=True))
        done, left = self._progress(view, frames, fps)
        idle = ", ".join(
            f"{role} {np.nanmean(view.column('idle', role)):.0%}"
            for role in Role
            if view.column("idle", role).size and not np.isnan(view.column("idle", role)).all()
        )
        best = np.nanmax(np.append(view.column("return_best"), -math.inf))
        returns = f"Return {number(view.return_mean)}, best {number(best)}"
        self.say(
            f"[{bar(done)} {done:4.0%}, ETA {clock(left)}] [Time {clock(view.seconds)}] "
            f"[Frames {si(frames)}, {si(fps)}/s] [PPS {si(pps)} TPS {si(tps)}] "
            f"[Episodes {view.total('episodes'):.0f}, {returns}]{_evaluated(view)} [Lag {_lags(view)}] "
            f"[Updates {si(view.updates)}] [Idle {idle or '-'}]{_failures(view)}"
            + (f" [Stage {view.stage.name.lower()}]" if view.stage is not None else "")
        )

    def shares(self, ranks: list[dict[str, Any]]) -> None:
        """Print the share of each phase, role by role, from the ranks' final reports."""
        roles = list(dict.fromkeys(r["role"] for r in ranks))
        shares = phase_shares(ranks)
        table = Table(title="Share of wall time", title_justify="left")
        table.add_column("phase")
        for role in roles:
            table.add_column(f"{role} × {sum(r['role'] == role for r in ranks)}", justify="right")
        largest = {phase: max(share[phase] for share in shares.values()) for phase in next(iter(shares.values()))}
        for phase in sorted(largest, key=lambda phase: -largest[phase]):
            if largest[phase] >= 5e-4:
                table.add_row(phase, *(f"{shares[role][phase]:.1%}" for role in roles))
        with self._console.capture() as capture:
            self._console.print(table)
        for line in capture.get().rstrip().splitlines():
            self.say(line)

    def placement(self, places: tuple[Place, ...], hosts: list[str]) -> None:
        """Print who is where, ranks with the same role, group and host in one line."""
        lines: dict[tuple[str, str], list[int]] = {}
        for rank, (place, host) in enumerate(zip(places, hosts, strict=True)):
            group = "-" if place.group is None else str(place.group)
            lines.setdefault((f"group {group:>3}  {place.role:<7}", host), []).append(rank)
        self.say("placement:")
        for (what, host), ranks in lines.items():
            self.say(f"  {what}  rank {', '.join(map(str, ranks))}  host {host}")

    def _progress(self, view: View, frames: float, fps: float) -> tuple[float, float]:
        """Return the share done and the seconds left of whichever budget ends first (NaN if there is none)."""
        budget, fits = self._budget, [(0.0, math.nan)]
        if budget.frames is not None:
            fits.append((min(1.0, frames / budget.frames), max(0.0, budget.frames - frames) / max(fps, 1e-9)))
        if budget.seconds is not None:
            fits.append((min(1.0, view.seconds / budget.seconds), max(0.0, budget.seconds - view.seconds)))
        return min(fits[1:], key=lambda f: f[1], default=fits[0])


def phase_shares(ranks: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return, for each role, the share of each phase in the wall time of its ranks together."""
    shares: dict[str, dict[str, float]] = {}
    for role in dict.fromkeys(r["role"] for r in ranks):
        mine = [r["phases"] for r in ranks if r["role"] == role]
        wall = sum(sum(p.values()) for p in mine)
        shares[role] = {phase: sum(p[phase] for p in mine) / wall for phase in mine[0]}
    return shares


def clock(seconds: float) -> str:
    """Write seconds as h:mm:ss."""
    if not math.isfinite(seconds) or seconds > 1e8:
        return "-"
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def bar(done: float, cells: int = 12) -> str:
    """Draw a progress bar for a share between 0 and 1."""
    full = round(done * cells)
    return "#" * full + "." * (cells - full)


def si(value: float) -> str:
    """Write a count with three digits and k, M or G."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{letter}"
    return f"{value:.3g}"


def number(value: float) -> str:
    """Write a return."""
    return f"{value:.1f}" if math.isfinite(value) else "-"


def _failures(view: View) -> str:
    parts = {
        "Lost": ", ".join(map(str, sorted(view.lost))),
        "Silent": ", ".join(map(str, sorted(view.silent))),
        "Restarted environments": f"{view.total('restarts'):.0f}" if view.total("restarts") else "",
    }
    return "".join(f" [{name} {text}]" for name, text in parts.items() if text)


def _evaluated(view: View) -> str:
    """Write the newest evaluations: one, or the least, mean and greatest of several groups."""
    values = view.column("evaluated")
    known = values[~np.isnan(values)]
    if not known.size:
        return ""
    return f" [Evaluated {'/'.join(number(v) for v in dict.fromkeys((known.min(), known.mean(), known.max())))}]"


def _lags(view: View) -> str:
    least, mean, most = view.column("lag_min"), view.column("lag_mean"), view.column("lag_max")
    if np.isnan(mean).all():
        return "-"
    return f"{np.nanmin(least):.0f}/{np.nanmean(mean):.1f}/{np.nanmax(most):.0f}"
