"""``doctor``: whether a job can run here."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from hpcddrl.comm.failure import under_launcher
from hpcddrl.commands.tables import console, count

PATIENCE_S = 120.0  # until messages that do not come are taken to be lost
PROBE = "from mpi4py import MPI"
LOOKS = {"ok": "green", "warning": "yellow", "error": "bold red"}


@click.command(context_settings={"show_default": True})
@click.option("--out", default="runs", type=click.Path(path_type=Path), help="Folder that runs are written into.")
def doctor(out: Path) -> int:
    """Say whether a job can run here, what would make it slow, and the line that mends it; exit code 1 if none can.

    \b
    python -m hpcddrl doctor
    mpirun -n 16 python -m hpcddrl doctor --out $SCRATCH/runs
    srun --mpi=pmix python -m hpcddrl doctor

    Under a launcher all ranks look around, and messages between the hosts are timed.
    """  # noqa: D301 (click wants the character itself)
    broken = "" if under_launcher() else _mpi_problem()
    if broken:
        return _tell([("error", "MPI", broken, "make clean setup; unload other MPI modules before that")])
    from hpcddrl.runtime.diagnosis import diagnose
    from hpcddrl.runtime.facts import survey

    with _patience():
        found = survey(out)
    return 0 if found is None else _tell(diagnose(found))


def _mpi_problem() -> str:
    """Return why MPI does not start, found out in a process of its own, since it would end this one; "" if it does."""
    try:
        done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return f"it has not started within {PATIENCE_S:g} s"
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return "" if done.returncode == 0 else f"it does not start: {said[-1] if said else f'exit code {done.returncode}'}"


@contextmanager
def _patience() -> Iterator[None]:
    """End this process if what is inside takes too long: the ranks wait for messages that do not come."""

    def give_up() -> None:
        sys.stderr.write(
            f"hpcddrl doctor: ranks have waited {PATIENCE_S:.0f} s for each other's messages; name the network that "
            "joins the hosts (mpirun --mca btl_tcp_if_include <interface>), and open its ports\n"
        )
        sys.stderr.flush()
        os._exit(1)

    timer = threading.Timer(PATIENCE_S, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _tell(findings: Sequence[tuple[str, str, str, str]]) -> int:
    """Print findings (level, what, what it says, what mends it), each with its mending below; return the exit code."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for level, what, says, mend in findings:
        table.add_row(Text(level, LOOKS[level]), what, says)
        if mend:
            table.add_row("", "", f"→ {mend}")
    console().print(table)
    errors, warnings = (sum(level == wanted for level, *_ in findings) for wanted in ("error", "warning"))
    can = "no job can run here" if errors else "jobs can run here"
    click.echo(f"{can}: {count(errors, 'error')}, {count(warnings, 'warning')}")
    return 1 if errors else 0
