"""How the commands print tables."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from hpcddrl.comm.failure import under_launcher
from hpcddrl.config import Topology

WIDTH = 100  # where there is no terminal to ask


def console() -> Console:
    """Return where to print: as wide as the terminal and in colours, else `WIDTH` columns of plain text.

    A launcher gives its ranks a terminal even when its own output goes to a file: there it counts as none.
    """
    terminal = sys.stdout.isatty() and not under_launcher()
    width, colours = (None, None) if terminal else (WIDTH, False)
    return Console(width=width, force_terminal=colours, highlight=False, markup=False)


def table(title: str, columns: dict[str, str]) -> Table:
    """Return an empty table; ``columns`` says of each whether it is "left" or "right"."""
    made = Table(title=title, title_justify="left", title_style="bold")
    for name, justify in columns.items():
        made.add_column(name, justify="right" if justify == "right" else "left", overflow="fold")
    return made


def size(nbytes: float) -> str:
    """Write bytes with three digits and a decimal unit."""
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if nbytes >= factor * 0.9995:
            return f"{nbytes / factor:.3g} {unit}" if nbytes < 999.5 * factor else f"{nbytes / factor:.0f} {unit}"
    return f"{nbytes:.3g} B"


def count(number: int, what: str) -> str:
    """Write a count with its noun."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def layout(topology: Topology) -> str:
    """Write a fitted topology in words."""
    inside = {
        "learner": topology.learners_per_group or 0,
        "replay": topology.replays_per_group,
        "actor": topology.actors_per_group or 0,
    }
    group = " + ".join(count(n, what) for what, n in inside.items() if n)
    servers = f"{count(topology.servers, 'server')} and " if topology.servers else ""
    return f"{servers}{count(topology.groups or 1, 'group')} of {group}"
