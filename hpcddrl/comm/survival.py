"""What a job, and a rank of it, can do without: pure rules on who has died."""

from __future__ import annotations

from collections.abc import Collection

from hpcddrl.comm.placement import Place, Role, ranks_of

Places = tuple[Place, ...]


def lacking(places: Places, lost: Collection[int], exact: bool) -> str | None:
    """Return what the whole job cannot go on without, if it has lost that.

    Args:
        places: of all ranks.
        lost: the ranks that have died.
        exact: the run is deterministic, and its order of messages needs everybody.
    """
    if not lost:
        return None
    first = min(lost)
    if exact:
        return f"rank {first}, {places[first]}, has died: a deterministic run needs all its ranks"
    if first == 0:
        return f"rank 0, {places[0]}, has died: it decides about the run's end and keeps its log"
    if places[first].role is Role.SERVER:
        return f"rank {first}, {places[first]}, has died: a part of the weights died with it"
    groups = {p.group for p in places if p.group is not None}
    if all(group_lacks(places, lost, group) for group in groups):
        return f"no group is left: {group_lacks(places, lost, next(iter(groups)))}"
    return None


def group_lacks(places: Places, lost: Collection[int], group: int) -> str | None:
    """Return what a group cannot go on without, if it has lost that."""

    def dead(role: Role) -> list[int]:
        return [rank for rank in ranks_of(places, role, group) if rank in lost]

    leader = ranks_of(places, Role.LEARNER, group)[0]
    if leader in lost:
        return f"the leader of group {group}, rank {leader}, has died"
    if replays := dead(Role.REPLAY):
        return f"a replay of group {group}, rank {replays[0]}, has died"
    actors = ranks_of(places, Role.ACTOR, group)
    if actors and len(dead(Role.ACTOR)) == len(actors):
        return f"all actors of group {group} have died"
    return None


def stranded(places: Places, lost: Collection[int], rank: int) -> str | None:
    """Return why a rank has nothing left to do, if it has not: its group lacks what it needs."""
    group = places[rank].group
    return None if group is None else group_lacks(places, lost, group)
