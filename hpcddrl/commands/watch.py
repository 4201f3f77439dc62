"""``watch``: a run in the terminal, while it goes on."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import click

from hpcddrl.commands.tables import console


@click.command(context_settings={"show_default": True})
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--once", is_flag=True, help="Print one picture and end.")
@click.option("--every", default=5.0, type=click.FloatRange(min=0.1), help="Seconds between two pictures, at least.")
def watch(run: Path, once: bool, every: float) -> None:
    """Show RUN while it goes on: rates, returns, lag, where the time goes. Ends when the run does, or on Ctrl-C.

    \b
    python -m hpcddrl watch runs/one
    python -m hpcddrl watch runs/one --once > now.txt
    python -m hpcddrl watch runs/one --every 60 >> log.txt

    It reads the run's files alone, without a lock: from any machine that sees them, and of runs that have ended, too.
    Where reading takes long it is done more seldom.
    """  # noqa: D301 (click wants the character itself)
    step_back()
    try:
        from rich.live import Live

        from hpcddrl.commands.live.follow import follow, one_run
        from hpcddrl.commands.live.picture import picture
    except ModuleNotFoundError as error:
        raise ValueError(
            f"watch: the package {error.name!r} is missing; python -m pip install 'hpcddrl[report]'"
        ) from error
    out, states = console(), follow([one_run(run)], every)
    first = picture(next(states))
    if once or not out.is_terminal:
        out.print(first)
        for state in () if once else states:
            out.print("", picture(state))
        return
    with contextlib.suppress(KeyboardInterrupt), Live(first, console=out, auto_refresh=False) as live:
        for state in states:
            live.update(picture(state), refresh=True)


def step_back() -> None:
    """From now on, let this process take only time of processors that ranks beside it leave: its imports, too."""
    os.setpriority(os.PRIO_PROCESS, 0, 19)
