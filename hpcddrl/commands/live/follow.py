"""Reading runs again and again, until they have ended."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hpcddrl.logs.read import Runs, find, read_runs

SHARE = 0.005  # most of the processor time that this process could get, so that a job on the same ones keeps the rest


def gently(seconds: float) -> None:
    """Sleep; from then on, this process takes only time of processors that ranks beside it leave."""
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    time.sleep(seconds)


def follow(paths: Sequence[Path], every_s: float, pause: Callable[[float], None] = gently) -> Iterator[Runs]:
    """Yield runs as they stand, again and again, and last of all when none of them goes on any more.

    Args:
        paths: of the runs.
        every_s: from the end of one reading to the next, at least; longer where reading, and what is done with it,
            takes long: most of the time nothing is read, and all takes no more than `SHARE`.
        pause: called with the seconds to wait.

    Raises:
        ValueError: there is no run, or none that can be read.
    """
    processors = len(os.sched_getaffinity(0))
    while True:
        began, cpu = time.monotonic(), time.process_time()
        runs = read_runs(paths)
        took_s = time.monotonic() - began
        yield runs
        if not (runs.runs["state"] == "running").any():
            return
        pause(max(every_s, took_s, (time.process_time() - cpu) / (SHARE * processors)))


def one_run(path: Path) -> Path:
    """Return the run in a directory.

    Raises:
        ValueError: there is none, or there are several.
    """
    runs = find(path)
    if len(runs) > 1:
        newest = max(runs, key=lambda run: run.stat().st_mtime)
        raise ValueError(f"{path}: {len(runs)} runs; name one of them, the newest is {newest}")
    return runs[0]
