"""Run a command and watch its whole tree of processes: memory held together, processor time used together."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.rows import ROOT

EVERY_S = 1.0


class Used(NamedTuple):
    """What a tree of processes used."""

    ended_well: bool
    wall_s: float
    cpu_s: float
    peak_bytes: int


def watch(line: Sequence[str], log: Path, limit_s: float, every_s: float = EVERY_S) -> Used:
    """Run a command, what it prints going to a file, and look at its tree every second; end the tree if it is late.

    Memory is proportional: a page that several processes share counts once. Processor time is that seen at the last
    look at each process, so that what a process uses within a second of its end is not in it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    start, peak = time.monotonic(), 0
    cpu: dict[tuple[int, float], float] = {}
    with log.open("w") as file:
        job = psutil.Popen(line, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
        try:
            while job.poll() is None and time.monotonic() - start < limit_s:
                looks = [look for process in _tree(job) if (look := _look(process))]
                cpu |= {look.who: look.cpu_s for look in looks}
                peak = max(peak, sum(look.held_bytes for look in looks))
                _wait(job, every_s)
        finally:
            late = job.poll() is None
            if late:
                print(f"still there after {time.monotonic() - start:.0f} s, ended", file=file)
                _end(job)
    ended_well = not late and job.returncode == 0
    return Used(ended_well, time.monotonic() - start, sum(cpu.values()), peak)


class _Look(NamedTuple):
    who: tuple[int, float]  # process ids are used again
    cpu_s: float
    held_bytes: int


def _tree(job: psutil.Process) -> list[psutil.Process]:
    try:
        return [job, *job.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _look(process: psutil.Process) -> _Look | None:
    """Return what a process has used, None if it went meanwhile."""
    try:
        times = process.cpu_times()
        held = process.memory_full_info().pss
        return _Look((process.pid, process.create_time()), times.user + times.system, held)
    except psutil.Error:
        return None


def _wait(job: psutil.Popen, seconds: float) -> None:
    with suppress(subprocess.TimeoutExpired, psutil.TimeoutExpired):
        job.wait(seconds)


def _end(job: psutil.Popen) -> None:
    """End a tree: the command first, which may end the others, then who is left of it."""
    tree = _tree(job)
    job.terminate()
    _wait(job, 10.0)
    for process in tree:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(tree, timeout=10)
