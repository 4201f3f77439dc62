"""Starting jobs under mpirun from a test: in a process group of their own, with a hard limit, output kept in files.

Jobs that are only run to their end start from a Python that has everything loaded (see warm.py), which saves each rank
some seconds; a ``Job`` starts Python itself, since its ranks may be signalled and measured from outside.

A job that is still there at its limit is killed, group and ranks, and the test fails with everything it printed: a
deadlock is a failure, not a test run that never ends.
"""

import atexit
import contextlib
import functools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import psutil
import pytest

ROOT = Path(__file__).parents[1]
WARM = Path(__file__).with_name("warm.py")
LIMIT_S = 120.0


class Finished(NamedTuple):
    """What became of a job."""

    command: str
    rc: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def text(self) -> str:
        """Return everything there is to read, for a failure's message."""
        return (
            f"$ {self.command}\nexit code {self.rc} after {self.seconds:.1f} s\n"
            f"--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"
        )


class Job:
    """A Python program on several ranks; leaving the ``with`` block ends it, whatever happened.

    Args:
        ranks: to start.
        arguments: of the Python interpreter.
        cwd: where it runs.
        limit_s: after which it is killed and the test fails.
        survives: start it so that ranks may die.
        environment: added to this process's own.
    """

    def __init__(
        self,
        ranks: int,
        *arguments: str | Path,
        cwd: Path,
        limit_s: float = LIMIT_S,
        survives: bool = False,
        **environment: str,
    ) -> None:
        tolerance = ["--with-ft", "ulfm"] if survives else []
        command = [_mpirun(), *tolerance, "-n", str(ranks), sys.executable, *map(str, arguments)]
        self._command, self._ranks, self._limit_s = shlex.join(command), ranks, limit_s
        self._stdout, self._stderr = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 (see __exit__)
        self._scratch = tempfile.mkdtemp(prefix="mpi-")  # what a killed launcher leaves fails a later one of its pid
        self._start = time.monotonic()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._stdout,
            stderr=self._stderr,
            cwd=cwd,
            env=_environment() | {"TMPDIR": self._scratch} | environment,
            start_new_session=True,  # so that its process group has its own pid as id
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
        self._stdout.close()
        self._stderr.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def finish(self) -> Finished:
        """Wait until it has ended by itself; at its limit, kill it and fail the test."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, self._limit_s - self._elapsed))
        if self.process.poll() is None:
            self._give_up("has not ended")
        return self._finished()

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds; fail the test if the job ends or meets its limit before."""
        while not condition():
            if self.process.poll() is not None or self._elapsed > self._limit_s:
                self._give_up(f"waited in vain until {what}")
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill mpirun's process group and its ranks: the launcher gives each rank a group of its own."""
        if self.process.poll() is not None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            ranks = psutil.Process(self.process.pid).children(recursive=True)
            os.killpg(self.process.pid, signal.SIGKILL)
            for rank in ranks:
                with contextlib.suppress(psutil.NoSuchProcess):
                    rank.kill()
        self.process.wait()

    @property
    def stdout(self) -> str:
        """Return what it has printed so far."""
        descriptor = self._stdout.fileno()  # whose place in the file is the ranks' too, so nobody may move it yet
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")

    def signal(self, number: int) -> None:
        """Send a signal to mpirun itself."""
        self.process.send_signal(number)

    def pids(self) -> list[int]:
        """Return the process ids of the ranks, in rank order."""
        found: dict[int, int] = {}
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                rank = child.environ().get("OMPI_COMM_WORLD_RANK", child.environ().get("PMI_RANK"))
                if rank is not None:
                    found.setdefault(int(rank), child.pid)
        assert sorted(found) == list(range(self._ranks)), f"found ranks {sorted(found)} of {self._ranks}"
        return [found[rank] for rank in range(self._ranks)]

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._start

    def _give_up(self, why: str) -> None:
        self.kill()
        pytest.fail(f"the job {why} ({self._limit_s:.0f} s at most)\n{self._finished().text}", pytrace=False)

    def _finished(self) -> Finished:
        texts = []
        for file in (self._stdout, self._stderr):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return Finished(self._command, self.process.wait(), texts[0], texts[1], self._elapsed)


@contextlib.contextmanager
def running(
    folder: Path,
    ranks: int,
    recipe: str,
    *options: str,
    seconds: float = 60,
    env: str = "hpcddrl/Catch-v0",
    survives: bool = False,
    limit_s: float = LIMIT_S,
) -> Iterator[tuple[Job, Path]]:
    """Start a job and let the test go on when it has reported progress twice; give job and directory."""
    out = folder / "run"
    often = settings(logging__interval_s=0.5)
    arguments = ["run", recipe, "--env", env, "--seconds", str(seconds), "--out", out, *often, *options]
    with Job(ranks, "-m", "hpcddrl", *arguments, cwd=folder, limit_s=limit_s, survives=survives) as job:
        log = out / "run.log"
        job.wait_for(lambda: log.exists() and log.read_text().count("[Time") >= 2, "it reported progress twice")
        yield job, out


def python(
    ranks: int,
    *arguments: str | Path,
    cwd: Path,
    limit_s: float = LIMIT_S,
    survives: bool = False,
    **environment: str,
) -> Finished:
    """Run a Python program on several ranks to its end.

    From a Python of its own where ranks may die, of which the launcher must know, or in an environment of its own.
    """
    if not environment and not survives:
        arguments = (WARM, "run", _warm(), *arguments)
    with Job(ranks, *arguments, cwd=cwd, limit_s=limit_s, survives=survives, **environment) as job:
        return job.finish()


def hpcddrl(
    ranks: int,
    *arguments: str | Path,
    cwd: Path,
    limit_s: float = LIMIT_S,
    survives: bool = False,
    **environment: str,
) -> Finished:
    """Run ``python -m hpcddrl`` with these arguments on several ranks to its end."""
    return python(ranks, "-m", "hpcddrl", *arguments, cwd=cwd, limit_s=limit_s, survives=survives, **environment)


def deterministic_runs(
    folder: Callable[[str], Path], frames: int, limit_s: float = LIMIT_S, **modules: str
) -> Callable[..., Path]:
    """Return what runs a recipe deterministically on some ranks, and gives its directory; the same run only once.

    Args:
        folder: makes a new folder whose name begins so.
        frames: to run for, if not said.
        limit_s: of each job.
        modules: source of Python modules that environments may come from, by name.
    """
    done: dict[str, Path] = {}

    def once(ranks: int, recipe: str, *options: str, env: str = "CartPole-v1", frames: int = frames) -> Path:
        key = repr((ranks, recipe, options, env, frames))
        if key not in done:
            here = folder(f"{recipe}-{ranks}")
            for name, source in modules.items():
                (here / f"{name}.py").write_text(source)
            arguments = ["--env", env, "--deterministic", "--frames", str(frames), "--out", here / "run", *options]
            job = hpcddrl(ranks, "run", recipe, *arguments, cwd=here, limit_s=limit_s)
            assert job.rc == 0, job.text
            done[key] = here / "run"
        return done[key]

    return once


def settings(**values: object) -> list[str]:
    """Return ``--set`` options; a dot in a field's name is written as two underscores."""
    return [part for name, value in values.items() for part in ("--set", f"{name.replace('__', '.')}={value}")]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file."""
    data: dict[str, Any] = json.loads(path.read_text())
    return data


@functools.cache
def _warm() -> Path:
    """Start what ranks are forked from, which ends when this process ends; return where it listens."""
    at = Path(tempfile.mkdtemp(prefix="hpcddrl-warm-")) / "socket"
    command, pipe = [sys.executable, str(WARM), "serve", str(at)], subprocess.PIPE
    server = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=_environment(), start_new_session=True)

    def end() -> None:
        server.communicate()
        shutil.rmtree(at.parent)

    atexit.register(end)
    assert server.stdout is not None
    assert server.stdout.readline(), "the server that ranks are forked from has ended"
    return at


def _mpirun() -> str:
    name = os.environ.get("MPIRUN", "mpirun")
    beside = Path(sys.executable).parent / name  # of an environment that is not activated
    found = shutil.which(name) or (str(beside) if beside.exists() else None)
    if found is None:
        pytest.fail(f"{name} is not on PATH; activate the environment or load the MPI module", pytrace=False)
    return found


def _environment() -> dict[str, str]:
    """Return this process's environment, with the package on the path wherever the job runs."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if os.geteuid() == 0:
        environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return environment
