"""``amdahl``: what compression can give a run at most, and what it gave."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcddrl.commands.tables import console, table

if TYPE_CHECKING:
    from hpcddrl.runtime.speed_ups import Gain

PICTURE = "amdahl.svg"


@click.command(context_settings={"show_default": True})
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("compressed", nargs=-1, type=click.Path(path_type=Path), metavar="[COMPRESSED]...")
@click.option("--repetitions", default=15, type=click.IntRange(min=1), help="Of each timing; the least counts.")
def amdahl(run: Path, compressed: tuple[Path, ...], repetitions: int) -> None:
    """Print what each compressor can give RUN, a run without compression, and what it gave in COMPRESSED runs.

    \b
    python -m hpcddrl amdahl runs/ga3c
    python -m hpcddrl amdahl runs/ga3c runs/nnc_ga3c runs/ga3c-int8

    By Amdahl's law: predictions that take a share p of the time, made s times as fast, give a factor 1 / (1 - p + p/s)
    on everything, and never more than 1 / (1 - p). p is from RUN's own phases; s is measured here, on one thread,
    against the network's best float format, so do it on the machine of the run. The sheet is also added to RUN's
    summary.json and run.log, and drawn in its amdahl.svg.
    """  # noqa: D301 (click wants the character itself)
    try:
        import pandas as pd

        from hpcddrl.figures.amdahl import gains as picture
    except ModuleNotFoundError as error:
        raise ValueError(
            f"amdahl: the package {error.name!r} is missing; python -m pip install 'hpcddrl[report]'"
        ) from error
    from hpcddrl.logs.run_dir import RunDirectory
    from hpcddrl.runtime.speed_ups import gains

    directory = RunDirectory(run)
    summary = directory.summary()
    found = gains(directory, [RunDirectory(path) for path in compressed], repetitions)
    rows = [_row(gain) for gain in found]
    directory.write_summary(summary | {"amdahl": [{k: _known(v) for k, v in row.items()} for row in rows]})
    picture(pd.DataFrame(rows)).savefig(run / PICTURE)
    share = found[0].row.share
    title = f"Predictions took {share:.1%} of the time, answering {found[0].latency.batch} observations at once"
    shown = table(title, dict.fromkeys(("compressor", "verdict"), "left") | dict.fromkeys(_NUMBERS, "right"))
    for row in rows:
        shown.add_row(row["compressor"], row["verdict"], *(_number(row[name]) for name in _NUMBERS))
    to = console()
    with to.capture() as text:
        to.print(shown)
    with (run / "run.log").open("a") as log:
        log.write(text.get())
    click.echo(text.get().rstrip())
    click.echo(f"added to {run / 'summary.json'} and run.log; drawn in {run / PICTURE}")


_NUMBERS = ("speed_up", "predicted", "bound", "measured", "reached")


def _row(gain: Gain) -> dict[str, Any]:
    row, latency = gain
    return {
        "compressor": row.name,
        "verdict": latency.verdict,
        "latency_s": latency.seconds,
        "best_float": latency.best_float,
        "share": row.share,
        "batch": latency.batch,
        **{name: getattr(row, name) for name in _NUMBERS},
    }


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"
