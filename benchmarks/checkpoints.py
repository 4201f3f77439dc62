"""What a checkpoint of the whole job costs: the work that it keeps all ranks from, at the interval that is the default.

    make bench-checkpoints                                    # the default recipe on Pong, 16 ranks, 10 minutes
    make bench-checkpoints ARGS="--recipe apex --ranks 8 --seconds 300"
    make bench-checkpoints ARGS=--missing                     # what there is no row for

A run of minutes has no checkpoint at the default interval, so it makes many at a shorter one. What each costs is not
the time that ranks say they spend on it alone: channels are emptied before and fill again after it. So from shortly
before each checkpoint on, over half of the way to the next, the frames of all ranks together are held against the rate
of the same time before and after; what is missing, in seconds of work, is the checkpoint's. A machine that becomes
slower during the run so changes nothing. A row is written to checkpoints.csv when the run ends; rows of the same code
(git's tree of hpcddrl/), machine and settings are skipped. checkpoints.md is drawn from the rows.

Exit codes: 0 done, 1 a run failed (the others went on), 2 refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks.flow import CannotRunError, committed, parser_for
from benchmarks.page import Page, Table, fill, measured_run
from benchmarks.rows import Row, machine
from hpcddrl.logs.read import read_runs
from hpcddrl.recipes import DEFAULT, RECIPES
from hpcddrl.types import Array

LIMIT = 0.02  # of a run's time
ROWS_S = 1.0  # between two rows of a rank
BEFORE_S = 5 * ROWS_S  # ranks come to rest before the row that knows of the checkpoint
SHORTEST_S = 4 * BEFORE_S  # between two checkpoints, to tell what is whose
FEWEST = 3  # checkpoints to take a mean of
LEGEND = f"""\
`make bench-checkpoints` drew this from checkpoints.csv, which has every row's exact command. Each run made checkpoints
every so many seconds (interval_s), more than anyone would want, to measure many. Lost is the work that one of them
cost, in seconds of the whole job: what the frames of all ranks together, and the samples trained on, lack over half of
the way to the next checkpoint, by the rate of as much time before and after; mean over the checkpoints, with twice its
standard error. Share is lost (of frames, at the upper end) over the default interval, and is to stay below
{LIMIT:.0%}. Took is what a checkpoint took by the ranks' own clocks, the mean and the longest, rest of it until all
had come to rest. Load is the machine's load average as the run started, others the cores that other processes kept busy
meanwhile."""


class Lost(NamedTuple):
    """Seconds of the whole job's work, of one checkpoint."""

    mean: float
    error: float  # standard error of the mean
    of: int  # checkpoints

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {2 * self.error:.2f}"


def moments(timing: pd.DataFrame) -> Array:
    """Return when rank 0 made checkpoints, s since the start: the first row of each that knows of it."""
    mine = timing[timing["rank"] == 0].sort_values("time")
    busy = mine["checkpoint"].to_numpy() > 0
    found: Array = mine["time"].to_numpy()[busy & ~np.concatenate([[False], busy[:-1]])]
    return found


def done(progress: pd.DataFrame, column: str, times: Array) -> Array:
    """Return what all ranks together had counted at some times, between rows as if it rose evenly."""
    total = np.zeros(len(times))
    for _, rank in progress.groupby("rank"):
        rank = rank.sort_values("time")
        total += np.interp(times, rank["time"], rank[column].fillna(0.0))
    return total


def lost(progress: pd.DataFrame, column: str, at: Array) -> Lost:
    """Return what checkpoints cost of a count's rate, but for the last and one shortly before the end of the run.

    Raises:
        CannotRunError: there are too few to tell.
    """
    apart = np.diff(at) >= SHORTEST_S
    if (count := int(apart.sum())) < FEWEST:
        raise CannotRunError(f"{count} checkpoints: too few for a mean; give more --seconds or a shorter --interval")
    begins, ends = at[:-1][apart] - BEFORE_S, at[1:][apart] - BEFORE_S
    half = (ends - begins) / 2
    counts = [done(progress, column, times) for times in (begins - half, begins, begins + half, ends)]
    before, inside, after = np.diff(counts, axis=0)
    missing = half - inside / ((before + after) / (2 * half))
    return Lost(float(missing.mean()), float(missing.std(ddof=1) / np.sqrt(count)), count)


def default_interval_s(recipe: str) -> float:
    """Return the seconds between two checkpoints where nothing else is said."""
    return RECIPES[recipe]().logging.checkpoint_interval_s


def values_of(run: Path, recipe: str) -> Row:
    """Return what a row says of a run.

    Raises:
        CannotRunError: it had too few checkpoints.
    """
    tables = read_runs([run]).tables
    at, each = moments(tables["timing"]), tables["checkpoint"]
    of_frames, of_trained = (lost(tables["progress"], column, at) for column in ("frames", "trained"))
    share = (of_frames.mean + 2 * of_frames.error) / default_interval_s(recipe)
    return {
        "checkpoints": str(of_frames.of),
        "mb": f"{each.groupby('number')['bytes'].sum().mean() / 1e6:.1f}",
        "took": f"{each['took'].mean():.2f} ({each['took'].max():.2f})",
        "rest": f"{each['rest'].mean():.2f} ({each['rest'].max():.2f})",
        "lost_frames_s": str(of_frames),
        "lost_trained_s": str(of_trained),
        "share": f"{share:.3%} of {default_interval_s(recipe):g} s" + (" (!)" if share >= LIMIT else ""),
    }


def measure(key: Row) -> Row:
    """Run a recipe and measure what its checkpoints cost."""
    settings = {"logging.checkpoint_interval_s": key["interval_s"], "logging.interval_s": ROWS_S}
    recipe = key["recipe"]
    found, around = measured_run(
        "checkpoints",
        int(key["ranks"]),
        recipe,
        key["env"],
        float(key["seconds"]),
        settings,
        lambda run: values_of(run, recipe),
    )
    return found | around


TABLE = Table(
    "checkpoints",
    ("code", "machine", "recipe", "env", "ranks", "seconds", "interval_s"),
    ("checkpoints", "mb", "took", "rest", "lost_frames_s", "lost_trained_s", "share"),
    "## By recipe",
    measure,
)
PAGE = Page("checkpoints", "What checkpoints cost", LEGEND, (TABLE,))


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for("checkpoints", __doc__)
    parser.add_argument("--recipe", nargs="*", choices=sorted(RECIPES), default=[DEFAULT], help=f"default: {DEFAULT}")
    parser.add_argument("--env", default="ALE/Pong-v5", help="default: ALE/Pong-v5")
    parser.add_argument("--ranks", type=int, default=16, help="default: 16")
    parser.add_argument("--seconds", type=float, default=600, help="of each run (default: 600)")
    parser.add_argument("--interval", type=float, default=40, help="seconds between checkpoints (default: 40)")
    given = parser.parse_args(arguments)
    if given.interval < SHORTEST_S:
        parser.error(f"--interval {given.interval:g}: too short to tell what is a checkpoint's; give {SHORTEST_S:g}")
    if given.seconds < (FEWEST + 1) * given.interval:
        parser.error(
            f"--seconds {given.seconds:g}: no {FEWEST} checkpoints {given.interval:g} s apart; give "
            f"{(FEWEST + 1) * given.interval:g}"
        )
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and write it down."""
    given = options(arguments)
    common = {"code": committed(), "machine": machine(), "env": given.env, "ranks": str(given.ranks)}
    common |= {"seconds": f"{given.seconds:g}", "interval_s": f"{given.interval:g}"}
    keys = [common | {"recipe": recipe} for recipe in given.recipe]
    return fill(PAGE, given, [(TABLE, key) for key in keys], ("recipe", "ranks"))


if __name__ == "__main__":
    sys.exit(main())
