"""Starting jobs from a benchmark, and what else kept the machine busy meanwhile."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.rows import CHANGED, ROOT, Row, code_key

PATIENCE_S = 300.0  # that a run may take beside its seconds
TAIL = 20  # lines of a log in an error


class Job(NamedTuple):
    """A command line, the file that takes what it prints, and how its environment differs from this one's."""

    line: Sequence[str]
    log: Path
    environment: Mapping[str, str | None] = {}  # None: is not there


def launch(line: Sequence[str], log: Path, limit_s: float, **environment: str | None) -> None:
    """Run a job to its end, what it prints going to a file.

    Raises:
        RuntimeError: it failed or was late; with the end of its log.
    """
    (failure,) = launch_all([Job(line, log, environment)], limit_s)
    if failure:
        raise RuntimeError(failure)


def launch_all(jobs: Sequence[Job], limit_s: float) -> list[str]:
    """Run jobs side by side to their ends; return for each why it failed, with the end of its log, or nothing."""
    deadline, ended_well = time.monotonic() + limit_s, []
    with ExitStack() as stack:
        started = [_start(job, stack) for job in jobs]
        for job, process in zip(jobs, started, strict=True):
            try:
                ended_well.append(process.wait(max(0.0, deadline - time.monotonic())) == 0)
            except subprocess.TimeoutExpired:
                ended_well.append(False)
                with job.log.open("a") as file:
                    print(f"still there after {limit_s:.0f} s, ended", file=file)
    return ["" if well else said(job.log) for well, job in zip(ended_well, jobs, strict=True)]


def said(log: Path) -> str:
    """Return the end of what a failed job printed, and where the rest is."""
    return "\n".join([*log.read_text(errors="replace").splitlines()[-TAIL:], f"all it printed: {log}"])


def stamp() -> str:
    """Return the time as it stands in a run's name."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


def today() -> str:
    """Return the time as rows have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def portable(line: Sequence[str]) -> str:
    """Return a command as it would be typed in the repository's root."""
    return shlex.join("python" if part == sys.executable else part.removeprefix(f"{ROOT}/") for part in line)


def _start(job: Job, stack: ExitStack) -> subprocess.Popen[bytes]:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    job.log.unlink(missing_ok=True)
    environment = {k: v for k, v in {**os.environ, **job.environment}.items() if v is not None}
    with job.log.open("a") as file:
        process = subprocess.Popen(
            job.line, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )
    stack.callback(_end, process)
    return process


def _end(job: subprocess.Popen[bytes]) -> None:
    """Let mpirun end its ranks, if it is still there."""
    if job.poll() is None:
        job.terminate()
        try:
            job.wait(30)
        except subprocess.TimeoutExpired:
            job.kill()
            job.wait()


@contextmanager
def circumstances() -> Iterator[Row]:
    """Yield a row that has, when the block is over, the code that ran in it, the load, other programs, and the date."""
    row: Row = {}
    code, load, start, before = code_key(), os.getloadavg()[0], time.monotonic(), busy_s()
    yield row
    all_s, own_s = (after - then for after, then in zip(busy_s(), before, strict=True))
    others = max(0.0, all_s - own_s) / (time.monotonic() - start)
    changed = CHANGED if code_key() != code and not code.endswith(CHANGED) else ""
    row |= {"code": code + changed, "load": f"{load:.1f}", "others": f"{others:.1f}", "date": today()}


def busy_s() -> tuple[float, float]:
    """Return the processor seconds of the whole machine so far, and of this program's ended children."""
    names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq")
    try:
        ticks = dict(zip(names, map(int, Path("/proc/stat").read_text().split()[1:]), strict=False))
    except OSError:
        ticks = {}
    own = os.times()
    busy = sum(count for name, count in ticks.items() if name not in ("idle", "iowait"))
    return busy / os.sysconf("SC_CLK_TCK"), own.children_user + own.children_system
