"""Under mpirun: time how vectors are averaged and weights published, beside bare mpi4py loops, in turn in one run.

mpirun -n 2 python -m benchmarks.communicating --floats 1700000        # rank 0 prints milliseconds as JSON
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from mpi4py import MPI

from hpcddrl.comm.allreduce import HorovodAveraging, MpiAveraging
from hpcddrl.comm.channel import Receiver, Tag, Traffic, drain
from hpcddrl.comm.circle import Circle
from hpcddrl.comm.messages import pull_layout
from hpcddrl.comm.wait import Backoff, wait_until
from hpcddrl.logs.timing import Timing
from hpcddrl.roles.publishing import AsTheyAre, Inbox, Publisher
from hpcddrl.types import Array, Weights

ROUNDS = 7  # of each thing, in turn with the others; the median counts
SMALL = 64  # bytes of a message that costs its latency


def seconds_each(world: MPI.Comm, once: Callable[[], None], calls: int) -> float:
    """Return the seconds of one of so many calls, which all ranks make together."""
    world.Barrier()
    start = time.perf_counter()
    for _ in range(calls):
        once()
    world.Barrier()
    return (time.perf_counter() - start) / calls


class Publication:
    """Rank 0 publishes a new version, everyone else asks for it and takes it: the project's way and the bare one."""

    def __init__(self, world: MPI.Comm, floats: int) -> None:
        self._world, self._values, self._version = world, torch.ones(floats), 0
        self._traffic, others = Traffic(), list(range(1, world.size))
        self._bare = world.Dup()
        if world.rank == 0:
            packing = AsTheyAre(self._values)
            self._publisher = Publisher(world, others, packing, exact=False, timing=Timing(), traffic=self._traffic)
            self._publisher.put(Weights(0, self._values))
        else:
            own = self._values.numpy().view(np.uint8)
            take = partial(np.copyto, own)
            self._inbox = Inbox(world, [0], len(own), take, exact=False, traffic=self._traffic)

    def ours(self) -> None:
        """Publish once."""
        if self._world.rank:
            self._inbox.ask(self._version)
            wait_until(self._inbox.refresh, longest_s=2e-3)
            return
        self._version += 1
        wanted = self._traffic.messages[Tag.WEIGHTS] + self._world.size - 1
        self._publisher.put(Weights(self._version, self._values))
        backoff = Backoff(1e-3)
        while self._traffic.messages[Tag.WEIGHTS] < wanted:
            self._publisher.serve()
            backoff.pause()

    def bare(self) -> None:
        """Do the same with sends and receives that block."""
        request, values = np.zeros(SMALL, np.uint8), self._values.numpy()
        if self._world.rank:
            self._bare.Send(request, 0)
            self._bare.Recv(values, 0)
            return
        for rank in range(1, self._world.size):
            self._bare.Recv(request, rank)
        for rank in range(1, self._world.size):
            self._bare.Send(values, rank)

    def close(self) -> None:
        """Part."""
        drain(self._publisher.end() if self._world.rank == 0 else self._inbox.end())
        self._bare.Free()


def between_two(world: MPI.Comm, floats: int) -> dict[str, float]:
    """Return what `simulate` wants to know of two ranks: latency, bandwidth, and what a look at a buffer takes."""
    small, large = np.zeros(SMALL, np.uint8), np.zeros(floats, np.float32)

    def there_and_back(buffer: Array) -> None:
        if world.rank == 0:
            world.Send(buffer, 1)
            world.Recv(buffer, 1)
        elif world.rank == 1:
            world.Recv(buffer, 0)
            world.Send(buffer, 0)

    latency = min(seconds_each(world, lambda: there_and_back(small), 500) for _ in range(3)) / 2
    whole = min(seconds_each(world, lambda: there_and_back(large), 10) for _ in range(3)) / 2
    posted = Receiver(MPI.COMM_SELF, [0], Tag.PULL, pull_layout(), slots=1)
    start, looks = time.perf_counter(), 20_000
    for _ in range(looks):
        posted.poll()
    test = (time.perf_counter() - start) / looks
    posted.close()
    return {
        "latency_us": 1e6 * latency,
        "bandwidth_gb": large.nbytes / max(whole - latency, 1e-9) / 1e9,
        "test_us": 1e6 * test,
    }


def in_turn(world: MPI.Comm, timed: dict[str, Callable[[], None]], calls: int) -> dict[str, float]:
    """Return the median milliseconds of each thing; all take turns, so that what disturbs one disturbs all."""
    found: dict[str, list[float]] = defaultdict(list)
    for once in timed.values():
        seconds_each(world, once, 2)
    for _ in range(ROUNDS):
        for name, once in timed.items():
            found[name].append(1e3 * seconds_each(world, once, calls))
    return {name: float(np.median(times)) for name, times in found.items()}


def measure(world: MPI.Comm, floats: int, calls: int) -> dict[str, float]:
    """Return the median milliseconds of each thing.

    Horovod comes last: the threads that it starts would take turns on the cores with what else is timed.
    """
    vector = torch.ones(floats).zero_()  # every page is there
    own, publication = MpiAveraging(Circle(world)), Publication(world, floats)
    timed: dict[str, Callable[[], None]] = {
        "allreduce": lambda: own.average(vector),
        "allreduce_bare": lambda: world.Allreduce(MPI.IN_PLACE, vector.numpy(), MPI.SUM),
        "publication": publication.ours,
        "publication_bare": publication.bare,
    }
    found = in_turn(world, timed, calls)
    publication.close()
    own.close()
    if importlib.util.find_spec("horovod"):
        horovod = HorovodAveraging(Circle(world))
        found |= in_turn(world, {"horovod": lambda: horovod.average(vector)}, calls)
        horovod.close()
    return found


def main() -> None:
    """Measure and let rank 0 print."""
    parser = argparse.ArgumentParser(prog="communicating", description=__doc__)
    parser.add_argument("--floats", type=int, default=1_700_000)
    parser.add_argument("--calls", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    world = MPI.COMM_WORLD
    found = measure(world, given.floats, given.calls) | between_two(world, given.floats)
    if world.rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
