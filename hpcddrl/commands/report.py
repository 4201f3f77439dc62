"""``report``: one page on a run, or on a comparison of many."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command(context_settings={"show_default": True})
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option("--out", default="report.html", type=click.Path(path_type=Path), help="The page; replaced if there.")
def report(runs: tuple[Path, ...], out: Path) -> None:
    """Write one self-contained page on RUNs, or on all runs in a folder: open it in any browser, offline.

    \b
    python -m hpcddrl report runs/one
    python -m hpcddrl report runs/impala-1 runs/impala-2 runs/apex-1 --out comparison.html
    python -m hpcddrl report runs --out all.html

    It says what ran and where, draws curves, shares of time, age of data, messages and memory, lists how
    configurations differ, and what looks wrong with the numbers that say so and what to change. Runs may be going on
    still. Runs that differ in nothing but seed and budget are drawn as one setting, with intervals.
    """  # noqa: D301 (click wants the character itself)
    try:
        from hpcddrl.commands.reporting.page import page
        from hpcddrl.logs.read import read_runs
    except ModuleNotFoundError as error:
        raise ValueError(
            f"report: the package {error.name!r} is missing; python -m pip install 'hpcddrl[report]'"
        ) from error
    read = read_runs(runs)
    text = page(read)
    new = out.with_name(out.name + ".new")
    try:
        new.write_text(text)
        os.replace(new, out)
    except OSError as error:
        raise ValueError(f"--out {out}: cannot be written: {error.strerror}; choose another") from error
    for problem in read.problems:
        click.echo(f"{problem.run}: {problem.text}", err=True)
    click.echo(f"{len(read.runs)} run{'' if len(read.runs) == 1 else 's'} in {out} ({len(text.encode()) / 1e6:.1f} MB)")
