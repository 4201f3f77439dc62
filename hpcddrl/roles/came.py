"""What came from ranks that are gone since, dead or given up: their own counts are gone with them."""

from __future__ import annotations

from collections.abc import Iterable

from hpcddrl.comm.world import World
from hpcddrl.roles.counters import Counters


class Came:
    """Counts the transitions that came from each rank; the rank's counters ask it whenever they are looked at.

    Args:
        world: knows who is gone.
        sources: the ranks.
        counters: of this rank.
    """

    def __init__(self, world: World, sources: Iterable[int], counters: Counters) -> None:
        self._world = world
        self._came = dict.fromkeys(sources, 0)
        counters.inherit(self._of_the_gone)

    def count(self, source: int, transitions: int) -> None:
        """Count what has come from a rank."""
        self._came[source] += transitions

    def _of_the_gone(self) -> float:
        return float(sum(n for rank, n in self._came.items() if rank in self._world.gone))
