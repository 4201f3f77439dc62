"""Averaging gradients and publishing weights beside bare mpi4py loops of the same size, in turn in the same runs.

    make bench-communication                                        # 1.7 and 6.8 MB, 2 and 4 ranks
    make bench-communication ARGS="--ranks 2 --megabytes 6.8"
    make bench-communication ARGS=--missing                         # what there is no row for

Horovod is timed beside them, at its default and at other cycle times (HOROVOD_CYCLE_TIME, ms): its best is shown. A row
is written to communication.csv as each size ends; rows of the same code (git's tree of hpcddrl/), machine and size are
skipped. communication.md is drawn from the rows. A share is the bare loop's time divided by the other's: 1 is as fast.

Exit codes: 0 done, 1 a run failed (the others went on), 2 refused.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path

from benchmarks.flow import Task, absent, carry_out, committed, parser_for, settled
from benchmarks.jobs import launch, portable, today
from benchmarks.rows import ROOT, Row, about_machine, add_row, code_key, machine, markdown_table, read_rows

CYCLES_MS = ("0.05", "0.1", "0.3", "1", "5")  # beside the default
LOGS = ROOT / "runs/bench-communication"
LIMIT_S = 300.0  # of one run
EXPECTED_S = 60.0  # for one size, until one was measured
KEY = ("ranks", "megabytes", "machine", "code")
AVERAGING = ("allreduce_ms", "allreduce_bare_ms", "allreduce_share")
PUBLISHING = ("publication_ms", "publication_bare_ms", "publication_share")
HOROVOD = ("horovod_ms", "horovod_share", "horovod_best_ms", "horovod_best_share", "horovod_best_cycle")
BETWEEN = ("latency_us", "bandwidth_gb", "test_us")
SHOWN = ("ranks", "megabytes", *AVERAGING, *PUBLISHING, *HOROVOD, *BETWEEN, "load", "date")
COLUMNS = (*KEY, *SHOWN[2:], "about", "command")
LEGEND = """\
`make bench-communication` drew this from communication.csv. Milliseconds a call, medians over rounds in which the
project's way and the bare mpi4py loop took turns; share is the bare loop's time divided by the other's, 1 is as fast.
Allreduce is `comm.allreduce.MpiAveraging` beside `Allreduce` in place; publication is a learner's `Publisher` and its
actors' `Inbox`es beside a blocking request and `Send` for each, which needs no copy since nobody learns meanwhile.
Horovod is timed last, as its threads would disturb the others, beside the same run's bare loop, at its default cycle
time and at the best of those tried. Latency, bandwidth and what one look at a posted buffer takes are
what `python -m hpcddrl simulate` has options for."""


def command(ranks: int, megabytes: float) -> list[str]:
    """Return the command line of a run."""
    floats = round(megabytes * 1e6 / 4)
    return ["mpirun", "-n", str(ranks), sys.executable, "-m", "benchmarks.communicating", "--floats", str(floats)]


def timed(ranks: int, megabytes: float, cycle_ms: str | None) -> dict[str, float]:
    """Run once; return what it measured.

    Raises:
        RuntimeError: it failed, with the end of what it said.
    """
    log = LOGS / f"{ranks}-{megabytes:g}-{cycle_ms or 'default'}.log"
    launch(command(ranks, megabytes), log, LIMIT_S, HOROVOD_CYCLE_TIME=cycle_ms)
    return dict(json.loads(next((line for line in log.read_text().splitlines() if line.startswith("{")), "")))


def row_of(found: dict[str, float], cycles: dict[str, dict[str, float]]) -> Row:
    """Make a row's numbers of a run at Horovod's default and of those at other cycle times, if there is Horovod."""
    row = {name: f"{found[name]:.3g}" for name in BETWEEN}
    for what in ("allreduce", "publication"):
        ours, bare = found[what], found[f"{what}_bare"]
        row |= {f"{what}_ms": f"{ours:.3f}", f"{what}_bare_ms": f"{bare:.3f}", f"{what}_share": f"{bare / ours:.2f}"}
    if "horovod" in found:
        tried = {"default": found, **cycles}
        best = min(tried, key=lambda cycle: tried[cycle]["horovod"])
        for name, run in (("horovod", found), ("horovod_best", tried[best])):
            row |= {f"{name}_ms": f"{run['horovod']:.3f}"}
            row |= {f"{name}_share": f"{run['allreduce_bare'] / run['horovod']:.2f}"}
        row["horovod_best_cycle"] = best if best == "default" else f"{best} ms"
    return row


def key_of(ranks: int, megabytes: float, code: str) -> Row:
    """Return what tells a row from others."""
    return {"ranks": str(ranks), "megabytes": f"{megabytes:g}", "machine": machine(), "code": code}


def run(path: Path, ranks: int, megabytes: float) -> str:
    """Make the runs of one size, write their row and draw the table; return what they came to.

    Raises:
        RuntimeError: one failed.
    """
    code, load = code_key(), os.getloadavg()[0]
    found = timed(ranks, megabytes, None)
    cycles = {cycle: timed(ranks, megabytes, cycle) for cycle in CYCLES_MS} if "horovod" in found else {}
    row = key_of(ranks, megabytes, code) | row_of(found, cycles) | {"load": f"{load:.1f}", "date": today()}
    row |= {"about": about_machine(), "command": portable(command(ranks, megabytes))}
    draw(path, add_row(path, COLUMNS, row), code)
    horovod = f", Horovod {row['horovod_ms']} ms ({row['horovod_best_ms']} at best)" if "horovod_ms" in row else ""
    return (
        f"allreduce {row['allreduce_ms']} ms, {row['allreduce_share']} of the bare loop's speed; "
        f"publication {row['publication_ms']} ms, {row['publication_share']}{horovod}"
    )


def draw(path: Path, rows: Sequence[Row], code: str) -> None:
    """Draw the table of this machine's rows of this code, the newest of each size."""
    here = {(int(r["ranks"]), float(r["megabytes"])): r for r in rows if (r["machine"], r["code"]) == (machine(), code)}
    lines = ["# Communication beside bare loops", "", LEGEND, "", f"{machine()}; {about_machine()}; code {code}.", ""]
    lines += markdown_table(SHOWN, ([here[size][column] for column in SHOWN] for size in sorted(here)))
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for("communication", __doc__)
    parser.add_argument("--ranks", type=int, nargs="*", default=[2, 4], help="default: 2 4")
    parser.add_argument("--megabytes", type=float, nargs="*", default=[1.7, 6.8], help="default: 1.7 6.8")
    given = parser.parse_args(arguments)
    if min(given.ranks) < 2:
        parser.error(f"--ranks {min(given.ranks)}: one rank has nobody to talk to; start 2 or more")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and write it down."""
    given = options(arguments)
    path, code = given.into / "communication.csv", committed()
    keys = {size: key_of(*size, code) for size in product(given.ranks, given.megabytes)}
    missing = absent(read_rows(path), keys, given.dirty)
    names = [f"{ranks} ranks {megabytes:g} MB" for ranks, megabytes in missing]
    tasks = [Task(name, EXPECTED_S, partial(run, path, *size)) for name, size in zip(names, missing, strict=True)]
    if (exit_code := settled(given, len(keys), names, tasks)) is not None:
        return exit_code
    return carry_out(tasks, given.dirty)


if __name__ == "__main__":
    sys.exit(main())
