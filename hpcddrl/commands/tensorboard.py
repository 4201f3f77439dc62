"""``tensorboard``: runs as TensorBoard shows them."""

from __future__ import annotations

import contextlib
from datetime import datetime
from pathlib import Path

import click


@click.command(context_settings={"show_default": True})
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option("--out", type=click.Path(path_type=Path), help="Folder, for DIR/<run> each [RUN/tensorboard].")
@click.option("--every", default=10.0, type=click.FloatRange(min=0.1), help="Seconds of running between two points.")
@click.option("--follow", is_flag=True, help="Go on until the runs have ended.")
def tensorboard(runs: tuple[Path, ...], out: Path | None, every: float, follow: bool) -> None:
    """Write RUNs, or all runs in a folder, as scalars for TensorBoard: by frames (step) and by seconds (relative).

    \b
    python -m hpcddrl tensorboard runs/one
    python -m hpcddrl tensorboard runs/one --follow --out boards
    python -m hpcddrl tensorboard runs && tensorboard --logdir runs

    Returns, losses and whatever else learners log, rates, shares of time, exchange and memory; of each group where
    they are few. It reads the runs' files alone, so the jobs know nothing of it; they may be going on.
    """  # noqa: D301 (click wants the character itself)
    try:
        from hpcddrl.commands.live.board import Board
        from hpcddrl.commands.live.follow import follow as states
        from hpcddrl.commands.live.scalars import scalars
        from hpcddrl.logs.read import only
    except ModuleNotFoundError as error:
        raise ValueError(
            f"tensorboard: the package {error.name!r} is missing; python -m pip install 'hpcddrl[tensorboard]'"
        ) from error
    boards: dict[str, Board] = {}
    written = 0
    with contextlib.ExitStack() as stack:
        for read in states(list(runs), every):
            for row in read.runs.itertuples():
                if row.run not in boards:
                    folder = Path(row.path) / "tensorboard" if out is None else out / row.run
                    started = read.ranks.loc[read.ranks["run"] == row.run, "started"].map(datetime.fromisoformat).min()
                    boards[row.run] = stack.enter_context(Board(folder, started.timestamp()))
                written += boards[row.run].write(scalars(only(read, row.run), every))
            if not follow:
                break
    for problem in read.problems:
        click.echo(f"{problem.run}: {problem.text}", err=True)
    where = "each run's folder tensorboard" if out is None else out
    click.echo(f"{written:,} scalars of {len(boards)} run{'' if len(boards) == 1 else 's'} in {where}")
