"""How far the clocks of other ranks are ahead, from messages to and fro."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
from mpi4py import MPI

from hpcddrl.comm.wait import wait_until

ROUNDS = 20


def clocks_ahead(
    comm: MPI.Comm, ranks: Sequence[int], clock: Callable[[], float] = time.perf_counter
) -> dict[int, float]:
    """Return, on rank 0, how many seconds the clocks of some other ranks are ahead of its own.

    An answer is taken to have been written half way between question and answer (Cristian 1989); of several rounds
    the quickest counts, whose half is the greatest error. Collective over rank 0 and those ranks, which are asked in
    turn. Nothing else may be on its way between them in ``comm``.
    """
    if comm.rank == 0:
        return {rank: _ask(comm, rank, clock) for rank in ranks}
    if comm.rank in ranks:
        _answer(comm, clock)
    return {}


def _ask(comm: MPI.Comm, rank: int, clock: Callable[[], float]) -> float:
    answer, quickest, ahead = np.zeros(1), math.inf, 0.0
    for _ in range(ROUNDS):
        asked = clock()
        comm.Send(answer, rank)
        comm.Recv(answer, rank)
        answered = clock()
        if answered - asked < quickest:
            quickest, ahead = answered - asked, float(answer[0]) - (asked + answered) / 2
    return ahead


def _answer(comm: MPI.Comm, clock: Callable[[], float]) -> None:
    """Answer rank 0, sleeping only until it asks for the first time."""
    buffer = np.zeros(1)
    wait_until(comm.Irecv(buffer, 0).Test)
    for number in range(ROUNDS):
        if number:
            comm.Recv(buffer, 0)
        buffer[0] = clock()
        comm.Send(buffer, 0)
