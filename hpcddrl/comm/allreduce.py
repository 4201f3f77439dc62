"""Averaging a vector over the learners of a group: Horovod, or mpi4py behind the same two methods. And sums."""

from __future__ import annotations

import importlib.util
from typing import Literal, Protocol

import numpy as np
import torch
from mpi4py import MPI

from hpcddrl.comm.wait import wait_until


class Averaging(Protocol):
    """Averages vectors over the learners of a group."""

    name: str

    def average(self, vector: torch.Tensor) -> None:
        """Replace ``vector`` [n] f32 by its mean over the learners, in place. Collective over ``learners``."""

    def close(self) -> None:
        """Let go of what it holds. Collective over ``learners``."""


class MpiAveraging:
    """One Allreduce of the whole vector; whoever arrives early sleeps until all are there."""

    def __init__(self, learners: MPI.Comm) -> None:
        self._comm = learners.Dup()
        self.name = f"mpi4py Allreduce ({MPI.Get_library_version().split(',')[0]})"

    def average(self, vector: torch.Tensor) -> None:
        """See `Averaging`."""
        arrived = self._comm.Ibarrier()
        wait_until(arrived.Test, longest_s=1e-3)
        self._comm.Allreduce(MPI.IN_PLACE, vector.numpy(), MPI.SUM)
        vector /= self._comm.size

    def close(self) -> None:
        """See `Averaging`."""
        self._comm.Free()


class HorovodAveraging:
    """One Horovod allreduce of the whole vector, on a Horovod world made of this group's learners alone."""

    def __init__(self, learners: MPI.Comm) -> None:
        import horovod
        import horovod.torch as hvd

        hvd.init(comm=learners)
        self._hvd = hvd
        self.name = f"Horovod {horovod.__version__}"

    def average(self, vector: torch.Tensor) -> None:
        """See `Averaging`."""
        handle = self._hvd.allreduce_async_(vector, op=self._hvd.Average, name="gradient")
        wait_until(lambda: bool(self._hvd.poll(handle)), longest_s=1e-3)
        self._hvd.synchronize(handle)

    def close(self) -> None:
        """See `Averaging`."""
        self._hvd.shutdown()


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


def averaging(backend: Literal["horovod", "mpi"], learners: MPI.Comm) -> Averaging:
    """Make the averaging that `config.AllReduce.backend` names. Collective over ``learners``."""
    return HorovodAveraging(learners) if backend == "horovod" else MpiAveraging(learners)
