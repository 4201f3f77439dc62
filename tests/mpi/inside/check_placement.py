"""Communicators: who is in which, and where there is none."""

import pytest
from mpi4py import MPI

from hpcddrl.comm.placement import Role, fit, leaders, place, ranks_of, split
from hpcddrl.config import Topology

WORLD = MPI.COMM_WORLD
TOPOLOGIES = [
    Topology(groups=1),
    Topology(groups=2),
    Topology(),
    Topology(groups=1, learners_per_group=2),
    Topology(actors_per_group=0),
    Topology(actors_per_group=0, servers=1),
    Topology(actors_per_group=1, servers=1),
]


@pytest.mark.parametrize("topology", TOPOLOGIES, ids=str)
def test_each_rank_is_in_the_communicators_of_its_place(topology):
    try:
        places = place(fit(topology, WORLD.size))
    except ValueError:
        pytest.skip("this layout does not take so many ranks")
    me = places[WORLD.rank]
    comms = split(WORLD, places)
    assert comms.world.size == WORLD.size
    assert comms.world.rank == WORLD.rank
    assert MPI.Comm.Compare(comms.world, WORLD) == MPI.CONGRUENT  # a copy, so that no tag clashes with another's

    group = [r for r, p in enumerate(places) if p.group == me.group]
    assert comms.group.allgather(WORLD.rank) == group
    learners = ranks_of(places, Role.LEARNER, me.group)
    if me.role is Role.LEARNER:
        assert comms.learners.allgather(WORLD.rank) == learners
        assert comms.learners.rank == me.number
    else:
        assert comms.learners == MPI.COMM_NULL
    if WORLD.rank in leaders(places):
        assert comms.leaders.allgather(WORLD.rank) == leaders(places)
    else:
        assert comms.leaders == MPI.COMM_NULL
    for comm in comms:
        if comm != MPI.COMM_NULL:
            comm.Free()
