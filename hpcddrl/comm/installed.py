"""Which MPI and which Horovod are installed here, and what they can do."""

from __future__ import annotations

import os
from typing import NamedTuple

LAUNCHERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")  # say how many processes they started
THREAD_LEVELS = ("single", "funneled", "serialized", "multiple")


class Mpi(NamedTuple):
    """The MPI library that this process runs on."""

    library: str
    standard: tuple[int, int]
    thread_level: str  # of `THREAD_LEVELS`


class Horovod(NamedTuple):
    """The Horovod of this Python."""

    version: str  # "" where there is none
    built_with: tuple[str, ...]  # of mpi, gloo, nccl, cuda, rocm
    problem: str  # why it cannot be imported, in one line


def mpi() -> Mpi:
    """Return the MPI library of this process; starts it."""
    from mpi4py import MPI

    library = MPI.Get_library_version().strip("\0 \n").splitlines()[0]
    return Mpi(library.partition(",")[0], MPI.Get_version(), THREAD_LEVELS[MPI.Query_thread()])


def started_by_launcher() -> int:
    """Return how many processes a launcher says that it started with this one, 1 if none says."""
    said = [os.environ.get(name, "") for name in LAUNCHERS]
    return max([1, *(int(text) for text in said if text.isdigit())])


def horovod() -> Horovod:
    """Return the Horovod that learners of a group would reduce with."""
    try:
        import horovod as package
        import horovod.torch as hvd
    except Exception as error:  # a build for another torch fails in many ways
        absent = isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == "horovod"
        return Horovod("", (), "it is not installed" if absent else f"{error}".strip().splitlines()[0])
    built = tuple(name for name in ("mpi", "gloo", "nccl", "cuda", "rocm") if getattr(hvd, f"{name}_built")())
    return Horovod(str(package.__version__), built, "")
