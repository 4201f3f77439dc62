"""Who tells whom of its weights in which round of exchanges: agreed by computing the same, without a message.

A round is a count that each group keeps for itself. Groups need not be in the same round at the same time: everyone
sends to those that its own round names, and takes whatever has come.
"""

from __future__ import annotations

import random
from typing import Literal, NamedTuple

Topology = Literal["all_to_all", "ring", "random_pairs"]


class Partners(NamedTuple):
    """The groups that one sends to in a round, and those that send to it in theirs of the same number."""

    to: tuple[int, ...]
    by: tuple[int, ...]


def partners(topology: Topology, groups: int, group: int, number: int, seed: int) -> Partners:
    """Return a group's partners in the round of this number.

    all_to_all: everyone; ring: the next hears from the one before; random_pairs: groups are drawn into pairs, other
    ones each round, and with an odd number one is left out.
    """
    match topology:
        case "all_to_all":
            others = tuple(g for g in range(groups) if g != group)
            return Partners(others, others)
        case "ring":
            return Partners(((group + 1) % groups,), ((group - 1) % groups,))
        case "random_pairs":
            order = list(range(groups))
            random.Random(f"{seed} {number}").shuffle(order)
            place = order.index(group)
            other = place ^ 1  # 0 and 1, 2 and 3, …
            found = (order[other],) if other < groups else ()
            return Partners(found, found)


def neighbours(topology: Topology, groups: int, group: int) -> Partners:
    """Return the groups that one ever sends to, and those that ever send to it."""
    if topology == "random_pairs":
        topology = "all_to_all"  # in the long run
    return partners(topology, groups, group, 0, 0)
