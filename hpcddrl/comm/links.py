"""How fast messages are between two ranks: the latency of small ones, the bandwidth of large ones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hpcddrl.comm.wait import wait_until

if TYPE_CHECKING:
    from mpi4py import MPI

ROUNDS = 100
LARGE_BYTES, LARGE_ROUNDS = 4_000_000, 5


class Link(NamedTuple):
    """What messages between two ranks take."""

    first: int
    second: int
    latency_s: float  # of a small message, one way: half the median round
    bytes_per_s: float  # of large ones, one way


def measure_links(comm: MPI.Comm, pairs: Sequence[tuple[int, int]]) -> list[Link]:
    """Measure pairs of ranks, one after the other; return, on every rank, those that this one was first of.

    Collective over ``comm``; who is not in a pair sleeps meanwhile.
    """
    links = []
    for first, second in pairs:
        if comm.rank == first:
            small, large = _rounds(comm, second, 8, ROUNDS), _rounds(comm, second, LARGE_BYTES, LARGE_ROUNDS)
            links.append(Link(first, second, small / 2, 2 * LARGE_BYTES / large))
        elif comm.rank == second:
            _echo(comm, first, 8, ROUNDS)
            _echo(comm, first, LARGE_BYTES, LARGE_ROUNDS)
        done = comm.Ibarrier()
        wait_until(done.Test)
    return links


def _rounds(comm: MPI.Comm, peer: int, nbytes: int, rounds: int) -> float:
    """Return the median seconds that a message takes to and fro; the first, which sets up the connection, is left out.

    What comes back must be what was sent.
    """
    sent, back = np.random.default_rng(0).integers(0, 255, nbytes, np.uint8), np.zeros(nbytes, np.uint8)
    seconds = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        comm.Send(sent, peer)
        comm.Recv(back, peer)
        seconds.append(time.perf_counter() - began)
    assert (sent == back).all(), f"{nbytes} bytes came back from rank {peer} as others"
    return float(np.median(seconds[1:]))


def _echo(comm: MPI.Comm, peer: int, nbytes: int, rounds: int) -> None:
    buffer = np.zeros(nbytes, np.uint8)
    for _ in range(rounds + 1):
        comm.Recv(buffer, peer)
        comm.Send(buffer, peer)
