"""Failures and signals: an exception anywhere ends the job by name, a signal asks it to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType

from hpcddrl.comm.placement import Place
from hpcddrl.types import RunError

LAUNCHERS = ("mpirun", "prterun", "mpiexec", "prte")
LAUNCHER_S = 5.0  # for it to end the job
STOP_SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)


class Signals:
    """Remembers the first signal that asked this process to stop; the loops look at it between updates."""

    def __init__(self) -> None:
        self.received = 0
        for number in STOP_SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number


def describe(rank: int, place: Place | None, host: str | None = None) -> str:
    """Name a rank (of this host, if none is named) as people look for it: rank, role, group, host."""
    role = f", {place}" if place is not None else ""
    return f"rank {rank}{role}, host {host or socket.gethostname()}"


def abort_on_exception(rank: int, place: Place | None) -> None:
    """From now on an uncaught exception, in any thread, prints its traceback by name and aborts the whole job.

    Without this the other ranks would wait for ever: a launcher does not end a job for an exception that Python has
    turned into an orderly exit.
    """
    end_on_exception(rank, place, "the job ends", abort)


def end_on_exception(rank: int, place: Place | None, what: str, end: Callable[[int], None]) -> None:
    """From now on an uncaught exception, in any thread, prints its traceback and what ends by name, and ends that."""

    def hook(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        lines = [f"{error}\n"] if issubclass(kind, RunError) else traceback.format_exception(kind, error, trace)
        me = describe(rank, place)
        sys.stderr.write(f"### {me}\n{''.join(lines)}### {what} because of {me}\n")
        sys.stderr.flush()
        end(1)

    sys.excepthook = hook
    threading.excepthook = lambda args: hook(args.exc_type, args.exc_value, args.exc_traceback)


@contextlib.contextmanager
def fatal_errors() -> Iterator[None]:
    """Inside, every exception ends the job as an uncaught one does.

    A ValueError is no longer the user's mistake here, which all ranks would find alike: the others would wait for ever.
    """
    try:
        yield
    except Exception:
        sys.excepthook(*sys.exc_info())
        raise


def tolerant() -> bool:
    """Say whether this job was started so that it can survive deaths (Open MPI's `mpirun --with-ft ulfm`)."""
    return os.environ.get("OMPI_MCA_mpi_ft_enable") == "1"  # noqa: SIM112 (Open MPI's own name)


def abort(code: int) -> None:
    """End every rank of the job at once with this exit code (where deaths are survived: with the launcher's)."""
    from mpi4py import MPI

    sys.stdout.flush()
    time.sleep(0.1)  # let the launcher forward what was printed before it kills
    if MPI.COMM_WORLD.size == 1:
        os._exit(code)  # nobody else to end, and no launcher's report about it
    if tolerant():
        _end_with_launcher()
    MPI.COMM_WORLD.Abort(code)


def under_launcher() -> bool:
    """Say whether mpirun, srun or the like started this process, as one of several or alone."""
    return any(name in os.environ for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"))


def _end_with_launcher() -> None:
    """Ask the launcher to end the job, and die.

    Where deaths are survived, MPI's abort ends this rank alone and tells nobody. On other hosts than the launcher's,
    who waits for this rank finds out that it died, and comes here too.
    """
    parent = os.getppid()
    if Path(f"/proc/{parent}/comm").read_text().strip() in LAUNCHERS:
        os.kill(parent, signal.SIGTERM)
        time.sleep(LAUNCHER_S)
    os.kill(os.getpid(), signal.SIGKILL)


def complain_once(line: str) -> None:
    """Print one line of complaint once for the whole job, from rank 0; under a launcher the others wait for it.

    A launcher kills every rank when the first one exits in error, so nobody may leave before the line is out.
    """
    if not under_launcher():
        sys.stderr.write(f"hpcddrl: {line}\n")
        return
    from mpi4py import MPI

    if MPI.COMM_WORLD.rank == 0:
        sys.stderr.write(f"hpcddrl: {line}\n")
        sys.stderr.flush()
        time.sleep(0.1)
    MPI.COMM_WORLD.Barrier()
