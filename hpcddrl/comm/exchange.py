"""Weights between the groups' leaders, point to point, without anyone waiting for anyone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from mpi4py import MPI

from hpcddrl.comm.channel import Ending, Receiver, Sender, Slot, Tag, Traffic, ignore
from hpcddrl.comm.messages import WeightsMessage, weights_layout
from hpcddrl.comm.wait import wait_until
from hpcddrl.types import Array, Weights


class Exchange:
    """Posts this leader's newest weights to its peers and takes what they posted.

    A peer that has not taken the weights before is passed over this time (`skipped` counts), so a slow or silent one
    delays nobody; at most one message to each peer is on its way.

    Args:
        comm: the communicator whose ranks are meant.
        peers: the other leaders' ranks.
        parameters: P.
        traffic: where messages are counted.
    """

    def __init__(self, comm: MPI.Comm, peers: Sequence[int], parameters: int, traffic: Traffic) -> None:
        layout = weights_layout(parameters)
        self._peers = list(peers)
        self._sender = Sender(comm, Tag.EXCHANGE, layout, len(self._peers) + 1, traffic)
        self._receiver = Receiver(comm, peers, Tag.EXCHANGE, layout, slots=2)
        self._early: dict[int, deque[Slot[WeightsMessage]]] = {peer: deque() for peer in peers}
        self.skipped = 0

    def post(self, weights: Weights) -> None:
        """Send the weights to every peer that has taken the ones before."""
        ready = [peer for peer in self._peers if not self._sender.busy(peer)]
        self.skipped += len(self._peers) - len(ready)
        slot = self._sender.take() if ready else None
        if slot is None:
            return
        slot.record.version[0] = weights.version
        slot.record.flat[:] = weights.flat.numpy()
        for peer in ready:
            self._sender.send(slot, peer)
        self._sender.release(slot)

    def take(self, use: Callable[[int, int, Array], None]) -> None:
        """Call ``use`` with rank, version and flat [P] of each set of weights that has arrived, oldest first."""
        for slot in self._receiver.poll():
            self._hand_over(slot, use)

    def take_all(self, use: Callable[[int, int, Array], None]) -> None:
        """Take exactly one set of weights from every peer that still sends, waiting for it: for deterministic runs.

        What a faster peer has sent already for the next round is kept until then.
        """
        missing = set(self._peers)

        def all_here() -> bool:
            for slot in self._receiver.poll():
                self._early[slot.source].append(slot)
            for peer in sorted(missing):
                if self._early[peer]:
                    self._hand_over(self._early[peer].popleft(), use)
                elif peer in self._receiver.open:
                    continue
                missing.discard(peer)
            return not missing

        wait_until(all_here)
        wait_until(lambda: self._sender.idle)

    def _hand_over(self, slot: Slot[WeightsMessage], use: Callable[[int, int, Array], None]) -> None:
        if not slot.record.last[0]:
            use(slot.source, int(slot.record.version[0]), slot.record.flat)
        self._receiver.release(slot)

    def end(self) -> Ending:
        """Say the last to every peer; return what is still to come."""
        for early in self._early.values():
            while early:
                self._receiver.release(early.popleft())
        self._sender.say_last(self._peers)
        return Ending(((self._receiver, ignore),), (self._sender,))
