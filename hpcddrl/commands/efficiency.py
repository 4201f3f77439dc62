"""``efficiency``: what a run made of the processors that it was given."""

from __future__ import annotations

from pathlib import Path

import click

from hpcddrl.commands.tables import console, count, size, table


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--cpus", type=click.IntRange(min=1), help="Processors that the job was given [one a rank].")
def efficiency(run: Path, cpus: int | None) -> None:
    """Print how busy the newest segment of RUN kept its processors, from its own files.

    \b
    python -m hpcddrl efficiency runs/one
    python -m hpcddrl efficiency runs/one --cpus 64

    It needs no accounting by the scheduler, and takes runs that were killed, too. Start-up is not in it: the ranks'
    clocks begin when they take their roles.
    """  # noqa: D301 (click wants the character itself)
    from hpcddrl.logs.usage import read_usage

    used, unreadable = read_usage(run)
    shown = table("", {"role": "left", **dict.fromkeys(("ranks", "busy", "waiting", "peak memory of a rank"), "right")})
    for role in dict.fromkeys(rank.role for rank in used):
        ranks = [rank for rank in used if rank.role == role]
        wall = sum(rank.wall_s for rank in ranks)
        shares = (sum(rank.cpu_s for rank in ranks) / wall, sum(rank.wait_s for rank in ranks) / wall)
        peak = max(rank.peak_bytes for rank in ranks)
        shown.add_row(role, str(len(ranks)), *(f"{share:.0%}" for share in shares), size(peak))
    console().print(shown)
    cpus = cpus or len(used) + len(unreadable)
    wall, cpu = max(rank.wall_s for rank in used), sum(rank.cpu_s for rank in used)
    console().print(f"efficiency: {cpu / (cpus * wall):.0%} of {count(cpus, 'processor')} for {wall:,.0f} s")
    for path in unreadable:
        click.echo(f"{path}: not readable, not counted", err=True)
