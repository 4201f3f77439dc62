"""From a topology and a number of ranks to the role of each rank, and to the communicators of a job."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from hpcddrl.config import Topology

if TYPE_CHECKING:
    from mpi4py import MPI

    from hpcddrl.comm.tracing import Observer
    from hpcddrl.comm.world import World


class Role(StrEnum):
    """What a rank does."""

    SERVER = "server"
    LEARNER = "learner"
    REPLAY = "replay"
    ACTOR = "actor"


class Place(NamedTuple):
    """A rank's role, its group (none for a server) and its number among the group's ranks of that role."""

    role: Role
    group: int | None
    number: int

    def __str__(self) -> str:
        return f"{self.role} {self.number}" + ("" if self.group is None else f" of group {self.group}")


def fit(topology: Topology, ranks: int) -> Topology:
    """Return the topology with its unset counts chosen so that it takes exactly ``ranks`` ranks.

    Actors are as few as possible a group when both counts are free, so that groups are many.

    Raises:
        ValueError: no choice takes that many ranks; names the nearest counts that can.
    """
    fitted = _fit(topology, ranks)
    if fitted is None:
        possible = [n for n in range(1, 4 * ranks + 64) if _fit(topology, n) is not None]
        near = sorted(sorted(possible, key=lambda n: abs(n - ranks))[:6])
        counts = ", ".join(map(str, near)) or "none"
        raise ValueError(
            f"{ranks} ranks cannot be laid out as {_describe(topology)}; counts that can: {counts}; start that many, "
            "or set topology.groups, topology.learners_per_group, topology.actors_per_group"
        )
    return fitted


def _fit(topology: Topology, ranks: int) -> Topology | None:
    rest, replays = ranks - topology.servers, topology.replays_per_group
    groups, learners, actors = topology.groups, topology.learners_per_group, topology.actors_per_group
    if learners is None:  # as many as there is room for
        learners = rest // (groups or 1) - replays - (actors or 0)
    if groups is None and actors is None:
        actors = next((a for a in range(1, rest) if rest % (learners + replays + a) == 0), -1)
    if groups is None:
        assert actors is not None
        groups = max(rest // max(1, learners + replays + actors), 0)
    if actors is None:
        actors = rest // groups - learners - replays if groups else -1
    if groups < 1 or learners < 1 or actors < 0 or groups * (learners + replays + actors) != rest:
        return None
    if replays and not actors:
        return None
    return dataclasses.replace(topology, groups=groups, learners_per_group=learners, actors_per_group=actors)


def _describe(topology: Topology) -> str:
    def some(count: int | None, what: str) -> str:
        return f"any number of {what}" if count is None else f"{count} {what}"

    groups = "groups" if topology.groups is None else f"{topology.groups} groups"
    servers = f"{topology.servers} servers and " if topology.servers else ""
    replays = f", {topology.replays_per_group} replays" if topology.replays_per_group else ""
    learners = some(topology.learners_per_group, "learners")
    return f"{servers}{groups} of {learners}{replays} and {some(topology.actors_per_group, 'actors')}"


def place(topology: Topology) -> tuple[Place, ...]:
    """Return the place of every world rank: servers first, then group by group, learners, replays, actors.

    Pure, so that a job for 4096 ranks can be checked on a laptop. The topology must be fitted.
    """
    assert topology.groups is not None, topology
    assert topology.learners_per_group is not None, topology
    assert topology.actors_per_group is not None, topology
    servers = [Place(Role.SERVER, None, i) for i in range(topology.servers)]
    groups = [
        Place(role, group, i)
        for group in range(topology.groups)
        for role, count in (
            (Role.LEARNER, topology.learners_per_group),
            (Role.REPLAY, topology.replays_per_group),
            (Role.ACTOR, topology.actors_per_group),
        )
        for i in range(count)
    ]
    return tuple(servers + groups)


def ranks_of(places: tuple[Place, ...], role: Role, group: int | None = None) -> list[int]:
    """Return the world ranks with a role, in a group (or in all)."""
    return [r for r, p in enumerate(places) if p.role is role and (group is None or p.group == group)]


def dealt(ranks: Sequence[int], number: int, takers: int) -> list[int]:
    """Return those of some ranks that fall to the ``number``-th of so many takers, when they are dealt in turn."""
    return list(ranks[number::takers])


def leaders(places: tuple[Place, ...]) -> list[int]:
    """Return the world rank of every group's first learner."""
    return [r for r, p in enumerate(places) if p.role is Role.LEARNER and p.number == 0]


def slices(parameters: int, shards: int) -> tuple[slice, ...]:
    """Return the part of a vector [parameters] that each shard owns: in order, as even as can be, the first longer."""
    even, longer = divmod(parameters, shards)
    starts = [i * even + min(i, longer) for i in range(shards + 1)]
    return tuple(slice(start, stop) for start, stop in itertools.pairwise(starts))


class Communicators(NamedTuple):
    """The communicators of one rank; ``learners`` and ``leaders`` are null on ranks that are neither.

    The servers belong to no group, and their ``group`` is that of all servers.
    """

    world: World
    group: MPI.Comm
    learners: MPI.Comm
    leaders: MPI.Comm


def split(
    world: MPI.Intracomm, places: tuple[Place, ...], exact: bool = False, observer: Observer | None = None
) -> Communicators:
    """Make this rank's communicators. Collective over ``world``.

    Args:
        world: all ranks.
        places: of them.
        exact: the run is deterministic.
        observer: is told of messages between any two ranks.
    """
    from mpi4py import MPI

    from hpcddrl.comm.tracing import TracedWorld
    from hpcddrl.comm.world import World

    me = places[world.rank]
    group = math.inf if me.group is None else me.group
    is_learner, is_leader = me.role is Role.LEARNER, world.rank in leaders(places)
    return Communicators(
        world=World(world.Dup(), places, exact)
        if observer is None
        else TracedWorld(world.Dup(), places, exact, observer),
        group=world.Split(len(places) if group == math.inf else int(group), world.rank),
        learners=world.Split(int(group) if is_learner else MPI.UNDEFINED, world.rank),
        leaders=world.Split(0 if is_leader else MPI.UNDEFINED, world.rank),
    )
