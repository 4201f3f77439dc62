"""What came from ranks that are gone since, dead or given up: their own counts are gone with them."""

from __future__ import annotations

from collections.abc import Iterable

from hpcddrl.comm.world import World
from hpcddrl.roles.counters import Counters


class Came:
    """Counts the transitions that came from each rank.

    Args:
        world: knows who is gone.
        sources: the ranks.
        counters: of this rank.
    """

    def __init__(self, world: World, sources: Iterable[int], counters: Counters) -> None:
        self._world, self._counters = world, counters
        self._came = dict.fromkeys(sources, 0)

    def count(self, source: int, transitions: int) -> None:
        """Count what has come from a rank."""
        self._came[source] += transitions
        self.settle()

    def settle(self) -> None:
        """Bring the counter up to date."""
        if self._world.gone:
            self._counters.inherited = sum(n for rank, n in self._came.items() if rank in self._world.gone)
