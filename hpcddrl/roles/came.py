"""What came from ranks that are gone since, dead or given up: their own counts are gone with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hpcddrl.comm.channel import Receiver, Slot, Tag
from hpcddrl.comm.records import Layout, R
from hpcddrl.comm.world import World
from hpcddrl.roles.counters import Counters


class Counted(Receiver[R]):
    """Receives, and counts the transitions that come from each rank; the rank's counters ask for those of the gone.

    Args:
        world: knows who is gone.
        sources: the ranks.
        tag: what is received.
        layout: of the record.
        slots: buffers posted for each source.
        transitions: in a record.
        counters: of this rank.
    """

    def __init__(
        self,
        world: World,
        sources: Sequence[int],
        tag: Tag,
        layout: Layout[R],
        slots: int,
        transitions: Callable[[R], int],
        counters: Counters,
    ) -> None:
        super().__init__(world, sources, tag, layout, slots)
        self._world, self._transitions = world, transitions
        self._came = dict.fromkeys(sources, 0)
        counters.inherit(self._of_the_gone)

    def poll(self) -> list[Slot[R]]:
        """See `Receiver`."""
        arrived = super().poll()
        for slot in arrived:
            if not slot.record.last[0]:
                self._came[slot.source] += self._transitions(slot.record)
        return arrived

    def _of_the_gone(self) -> float:
        return float(sum(n for rank, n in self._came.items() if rank in self._world.gone))
