"""All ranks of a job, and who of them is still there."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeVar

from mpi4py import MPI

from hpcddrl.comm.failure import describe, tolerant
from hpcddrl.comm.placement import Place
from hpcddrl.comm.survival import lacking, stranded
from hpcddrl.comm.wait import wait_until
from hpcddrl.types import RunError

LOOK_S = 0.05  # between two looks for deaths
LOST = 75  # exit code of a job that has lost what it cannot do without: it can go on from its newest checkpoint
NOBODY: frozenset[int] = frozenset()
Found = TypeVar("Found")


class World(MPI.Intracomm):
    """The communicator of all ranks, which knows who has died and who is silent; channels and roles ask it.

    Deaths are found out by MPI, where the launcher lets a job survive them (`mpirun --with-ft ulfm`); elsewhere it ends
    the job. Who is silent, rank 0 says (see `comm.roll`): such a rank may come back, so it is waited for until the run
    ends. Making it is collective over the communicator.

    Args:
        comm: all ranks.
        places: of them.
        exact: the run is deterministic, and survives no death.
    """

    def __new__(cls, comm: MPI.Intracomm, *_: object) -> Self:
        """Take over the communicator's handle."""
        return super().__new__(cls, comm)

    def __init__(self, comm: MPI.Intracomm, places: tuple[Place, ...], exact: bool) -> None:
        self._places, self._exact = places, exact
        self._processes: list[tuple[str, int]] = self.allgather((socket.gethostname(), os.getpid()))
        self._group = self.Get_group()
        self._survives = False
        self._mark: Path | None = None
        self._next_look = 0.0
        self.lost = self.silent = NOBODY
        self.gone = NOBODY  # who will say nothing any more: the lost, and at the end the silent

    def begin(self, mark: Path) -> None:
        """From now on survive deaths, if the launcher does. Collective over all ranks.

        Args:
            mark: a file that all hosts see, left by a rank whose failure ends the job: the others find it dead, and
                could not tell that from being killed.
        """
        self._mark = mark
        arrived = self.Ibarrier()
        wait_until(arrived.Test)
        self._survives = tolerant()

    @property
    def survives(self) -> bool:
        """Say whether a death does not end the job."""
        return self._survives

    def named(self, rank: int) -> str:
        """Name a rank as people look for it: rank, role, group, host."""
        return describe(rank, self._places[rank], self._processes[rank][0])

    def look(self) -> None:
        """Find out who has died since the last look; cheap, and without a message.

        Raises:
            RunError: this rank, or the whole job, cannot go on without them.
        """
        now = time.monotonic()
        if not self._survives or now < self._next_look:
            return
        self._next_look = now + LOOK_S
        failed = self.Get_failed()
        dead = frozenset(failed.Translate_ranks(None, self._group)) if failed.size else NOBODY
        failed.Free()
        if dead <= self.lost:
            return
        self.lost |= dead
        self.gone |= dead
        why = self._lacks() or stranded(self._places, self.lost, self.rank)
        if why is not None:
            raise RunError(why)

    def give_up(self, silent: frozenset[int]) -> None:
        """Wait for these no more: the run ends."""
        self.silent = silent
        self.gone |= silent

    def leave_alone(self, code: int) -> None:
        """End this rank after a failure, and not the others: they find out, and go on if they can.

        Where the job cannot go on anyway, every rank comes here, and the launcher's exit code is theirs: ``code`` after
        a failure, `LOST` where somebody was killed. A launcher that survives deaths takes an exit for no death, so this
        rank's is one.
        """
        assert self._mark is not None, "nobody survives anything before the beginning"
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(0.1)  # let the launcher forward what was printed
        if self._lacks() is not None:
            os._exit(code if self._mark.exists() else LOST)
        if lacking(self._places, self.lost | {self.rank}, self._exact) is not None:
            with contextlib.suppress(OSError):
                self._mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)

    def end(self, code: int) -> None:
        """Leave a job that survives deaths, or has silent ranks, with this exit code; return from any other.

        MPI's own end would wait for those who are gone. Where it survives deaths it is a barrier that spins on all
        cores, which takes minutes where ranks outnumber these, and sometimes does not end.
        """
        if not (self.gone or self._survives):
            return
        sys.stdout.flush()
        sys.stderr.flush()
        if self._survives:
            for rank in self.silent - self.lost:
                self._kill(rank)
            time.sleep(1.0)  # while others still read what this rank sent last
            os._exit(code)
        if self.rank == 0:
            time.sleep(0.1)
            MPI.COMM_WORLD.Abort(code)

    def _lacks(self) -> str | None:
        return lacking(self._places, self.lost, self._exact)

    def _kill(self, rank: int) -> None:
        """Kill a silent rank if it is a process of this job on this host: the launcher would wait for it for ever."""
        host, pid = self._processes[rank]
        job = f"PMIX_NAMESPACE={os.environ.get('PMIX_NAMESPACE')}"
        with contextlib.suppress(OSError):
            environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
            if host == socket.gethostname() and job in environment and f"PMIX_RANK={rank}" in environment:
                os.kill(pid, signal.SIGKILL)


def gone_from(comm: MPI.Comm) -> frozenset[int]:
    """Return the ranks of a communicator that will say nothing any more; only a `World` knows of any."""
    return comm.gone if isinstance(comm, World) else NOBODY


def silent_in(comm: MPI.Comm) -> frozenset[int]:
    """Return the ranks of a communicator that are silent, and may come back; only a `World` knows of any."""
    return comm.silent if isinstance(comm, World) else NOBODY


def tested(request: MPI.Request) -> bool | None:
    """Say whether a request has completed; None if it never will, because the other rank has died."""
    try:
        return bool(request.Test())
    except MPI.Exception as error:
        if error.Get_error_class() != MPI.ERR_PROC_FAILED:
            raise
        return None


def unless_died(look: Callable[[], Found]) -> Found | None:
    """Return what a look for messages finds; None if a rank has died, as the communicator will know at its next."""
    try:
        return look()
    except MPI.Exception as error:
        if error.Get_error_class() not in (MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING):
            raise
        return None
