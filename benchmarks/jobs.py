"""Starting jobs from a benchmark, and what else kept the machine busy meanwhile."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.rows import CHANGED, ROOT, Row, code_key

REFUSED = 2  # exit code: nothing was run


def launch(line: Sequence[str], log: Path, limit_s: float) -> bool:
    """Run a job, what it prints going to a file; tell whether it ended well and in time."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        job = subprocess.Popen(line, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
        try:
            return job.wait(limit_s) == 0
        except subprocess.TimeoutExpired:
            print(f"still there after {limit_s:.0f} s, ended", file=file)
            return False
        finally:
            _end(job)


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
    row |= {"code": code + changed, "load": f"{load:.1f}", "others": f"{others:.1f}"}
    row["date"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


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
