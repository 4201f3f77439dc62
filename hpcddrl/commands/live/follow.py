"""Reading runs again and again, until they have ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hpcddrl.logs.read import Runs, find, read_runs

EVERY_S = 5.0  # between two readings
SHARE = 0.05  # of the time, most that is spent reading


def follow(
    paths: Sequence[Path], every_s: float = EVERY_S, sleep: Callable[[float], None] = time.sleep
) -> Iterator[Runs]:
    """Yield runs as they stand, again and again, and last of all when none of them goes on any more.

    Raises:
        ValueError: there is no run, or none that can be read.
    """
    while True:
        began = time.monotonic()
        runs = read_runs(paths)
        took_s = time.monotonic() - began
        yield runs
        if not (runs.runs["state"] == "running").any():
            return
        sleep(max(every_s, took_s / SHARE))


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
