"""Averaging a vector over the learners of a group: Horovod, or mpi4py behind the same two methods. And sums."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Literal, Protocol

import numpy as np
import torch
from mpi4py import MPI

from hpcddrl.comm.circle import Circle, Died
from hpcddrl.comm.wait import wait_until


class Averaging(Protocol):
    """Averages vectors over the learners of a group."""

    name: str
    on_gpus: bool  # it averages vectors on GPUs, too, where they are

    @property
    def size(self) -> int:
        """Return over how many; fewer than at first once one has died."""

    def average(self, vector: torch.Tensor) -> None:
        """Replace ``vector`` [n] f32 by its mean over the learners, in place. Collective over ``learners``."""

    def begin(self, vector: torch.Tensor) -> Callable[[], None]:
        """Begin to do so; return what waits until it is done, which is collective over ``learners``, as this is.

        Until then nobody may touch ``vector``, or begin another. Where deaths are survived, all of it is done there:
        the learners then agree after each on who is left.
        """

    def advance(self) -> None:
        """Let what was begun go on meanwhile; cheap."""

    def close(self) -> None:
        """Let go of what it holds. Collective over ``learners``."""


class MpiAveraging:
    """One Allreduce of the whole vector; whoever arrives early sleeps until all are there."""

    on_gpus = False

    def __init__(self, learners: Circle) -> None:
        self._learners, self._request = learners, MPI.REQUEST_NULL
        self.name = f"mpi4py Allreduce ({MPI.Get_library_version().split(',')[0]})"

    @property
    def size(self) -> int:
        """See `Averaging`."""
        return self._learners.size

    def average(self, vector: torch.Tensor) -> None:
        """See `Averaging`."""
        own = vector.clone().numpy() if self._learners.survives else MPI.IN_PLACE  # a failure may spoil the vector

        def reduce(comm: MPI.Comm) -> None:
            self._learners.wait(comm.Ibarrier().Test)
            comm.Allreduce(own, vector.numpy(), MPI.SUM)

        self._learners.together(reduce)
        vector /= self._learners.size

    def begin(self, vector: torch.Tensor) -> Callable[[], None]:
        """See `Averaging`."""
        if self._learners.survives:
            return partial(self.average, vector)
        self._request = self._learners.comm.Iallreduce(MPI.IN_PLACE, vector.numpy(), MPI.SUM)
        return partial(self._finish, vector)

    def advance(self) -> None:
        """See `Averaging`: MPI goes on while it is called."""
        self._request.Test()

    def close(self) -> None:
        """See `Averaging`."""
        self._learners.close()

    def _finish(self, vector: torch.Tensor) -> None:
        self._learners.wait(self._request.Test)
        vector /= self._learners.size


class HorovodAveraging:
    """One Horovod allreduce of the whole vector, on a Horovod world made of this group's learners alone.

    It is made anew of those who are left when one has died.
    """

    def __init__(self, learners: Circle) -> None:
        import horovod
        import horovod.torch as hvd

        self._hvd, self._learners = hvd, learners
        self._comm: MPI.Comm | None = None
        learners.together(self._world_of)
        self.on_gpus = bool(hvd.nccl_built())
        self.name = f"Horovod {horovod.__version__}"

    @property
    def size(self) -> int:
        """See `Averaging`."""
        return self._learners.size

    def average(self, vector: torch.Tensor) -> None:
        """See `Averaging`."""
        own = vector.clone() if self._learners.survives else vector

        def reduce(comm: MPI.Comm) -> None:
            if own is not vector:
                vector.copy_(own)
            if comm.size == 1:  # left alone
                return
            self._world_of(comm)
            try:
                self._start(vector)()
            except self._hvd.HorovodInternalError as error:
                raise Died if self._learners.survives else error from error

        self._learners.together(reduce)

    def begin(self, vector: torch.Tensor) -> Callable[[], None]:
        """See `Averaging`."""
        return partial(self.average, vector) if self._learners.survives else self._start(vector)

    def advance(self) -> None:
        """See `Averaging`: Horovod's own thread does it."""

    def close(self) -> None:
        """See `Averaging`."""
        self._hvd.shutdown()
        self._learners.close()

    def _start(self, vector: torch.Tensor) -> Callable[[], None]:
        handle = self._hvd.allreduce_async_(vector, op=self._hvd.Average, name="gradient")

        def finish() -> None:
            self._learners.wait(lambda: bool(self._hvd.poll(handle)))
            self._hvd.synchronize(handle)

        return finish

    def _world_of(self, comm: MPI.Comm) -> None:
        """Make Horovod's world of these learners, if it is not of them."""
        if comm is self._comm:
            return
        if self._comm is not None:
            self._hvd.shutdown()
        self._hvd.init(comm=comm)
        self._comm = comm


class Total:
    """The sum of one number over the ranks of a communicator; whoever arrives early sleeps until all are there.

    The numbers are gathered and added in rank order, so that every rank has the same sum, bit for bit.
    """

    def __init__(self, comm: MPI.Comm) -> None:
        self._comm, self._own, self._all = comm, np.zeros(1), np.zeros(comm.size)

    def __call__(self, value: float) -> float:
        """Return the sum. Collective over the communicator."""
        self._own[0] = value
        gathered = self._comm.Iallgather(self._own, self._all)
        wait_until(gathered.Test, longest_s=1e-3)
        return float(sum(self._all))


def require(backend: Literal["horovod", "mpi"]) -> None:
    """Check that a backend is installed.

    Raises:
        ValueError: it is not; says how to get it or do without.
    """
    if backend == "horovod" and importlib.util.find_spec("horovod") is None:
        raise ValueError(
            "update.backend = 'horovod': Horovod is not installed; `make setup` builds it, or use mpi4py with "
            "--set update.backend=mpi"
        )


def averaging(backend: Literal["horovod", "mpi"], learners: Circle) -> Averaging:
    """Make the averaging that `config.AllReduce.backend` names. Collective over ``learners``."""
    return HorovodAveraging(learners) if backend == "horovod" else MpiAveraging(learners)
