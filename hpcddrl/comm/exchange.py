"""Weights between the groups' leaders, point to point, without anyone waiting for anyone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from mpi4py import MPI

from hpcddrl.comm.channel import Ending, Sender, Slot, Tag, Traffic, ignore
from hpcddrl.comm.messages import ExchangeMessage, exchange_layout
from hpcddrl.comm.records import ALIGNMENT, Layout
from hpcddrl.comm.wait import wait_until
from hpcddrl.comm.world import gone_from, tested, unless_died
from hpcddrl.types import Array, Tuning, Weights

CLOSING_BYTES = ALIGNMENT  # the field ``last`` alone; a whole network would be a waste at the end of hundreds of groups


class Arrived(NamedTuple):
    """A peer's weights, readable until the call that hands them over returns."""

    rank: int
    version: int
    architecture: int
    score: float
    tuning: tuple[float, float]  # see `types.Tuning`
    flat: Array  # [P] f32


Use = Callable[[Arrived], None]


class Arrivals:
    """Receives weights from many ranks that seldom send: a buffer is made when a message is announced, and used again.

    A synchronous send completes only when its message is taken up here, so at most one message of each source is on its
    way, and a source that sends faster than this rank looks finds itself passed over. Messages of one source keep their
    order. See `channel.Receiver`, of which this has the interface.

    Args:
        comm: the communicator whose ranks are meant.
        layouts: of each source's messages; their networks may differ.
    """

    def __init__(self, comm: MPI.Comm, layouts: Mapping[int, Layout[ExchangeMessage]]) -> None:
        self._comm, self._layouts = comm, dict(layouts)
        self._open = set(layouts)
        self._coming: deque[Slot[ExchangeMessage]] = deque()
        self._spare: dict[int, list[Slot[ExchangeMessage]]] = {}  # by size

    @property
    def open(self) -> set[int]:
        """See `channel.Receiver`."""
        return self._open - gone_from(self._comm)

    def poll(self) -> list[Slot[ExchangeMessage]]:
        """Take up what has been announced; return what is whole, oldest first for each source."""
        for source in self.open if gone_from(self._comm) else [MPI.ANY_SOURCE]:  # a death disturbs receiving from any
            self._take_up(source)
        arrived: list[Slot[ExchangeMessage]] = []
        late: deque[Slot[ExchangeMessage]] = deque()
        waiting: set[int] = set()  # a later message must not overtake one that is still coming
        for slot in self._coming:
            if slot.source in gone_from(self._comm):
                continue
            if slot.source in waiting or not tested(slot.requests[0][1]):
                waiting.add(slot.source)
                late.append(slot)
                continue
            slot.requests.clear()
            if slot.record.last[0]:
                self._open.discard(slot.source)
            arrived.append(slot)
        self._coming = late
        return arrived

    def release(self, slot: Slot[ExchangeMessage]) -> None:
        """Give back a slot that has been read."""
        self._spare.setdefault(slot.buffer.nbytes, []).append(slot)

    def close(self) -> None:
        """End; every source has said its last."""
        assert not [slot for slot in self._coming if slot.source not in gone_from(self._comm)]

    def _take_up(self, source: int) -> None:
        status = MPI.Status()

        def look() -> MPI.Message | None:
            return self._comm.Improbe(source, Tag.EXCHANGE, status)

        while self.open and (message := unless_died(look)) is not None:
            slot = self._slot(status.Get_source())
            slot.requests = [(slot.source, message.Irecv([slot.buffer, MPI.BYTE]))]
            self._coming.append(slot)

    def reopen(self) -> None:
        """Expect messages of every source again."""
        self._open = set(self._layouts)

    def _slot(self, source: int) -> Slot[ExchangeMessage]:
        layout = self._layouts[source]
        spare = self._spare.get(layout.nbytes)
        slot = spare.pop() if spare else Slot(layout)
        slot.source = source
        return slot


class Exchange:
    """Posts this leader's newest weights to its peers and takes what they posted.

    A peer that has not taken the weights before is passed over this time (`skipped` counts), so a slow or silent one
    delays nobody; at most one message to each peer is on its way.

    Args:
        comm: the communicator whose ranks are meant.
        parameters: of this leader's network.
        architecture: of this leader's network; peers refuse weights of one that they do not expect.
        to: the ranks that this one ever sends to.
        sources: the ranks that ever send to it, with the parameters of their networks.
        traffic: where messages are counted.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        parameters: int,
        architecture: int,
        to: Sequence[int],
        sources: Mapping[int, int],
        traffic: Traffic,
    ) -> None:
        self._comm, self._to, self._architecture, self._traffic = comm, list(to), architecture, traffic
        self._sender = Sender(comm, Tag.EXCHANGE, exchange_layout(parameters), len(self._to) + 1, traffic)
        self._arrivals = Arrivals(comm, {rank: exchange_layout(count) for rank, count in sources.items()})
        self._kept: dict[int, deque[Slot[ExchangeMessage]]] = {rank: deque() for rank in sources}
        self.skipped = 0

    @property
    def gone(self) -> frozenset[int]:
        """Return the ranks that will say nothing any more."""
        return gone_from(self._comm)

    @property
    def nbytes(self) -> int:
        """Return the bytes sent so far."""
        return self._traffic.bytes[Tag.EXCHANGE]

    def post(self, weights: Weights, score: float, tuning: Tuning, to: Sequence[int]) -> None:
        """Send weights, with score and tuning, to those of these ranks that have taken the ones before."""
        ready = [rank for rank in to if not self._sender.busy(rank)]
        self.skipped += len(to) - len(ready)
        slot = self._sender.take() if ready else None
        if slot is None:
            return
        slot.record.version[0] = weights.version
        slot.record.architecture[0] = self._architecture
        slot.record.score[0] = score
        slot.record.tuning[:] = tuning.learning_rate, tuning.entropy
        slot.record.flat[:] = weights.flat.numpy()
        for rank in ready:
            self._sender.send(slot, rank)
        self._sender.release(slot)

    def look(self) -> None:
        """Take up what has come, so that peers may send again; of each only the newest is kept."""
        for slot in self._arrivals.poll():
            kept = self._kept[slot.source]
            if slot.record.last[0]:
                self._arrivals.release(slot)
                continue
            while kept:
                self._arrivals.release(kept.popleft())
            kept.append(slot)

    def take(self, use: Use) -> None:
        """Hand over the newest weights of each peer whose have come since the last call."""
        self.look()
        for kept in self._kept.values():
            while kept:
                self._hand_over(kept.popleft(), use)

    def take_from(self, ranks: Sequence[int], use: Use) -> None:
        """Take exactly one set of weights from each of these ranks that still sends: for deterministic runs.

        It waits for them, and until its own have been taken. What a faster peer has sent already for a later round is
        kept until then.
        """
        missing = set(ranks)

        def all_here() -> bool:
            for slot in self._arrivals.poll():
                self._kept[slot.source].append(slot)
            for rank in sorted(missing):
                if self._kept[rank]:
                    self._hand_over(self._kept[rank].popleft(), use)
                elif rank in self._arrivals.open:
                    continue
                missing.discard(rank)
            return not missing

        def taken() -> bool:
            for slot in self._arrivals.poll():
                self._kept[slot.source].append(slot)
            return self._sender.idle

        wait_until(all_here)
        wait_until(taken)

    def _hand_over(self, slot: Slot[ExchangeMessage], use: Use) -> None:
        record = slot.record
        if not record.last[0]:
            version, arch, score = int(record.version[0]), int(record.architecture[0]), float(record.score[0])
            tuning = (float(record.tuning[0]), float(record.tuning[1]))
            use(Arrived(slot.source, version, arch, score, tuning, record.flat))
        self._arrivals.release(slot)

    def end(self) -> Ending:
        """Say the last to every peer; return what is still to come."""
        for kept in self._kept.values():
            while kept:
                self._arrivals.release(kept.popleft())
        self._sender.say_last(self._to, CLOSING_BYTES)
        return Ending(((self._arrivals, ignore),), (self._sender,))
