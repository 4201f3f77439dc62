"""Doing a list of tasks on all ranks of a job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from hpcddrl.comm.failure import abort_on_exception, fatal_errors, under_launcher
from hpcddrl.comm.wait import wait_until

Task = TypeVar("Task")
Result = TypeVar("Result")


def share(tasks: Sequence[Task], work: Callable[[Task], Result]) -> list[Result] | None:
    """Return what work makes of each task, in order; on ranks other than 0, None.

    Collective over the world, where a launcher started one: ranks take tasks in turn. Without one all are done here.

    Args:
        tasks: the same on every rank.
        work: its results can be pickled.
    """
    if not under_launcher():
        return [work(task) for task in tasks]
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    abort_on_exception(world.rank, None)
    with fatal_errors():
        own = [work(task) for task in tasks[world.rank :: world.size]]
        wait_until(world.Ibarrier().Test)  # whoever is done earlier leaves its core to the others
        parts = world.gather(own, root=0)
    if parts is None:
        return None
    return [parts[i % world.size][i // world.size] for i in range(len(tasks))]
