"""The learners of a group: what they do all together is done by all or by none, and anew without those who die."""

from __future__ import annotations

from collections.abc import Callable

from mpi4py import MPI

from hpcddrl.comm.wait import Backoff
from hpcddrl.comm.world import World
from hpcddrl.types import Array


class Died(Exception):  # noqa: N818 (an event, after which one goes on)
    """Something collective failed because one of the circle has died."""


class Circle:
    """A communicator that goes on without members that die, in the order of those who are left.

    Where deaths are survived, everything collective ends with an agreement on whether all have done it, since a death
    can spare some of the calls that it interrupts; if not, it is done anew without the dead.

    Args:
        comm: the members.
        world: knows who has died.
        meanwhile: called while others are awaited.
    """

    def __init__(
        self, comm: MPI.Comm, world: World | None = None, meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        self._comm, self._world, self._meanwhile = comm.Dup(), world, meanwhile
        self._members = self._in_world()

    @property
    def size(self) -> int:
        """Return how many are left."""
        return self._comm.size

    @property
    def comm(self) -> MPI.Comm:
        """Return that of those who are left, for what all take part in while others may do something else."""
        return self._comm

    @property
    def survives(self) -> bool:
        """Say whether a death does not end the job."""
        return self._world is not None and self._world.survives

    def Bcast(self, buffer: Array, root: int) -> None:  # noqa: N802 (as MPI calls it)
        """Give all what the root has. Collective over the circle; the root must be one that it cannot do without."""
        self.together(lambda comm: comm.Bcast(buffer, root=root))

    def together(self, act: Callable[[MPI.Comm], None]) -> None:
        """Do something collective, anew without whoever dies meanwhile. Collective over the circle.

        Args:
            act: called with the communicator of those who are left, perhaps more than once; may raise `Died`.
        """
        if not self.survives:
            act(self._comm)
            return
        while not self._agree(self._attempt(act)):
            self._comm = self._comm.Shrink()
            self._comm.Set_errhandler(MPI.ERRORS_RETURN)
            self._members = self._in_world()

    def wait(self, done: Callable[[], bool]) -> None:
        """Wait for something that all of the circle have a part in.

        Raises:
            Died: one of them has died meanwhile.
        """
        backoff = Backoff(longest_s=1e-3)
        while not done():
            self._meanwhile()
            if self._world is not None and self._members & self._world.lost:
                raise Died
            backoff.pause()

    def close(self) -> None:
        """Let go of the communicator. Collective over the circle, unless one has died."""
        if self._world is None or not self._world.gone:
            self._comm.Free()

    def _attempt(self, act: Callable[[MPI.Comm], None]) -> bool:
        try:
            act(self._comm)
        except Died:
            self._comm.Revoke()  # so that nobody waits for this rank in there
            return False
        except MPI.Exception as error:
            if error.Get_error_class() not in (MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING, MPI.ERR_REVOKED):
                raise
            self._comm.Revoke()
            return False
        return True

    def _agree(self, done: bool) -> bool:
        """Say, alike on all, whether all have done it."""
        try:
            return bool(self._comm.Agree(int(done)))
        except MPI.Exception as error:  # a death that not all knew of; it is raised on all or on none
            if error.Get_error_class() != MPI.ERR_PROC_FAILED:
                raise
            return False

    def _in_world(self) -> frozenset[int]:
        if self._world is None:
            return frozenset()
        return frozenset(self._comm.Get_group().Translate_ranks(None, self._world.Get_group()))
