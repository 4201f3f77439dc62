"""How soon a recipe plays a game well, on all cores, in each precision, over seeds.

    make bench-reaching                                     # impala on Pong to a mean return of 18, three seeds each
    make bench-reaching ARGS="--env ALE/Breakout-v5 --target 100 --seconds 3600 --seeds 1 2 3 4 5"
    make bench-reaching ARGS=--missing                      # what there is no row for

Each run ends when the mean return of the last 100 episodes has come to the target, or when its seconds are over: then
it has not, and the row says how far it came. A row is written to reaching.csv as each run ends; rows of the same code
(git's tree of hpcddrl/), machine and settings are skipped. reaching.md and reaching.png are drawn from the rows.

Exit codes: 0 done, 1 a run failed (the others went on), 2 refused.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.arms.tables import difference, numbers, written
from benchmarks.curves import Panel, curve_of, draw, from_text, to_text
from benchmarks.flow import committed, parser_for
from benchmarks.page import Page, Table, fill, measured_run
from benchmarks.rows import Row, machine, markdown_table, read_rows
from hpcddrl.figures.statistics import estimated
from hpcddrl.figures.style import si
from hpcddrl.logs.read import read_runs
from hpcddrl.recipes import RECIPES
from hpcddrl.types import Array

REACHED = "target_return"  # as summary.json has it
LEGEND = """\
`make bench-reaching` drew this from reaching.csv, which has every row's exact command. Reached: the mean return of the
last 100 episodes came to the target within the seconds given; else the row's seconds are all that it was given, and
the means and intervals below leave it out. Seconds are of wall time since the job's first frame, frames four times env
steps. Load is the machine's load average as the run started, others the cores that other processes kept busy
meanwhile."""


def values_of(run: Path) -> Row:
    """Return what a row says of a run."""
    summary = json.loads((run / "summary.json").read_text())
    return {
        "reached": "yes" if summary["exit_reason"] == REACHED else "no",
        "took_s": f"{summary['wall_s']:.0f}",
        "frames": f"{summary['frames']:.0f}",
        "updates": f"{summary['updates']:.0f}",
        "trained_per_s": f"{summary['trained_samples_per_s']:.0f}",
        "lag": f"{summary['lag_mean']:.1f}",
        "return_mean": f"{summary['return_mean']:.2f}",
        "curve": to_text(curve_of(read_runs([run]).tables["episodes"], summary["wall_s"])),
    }


def measure(key: Row) -> Row:
    """Run a recipe until it plays so well."""
    settings = {"budget.target_return": key["target"], "precision": key["precision"], "seed": key["seed"]}
    seconds = float(key["seconds"])
    found, around = measured_run("reaching", int(key["ranks"]), key["recipe"], key["env"], seconds, settings, values_of)
    return found | around


TABLE = Table(
    "reaching",
    ("code", "machine", "recipe", "env", "ranks", "target", "seconds", "precision", "seed"),
    ("reached", "took_s", "frames", "updates", "trained_per_s", "lag", "return_mean"),
    "## By seed",
    measure,
    hidden=("curve",),
)


def overview(folder: Path) -> list[str]:
    """Return how the precisions compare, and the picture, of the newest code's rows; nothing without rows."""
    rows = read_rows(TABLE.csv(folder))
    if not rows:
        return []
    arms = TABLE.key[: TABLE.key.index("precision")]
    newest = [row for row in rows if all(row[name] == rows[-1][name] for name in arms)]
    precisions = {row["precision"]: [r for r in newest if r["precision"] == row["precision"]] for row in newest}
    curves = {f"{row['precision']}, seed {row['seed']}": from_text(row["curve"]) for row in newest}
    title = "{recipe} on {env}, {ranks} ranks".format(**rows[-1])
    draw(folder / "reaching.png", [Panel(title, curves)])
    return [
        f"## By precision\n\n{title}, to a mean return of {rows[-1]['target']}, code {rows[-1]['code']}: the mean over "
        "the seeds that reached it,\nand its 95 % interval.",
        "",
        *markdown_table(
            ("precision", "reached", "seconds", "frames", "longest (s)"),
            (_line(precision, runs) for precision, runs in precisions.items()),
        ),
        "",
        *_difference(precisions),
        f"![Return over seconds]({TABLE.name}.png)",
        "",
    ]


def _of(runs: Sequence[Row], name: str) -> Array:
    return numbers((run for run in runs if run["reached"] == "yes"), name)


def _line(precision: str, runs: Sequence[Row]) -> list[str]:
    seconds, frames = _of(runs, "took_s"), _of(runs, "frames")
    told = [written(estimated(seconds)), written(estimated(frames)), si(seconds.max())] if len(seconds) else ["–"] * 3
    return [precision, f"{len(seconds)} of {len(runs)}", *told]


def _difference(precisions: dict[str, list[Row]]) -> list[str]:
    """Return a line on whether the first precision needs as many frames as each other."""
    (first, ours), *others = [(name, _of(runs, "frames") / 1e6) for name, runs in precisions.items()]
    told = [(name, difference([ours], [theirs])) for name, theirs in others]
    return [f"Millions of frames that {first} needed, less those of {name}: {said}.\n" for name, said in told if said]


PAGE = Page("reaching", "How soon a game is played well", LEGEND, (TABLE,), overview)


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for("reaching", __doc__)
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="impala", help="default: impala")
    parser.add_argument("--env", default="ALE/Pong-v5", help="default: ALE/Pong-v5")
    parser.add_argument("--target", type=float, default=18, help="mean return to end at (default: 18)")
    parser.add_argument("--seconds", type=int, default=1800, help="of each run at most (default: 1800)")
    parser.add_argument("--ranks", type=int, default=len(os.sched_getaffinity(0)), help="default: one a core")
    parser.add_argument("--precision", nargs="*", default=["auto", "fp32"], help="default: auto fp32")
    parser.add_argument("--seeds", nargs="*", type=int, default=[1, 2, 3], help="default: 1 2 3")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and write it down."""
    given = options(arguments)
    common = {"code": committed(), "machine": machine(), "recipe": given.recipe, "env": given.env}
    common |= {"ranks": str(given.ranks), "target": f"{given.target:g}", "seconds": str(given.seconds)}
    keys = [
        common | {"precision": precision, "seed": str(seed)} for precision in given.precision for seed in given.seeds
    ]
    return fill(PAGE, given, [(TABLE, key) for key in keys], ("precision", "seed"))


if __name__ == "__main__":
    sys.exit(main())
