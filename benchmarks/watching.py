"""What `python -m hpcddrl watch` costs the job that it watches.

    make bench-watch                                    # 16 ranks, Pong, 10 minutes with and 11 without
    make bench-watch ARGS="--interval 120 --rounds 20"

One job runs through. Beside it, intervals in which `watch` runs and intervals in which it does not take turns, and the
env steps of all ranks in each are counted from the job's own logs. An interval with `watch` is compared with the mean
of the two around it; it begins with the start of the program, so that its imports count too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from benchmarks.flow import committed, parser_for
from benchmarks.jobs import PATIENCE_S, circumstances, launch, portable, stamp
from benchmarks.page import Page, Table, fill
from benchmarks.rows import ROOT, Row, about_machine, machine
from hpcddrl.figures.rates import rate
from hpcddrl.logs.read import Runs, read_runs
from hpcddrl.types import Array

WARM_UP_S, REST_S = 30.0, 15.0  # of the job, before the first interval and after the last
START_S = 120.0  # most that a job may take to write its first file
LEVEL = 0.95
LEGEND = """\
`make bench-watch` wrote this. Env steps/s are of the whole job, in the intervals without `watch` and with it; cost is
the share of them that an interval with `watch` lacks beside the two around it, the mean and its 95 % t-interval over
the intervals. watch_cpu is the processor seconds that `watch` took each second, its start included. Load is the
machine's load average as the job started, others the cores that other processes kept busy meanwhile."""


class Span(NamedTuple):
    """An interval in seconds since 1970, and the processor seconds that `watch` took in it."""

    start: float
    end: float
    cpu_s: float


def measure(key: Row) -> Row:
    """Run a job with and without `watch` beside it, in turns; return what came of it.

    Raises:
        RuntimeError: the job failed; with the end of its log.
    """
    interval_s, rounds = float(key["interval"]), int(key["rounds"])
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
        out = Path(folder) / "run"
        seconds = WARM_UP_S + (2 * rounds + 1) * interval_s + REST_S
        line = ["mpirun", "-n", key["ranks"], sys.executable, "-m", "hpcddrl", "run", key["recipe"]]
        line += ["--env", key["env"], "--seconds", f"{seconds:g}"]
        log = ROOT / f"runs/bench-watch/{stamp()}.log"
        with circumstances() as around:
            job = pool.submit(launch, [*line, "--out", str(out)], log, seconds + PATIENCE_S)
            _await_files(out, job)
            time.sleep(WARM_UP_S)
            spans = [_span(out, interval_s, watched=bool(i % 2)) for i in range(2 * rounds + 1)]
            job.result()
        row = values_of(rates_in(read_runs([out]), spans), spans)
    return row | around | {"about": about_machine(), "command": portable(line)}


def _await_files(out: Path, job: Future[None]) -> None:
    """Wait until ranks have written; if the job ends before, raise what it has to say."""
    until = time.monotonic() + START_S
    while not list(out.glob("segments/*/rank-*.h5")):
        if job.done():
            job.result()
        if job.done() or time.monotonic() > until:
            raise RuntimeError(f"no rank has written a file into {out}")
        time.sleep(0.5)


def _span(out: Path, interval_s: float, watched: bool) -> Span:
    """Let an interval go by, with `watch` or without."""
    start = time.time()
    if not watched:
        time.sleep(interval_s)
        return Span(start, time.time(), 0.0)
    before = os.times()
    line = [sys.executable, "-m", "hpcddrl", "watch", str(out)]
    process = subprocess.Popen(line, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        time.sleep(interval_s)
        if process.poll() is not None:
            raise RuntimeError(f"watch ended before the job, with exit code {process.returncode}")
    finally:
        process.kill()
        process.wait()
    after = os.times()  # of children that have ended: the job itself has not
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return Span(start, time.time(), spent)


def rates_in(run: Runs, spans: Sequence[Span]) -> Array:
    """Return the job's env steps a second [spans] in each interval, from its logs."""
    began = min(datetime.fromisoformat(started).timestamp() for started in run.ranks["started"])
    progress = run.tables["progress"]
    return np.array([rate(progress, "env_steps", np.array([s.start, s.end]) - began)[0] for s in spans])


def values_of(rates: Array, spans: Sequence[Span]) -> Row:
    """Return a row's values from the rates of intervals without and with `watch` in turns, without first and last."""
    without, watched = rates[::2], rates[1::2]
    costs = 1 - watched / ((without[:-1] + without[1:]) / 2)
    mean, spread = costs.mean(), stats.sem(costs) * stats.t.ppf((1 + LEVEL) / 2, len(costs) - 1)
    cpu = sum(span.cpu_s for span in spans) / sum(span.end - span.start for span in spans[1::2])
    return {
        "without_per_s": f"{without.mean():.0f}",
        "with_per_s": f"{watched.mean():.0f}",
        "cost": f"{mean:.2%}",
        "low": f"{mean - spread:.2%}",
        "high": f"{mean + spread:.2%}",
        "watch_cpu": f"{cpu:.3f}",
    }


PAGE = Page(
    "watching",
    "What watching a job costs it",
    LEGEND,
    (
        Table(
            "watching",
            ("code", "machine", "recipe", "env", "ranks", "interval", "rounds"),
            ("without_per_s", "with_per_s", "cost", "low", "high", "watch_cpu"),
            "Intervals are in seconds; rounds are those with `watch`.",
            measure,
        ),
    ),
)


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for("watching", __doc__)
    parser.add_argument("--recipe", default="group_ensemble", help="default: group_ensemble")
    parser.add_argument("--env", default="ALE/Pong-v5", help="default: ALE/Pong-v5")
    parser.add_argument("--ranks", type=int, default=16, help="default: 16")
    parser.add_argument("--interval", type=float, default=60.0, help="seconds of each interval (default: 60)")
    parser.add_argument("--rounds", type=int, default=10, help="intervals with watch (default: 10)")
    given = parser.parse_args(arguments)
    if given.rounds < 2:
        parser.error(f"--rounds {given.rounds}: one interval says nothing about spread; take 2 or more")
    given.seconds = WARM_UP_S + (2 * given.rounds + 1) * given.interval + REST_S
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing and write it down."""
    given = options(arguments)
    names = ("recipe", "env", "ranks", "interval", "rounds")
    key = {"code": committed(), "machine": machine()} | {name: f"{getattr(given, name)}" for name in names}
    return fill(PAGE, given, [(PAGE.tables[0], key)], names)


if __name__ == "__main__":
    sys.exit(main())
