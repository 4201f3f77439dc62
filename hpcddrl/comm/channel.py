"""Channels: records from ranks to ranks over buffers made once, with credits, without blocking.

A receiver posts a fixed number of buffers per source; a sender's synchronous send completes only when such a buffer
has taken it. So the posted buffers are the credits: a sender that finds none of its slots free has to wait, and no
queue grows without bound. A receiver that wants nothing old holds buffers back until it wants more. Requests and
buffers are kept until they complete. Each sender ends its stream with a record whose ``last`` is set; `drain` leaves
nothing unmatched behind. What was on its way to or from a rank that has died is lost with it, and nobody waits for that
rank (see `World`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, Protocol

from mpi4py import MPI

from hpcddrl.comm.messages import Tag as Tag  # whoever has a channel finds its tags here too
from hpcddrl.comm.records import Layout, R, Record
from hpcddrl.comm.wait import Backoff
from hpcddrl.comm.world import gone_from, silent_in, tested, unless_died
from hpcddrl.types import RunError

Comm = MPI.Comm
PATIENCE_S = 120.0  # for silent ranks when a run ends


class Traffic:
    """Messages and bytes sent by this rank so far, by tag."""

    def __init__(self) -> None:
        self.messages = dict.fromkeys(Tag, 0)
        self.bytes = dict.fromkeys(Tag, 0)

    def count(self, tag: Tag, nbytes: int) -> None:
        """Count one message."""
        self.messages[tag] += 1
        self.bytes[tag] += nbytes


class Slot(Generic[R]):
    """A buffer and the record of views into it; ``source`` is the rank that a received record came from."""

    def __init__(self, layout: Layout[R], source: int = -1) -> None:
        self.buffer, self.record = layout.allocate()
        self.source = source
        self.requests: list[tuple[int, MPI.Request]] = []  # each with the other rank
        self.held = False

    @property
    def free(self) -> bool:
        """Say whether nobody writes to it and no send reads it."""
        if self.requests:
            self.requests = [(rank, request) for rank, request in self.requests if tested(request) is False]
        return not self.held and not self.requests

    def forget(self, gone: frozenset[int]) -> None:
        """Give up sends to ranks that are gone: what they would read no longer matters."""
        self.requests = [(rank, request) for rank, request in self.requests if rank not in gone]


class Sender(Generic[R]):
    """Sends records with one tag to one or many ranks.

    Args:
        comm: the communicator whose ranks are meant.
        tag: what is sent.
        layout: of the record.
        slots: most buffers; when all are on their way, `take` has none to give.
        traffic: where messages are counted.
    """

    def __init__(self, comm: MPI.Comm, tag: Tag, layout: Layout[R], slots: int, traffic: Traffic) -> None:
        self._comm, self._tag, self._layout, self._limit, self._traffic = comm, tag, layout, slots, traffic
        self._slots: list[Slot[R]] = []
        self._newest: dict[int, MPI.Request] = {}

    def take(self) -> Slot[R] | None:
        """Return a free slot to fill, or None while all are on their way. Give it back with `release`."""
        self._forget_gone()
        slot = next((s for s in self._slots if s.free), None)
        if slot is None and len(self._slots) < self._limit:
            slot = Slot(self._layout)
            self._slots.append(slot)
        if slot is not None:
            slot.held = True
            slot.record.last[0] = 0
        return slot

    def send(self, slot: Slot[R], dest: int, nbytes: int | None = None) -> None:
        """Start to send a taken slot (or its first bytes) to a rank, if that is still there.

        It stays readable, and must not be written to, until it is free.
        """
        if dest in gone_from(self._comm):
            return
        buffer = slot.buffer[:nbytes]
        request = self._comm.Issend([buffer, MPI.BYTE], dest, self._tag)
        slot.requests.append((dest, request))
        self._newest[dest] = request
        self._traffic.count(self._tag, buffer.nbytes)

    def release(self, slot: Slot[R]) -> None:
        """Give up a taken slot: it is free again when its sends have completed."""
        slot.held = False

    def busy(self, dest: int) -> bool:
        """Say whether a send to this rank has not completed yet."""
        request = self._newest.get(dest)
        return request is not None and dest not in gone_from(self._comm) and tested(request) is False

    def say_last(self, dests: Iterable[int], nbytes: int | None = None) -> None:
        """Send the closing record (or its first bytes) to each rank, waiting for a slot if all are on their way."""
        backoff = Backoff()
        while (slot := self.take()) is None:
            backoff.pause()
        slot.record.last[0] = 1
        for dest in dests:
            self.send(slot, dest, nbytes)
        self.release(slot)

    @property
    def idle(self) -> bool:
        """Say whether everything sent has been taken, by those who are still there."""
        self._forget_gone()
        return all(slot.free for slot in self._slots)

    def _forget_gone(self) -> None:
        if gone := gone_from(self._comm):
            for slot in self._slots:
                slot.forget(gone)


class Receiver(Generic[R]):
    """Receives records with one tag from some ranks, in order for each rank.

    Args:
        comm: the communicator whose ranks are meant.
        sources: the ranks.
        tag: what is received.
        layout: of the record.
        slots: buffers posted for each source.
    """

    def __init__(self, comm: MPI.Comm, sources: Sequence[int], tag: Tag, layout: Layout[R], slots: int) -> None:
        self._comm, self._tag, self._layout, self._slots = comm, tag, layout, slots
        self._posted: dict[int, deque[Slot[R]]] = {source: deque() for source in sources}
        self._held: list[Slot[R]] = []  # longest held first
        self._coming: list[Slot[R]] = []  # admitted for records that wait, and not here yet
        self._open: set[int] = set()
        self.heard: dict[int, float] = {}  # when the last record of each was found to be here
        self.reopen()

    def reopen(self) -> None:
        """Post the buffers, at the start and again after `close`: every source may send until its next last record."""
        self._open = set(self._posted)
        self.heard = dict.fromkeys(self._posted, time.monotonic())
        for source in self._posted:
            for _ in range(self._slots):
                self._post(Slot(self._layout, source))

    @property
    def open(self) -> set[int]:
        """Return the ranks that are still there and have not sent their last record."""
        return self._open - gone_from(self._comm)

    def poll(self) -> list[Slot[R]]:
        """Return the records that have arrived, oldest first for each source; `release` each when it has been read."""
        arrived = []
        for source, posted in self._posted.items():
            while posted and self._arrived(source, posted):
                slot = posted.popleft()
                slot.requests.clear()
                self.heard[source] = time.monotonic()
                if slot.record.last[0]:
                    self._open.discard(source)
                arrived.append(slot)
        return arrived

    def release(self, slot: Slot[R]) -> None:
        """Post a read slot again: its sender may send one more."""
        self._post(slot)

    def hold(self, slot: Slot[R]) -> None:
        """Keep a read slot back: its sender may send one more when it is admitted."""
        self._held.append(slot)

    def admit(self, most: int | None = None) -> None:
        """Post the slots held back: all of them; or ``most`` of those that a record waits for, all if none does.

        Records that were admitted before and are still coming count among the ``most``, but for those of silent ranks.
        """
        silent = silent_in(self._comm)
        self._coming = [s for s in self._coming if s in self._posted[s.source] and s.source not in silent]
        first = {slot.source: slot for slot in reversed(self._held)}  # one record waits at a time
        waiting = [] if most is None else [s for s in self._held if s is first[s.source] and self._sent(s.source)]
        admitted = self._held
        if most is not None and waiting:
            admitted = waiting[: max(0, most - len(self._coming))]
            self._coming += admitted
        self._held = [slot for slot in self._held if slot not in admitted]
        for slot in admitted:
            self._post(slot)

    def waits(self, source: int) -> bool:
        """Say whether a record of a source has come to a slot that is held back."""
        return any(slot.source == source for slot in self._held) and self._sent(source)

    def close(self) -> None:
        """Withdraw the posted buffers, once every source has said its last."""
        for source, posted in self._posted.items():
            for slot in () if source in gone_from(self._comm) else posted:
                request = slot.requests[0][1]
                request.Cancel()
                request.Wait()
            posted.clear()

    def _arrived(self, source: int, posted: deque[Slot[R]]) -> bool:
        """Say whether the buffer posted first has taken a record; forget the buffers of a rank that has died."""
        found = tested(posted[0].requests[0][1])
        if found is None:
            posted.clear()
        return bool(found)

    def _sent(self, source: int) -> bool:
        """Say whether a record of a source is here that has no buffer."""
        return source not in gone_from(self._comm) and bool(unless_died(lambda: self._comm.Iprobe(source, self._tag)))

    def _post(self, slot: Slot[R]) -> None:
        if slot.source not in gone_from(self._comm):
            slot.requests = [(slot.source, self._comm.Irecv([slot.buffer, MPI.BYTE], slot.source, self._tag))]
            self._posted[slot.source].append(slot)


class Incoming(Protocol):
    """What receives records from some ranks: a `Receiver`, or what makes its buffers when there is something."""

    @property
    def open(self) -> set[int]:
        """See `Receiver`."""

    def poll(self) -> list[Any]:
        """See `Receiver`."""

    def release(self, slot: Any) -> None:
        """See `Receiver`."""

    def close(self) -> None:
        """See `Receiver`."""

    def reopen(self) -> None:
        """See `Receiver`."""


class Ending(NamedTuple):
    """What a part of a role has yet to receive and to hand over when its loop is over."""

    receivers: tuple[tuple[Incoming, Callable[[Any], None]], ...] = ()  # each with what to do with late records
    senders: tuple[Sender[Any], ...] = ()

    def joined(self, other: Ending) -> Ending:
        """Return what this part and another have together."""
        return Ending(self.receivers + other.receivers, self.senders + other.senders)


def drain(*endings: Ending, patience_s: float = PATIENCE_S, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Receive until every source has said its last and everything sent has been taken, then close.

    All of a role's endings are drained together: its peers may need one channel emptied before they end another.
    ``meanwhile`` is called while nothing arrives.

    Raises:
        RunError: nothing came for ``patience_s``.
    """
    receivers = [pair for ending in endings for pair in ending.receivers]
    senders = [sender for ending in endings for sender in ending.senders]
    backoff, quiet_since = Backoff(), time.monotonic()
    while any(receiver.open for receiver, _ in receivers) or not all(sender.idle for sender in senders):
        if time.monotonic() - quiet_since > patience_s:
            silent = sorted(set().union(*(receiver.open for receiver, _ in receivers)))
            raise RunError(f"ranks {silent} did not come to their end within {patience_s:.0f} s: they hang")
        arrived = [(receiver, drop, slot) for receiver, drop in receivers for slot in receiver.poll()]
        for receiver, drop, slot in arrived:
            drop(slot.record)
            receiver.release(slot)
        if arrived:
            backoff.reset()
            quiet_since = time.monotonic()
        else:
            meanwhile()
            backoff.pause()
    for receiver, _ in receivers:
        receiver.close()


def reopen(*endings: Ending) -> None:
    """Let what was drained be used again, once all ranks have drained theirs."""
    for ending in endings:
        for receiver, _ in ending.receivers:
            receiver.reopen()


def ignore(record: Record) -> None:
    """Drop a late record."""
