"""Messages between simulated ranks: a record leaves its sender when the receiver has a buffer for it."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

from hpcddrl.simulation.world import Rank, Run

R = TypeVar("R")


class Channel(Generic[R]):
    """Records of one kind to one rank, which posts so many buffers for each of its senders.

    Args:
        kind: a tag's name.
        owner: who receives.
        nbytes: of a record.
        posted: buffers for each sender.
    """

    def __init__(self, kind: str, owner: Rank, nbytes: float, posted: int) -> None:
        self._kind, self._owner, self._nbytes = kind, owner, nbytes
        self.arrived: deque[tuple[Rank, R]] = deque()  # oldest first
        self._free: defaultdict[Rank, int] = defaultdict(lambda: posted)
        self._waiting: defaultdict[Rank, deque[tuple[R, Callable[[], None] | None]]] = defaultdict(deque)
        self._held: list[Rank] = []  # whose buffers are held back, longest first
        self._coming = 0

    def send(self, sender: Rank, record: R, taken: Callable[[], None] | None = None) -> None:
        """Send a record; ``taken`` is called when the sender's buffer is free again."""
        if self._free[sender]:
            self._start(sender, record, taken)
        else:
            self._waiting[sender].append((record, taken))

    def take(self) -> tuple[Rank, R]:
        """Return the oldest record that has arrived, and who sent it; `release` it when it has been read."""
        return self.arrived.popleft()

    def release(self, sender: Rank) -> None:
        """Post a read record's buffer again."""
        self._free[sender] += 1
        if self._waiting[sender]:
            self._start(sender, *self._waiting[sender].popleft())

    def hold(self, sender: Rank) -> None:
        """Keep a read record's buffer back until its sender is admitted."""
        self._held.append(sender)

    def admit(self, most: int) -> None:
        """Post the buffers held back: ``most`` of those that a record waits for, all if none does.

        Records that are still coming count among them; see `comm.channel.Receiver`.
        """
        waiting = [sender for sender in self._held if self._waiting[sender]]
        admitted = waiting[: max(0, most - self._coming)] if waiting else list(self._held)
        for sender in admitted:
            self._held.remove(sender)
            self.release(sender)

    def waits(self, sender: Rank) -> bool:
        """Say whether a record of a sender has come to a buffer that is held back."""
        return sender in self._held and bool(self._waiting[sender])

    def _start(self, sender: Rank, record: R, taken: Callable[[], None] | None) -> None:
        world = self._owner.world
        self._free[sender] -= 1
        self._coming += 1
        world.messages[self._kind] += 1
        world.nbytes[self._kind] += round(self._nbytes)

        def arrive() -> None:
            self._coming -= 1
            self.arrived.append((sender, record))
            self._owner.ring()
            if taken is not None:
                taken()
                sender.ring()

        world.later(world.transfer(sender, self._owner, self._nbytes), arrive)


class Buffer:
    """One buffer to send from."""

    def __init__(self) -> None:
        self.free = True

    def taken(self) -> None:
        """The receiver has what was in it."""
        self.free = True


class Meeting:
    """A collective of some ranks: it is over for all so long after the last one came.

    Args:
        ranks: that come.
        takes_s: from the last one's coming to the end.
    """

    def __init__(self, ranks: int, takes_s: float) -> None:
        self._ranks, self._takes_s = ranks, takes_s
        self._here: list[Rank] = []
        self._round = 0

    def join(self, rank: Rank) -> Run:
        """Come, and wait for the end."""
        yield from self.leave(rank, self.come(rank))
        yield from rank.compute(self._takes_s)

    def come(self, rank: Rank) -> int:
        """Come, and wait for nothing; return which round it is."""
        mine = self._round
        self._here.append(rank)
        if len(self._here) == self._ranks:
            self._all_here()
        return mine

    def leave(self, rank: Rank, mine: int) -> Run:
        """Wait until all have come to that round."""
        yield from rank.wait(lambda: self._round > mine, longest_s=1e-3)

    def _all_here(self) -> None:
        here, self._here = self._here, []
        self._round += 1
        for rank in here:
            rank.ring()
