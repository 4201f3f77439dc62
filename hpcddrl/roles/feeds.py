"""Where a learner's rollouts come from: its own environments, or its actors; `roles.central` acts on their frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

from hpcddrl.comm.channel import Ending, Slot, Tag
from hpcddrl.comm.records import Layout
from hpcddrl.comm.world import World
from hpcddrl.logs.timing import Phase
from hpcddrl.roles.came import Counted
from hpcddrl.roles.control import Control
from hpcddrl.roles.publishing import Publishing
from hpcddrl.roles.rollouts import Collector, transitions
from hpcddrl.roles.waiting import Waiting
from hpcddrl.types import Rollout


class Arrived(NamedTuple):
    """A rollout, and the number of whoever stepped its environments."""

    source: int
    rollout: Rollout


class Feed(Protocol):
    """Gives rollouts."""

    sources: int  # who step environments

    def take(self, version: int, wait: bool = True) -> list[Arrived]:
        """Return the next rollouts, to be read until `release`.

        Args:
            version: of the weights that act here, if any do.
            wait: for as many as a batch takes; else return those that are there, perhaps none.
        """

    def release(self) -> None:
        """Give back what was taken."""

    def end(self) -> Ending:
        """Part from whoever sends, at the end of a leg; what still comes is counted as dropped."""


class Inline:
    """The learner steps its own environments: no data is older than its weights.

    Args:
        collector: steps them.
        layout: of a rollout.
        control: of this rank.
        meanwhile: called before each step.
    """

    sources = 1

    def __init__(
        self,
        collector: Collector,
        layout: Layout[Rollout],
        control: Control,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        self._collector, self._control, self._meanwhile = collector, control, meanwhile
        _, self._rollout = layout.allocate()

    def take(self, version: int, wait: bool = True) -> list[Arrived]:
        """See `Feed`."""
        if not wait:
            return []
        self._collector.collect(self._rollout, version, before_step=self._before_step)
        self._control.counters.produced += transitions(self._rollout)
        return [Arrived(0, self._rollout)]

    def release(self) -> None:
        """See `Feed`."""

    def end(self) -> Ending:
        """See `Feed`: nobody else sends."""
        return Ending()

    def _before_step(self, step: int) -> None:
        self._control.tick()
        self._meanwhile()


Taking = Literal["in_turn", "arrived", "wanted"]


class Queue:
    """Rollouts from actors: strictly in turn, as they arrive, or as they are wanted.

    An actor begins its next rollout when this one has been let in. A learner that is slower than its actors would have
    one of each in its queue, and another finished behind each of these, begun with weights that were old by then. So as
    they are wanted, none is let in while others are here, and its actor gets the weights of that moment: data are as
    many updates old as the actors are many, not up to three times that. No actor waits that the learner needs.

    Args:
        world: whose ranks are meant.
        actors: the ranks that send to this learner, in order.
        layout: of a rollout.
        rollouts: R of a batch.
        taking: which rollouts are taken next; in turn is one from each actor in turn.
        publisher: of the weights that they act with.
        control: of this rank.
    """

    def __init__(
        self,
        world: World,
        actors: Sequence[int],
        layout: Layout[Rollout],
        rollouts: int,
        taking: Taking,
        publisher: Publishing,
        control: Control,
    ) -> None:
        self.sources = len(actors)
        slots = -(-rollouts // len(actors))
        self._receiver = Counted(world, actors, Tag.ROLLOUT, layout, slots, transitions, control.counters)
        publisher.postpone(self._receiver.waits)
        self._rollouts, self._control = rollouts, control
        self._numbers = {rank: number for number, rank in enumerate(actors)}
        self._turns = list(actors) if taking == "in_turn" else None
        self._wanted_only = taking == "wanted"
        self._turn = 0
        self._ready: dict[int, deque[Slot[Rollout]]] = {rank: deque() for rank in actors}
        self._arrived: deque[int] = deque()
        self._taken: list[Slot[Rollout]] = []
        self._waiting = Waiting(control, publisher.serve, longest_s=1e-3, anybody=lambda: bool(self._receiver.open))

    def take(self, version: int, wait: bool = True) -> list[Arrived]:
        """See `Feed`."""
        with self._control.timing(Phase.WAIT):
            while len(self._taken) < self._rollouts:
                self._poll()
                slot = self._next()
                if slot is not None:
                    self._waiting.reset()
                    self._taken.append(slot)
                    continue
                self._receiver.admit(self._rollouts - len(self._taken))
                if wait:
                    self._waiting.pause()
                else:
                    break
        return [Arrived(self._numbers[slot.source], slot.record) for slot in self._taken]

    def release(self) -> None:
        """See `Feed`."""
        for slot in self._taken:
            self._give_back(slot)
        self._taken = []
        if not self._arrived:
            self._receiver.admit(0)

    def end(self) -> Ending:
        """See `Feed`."""
        for left in (self._taken, *self._ready.values()):
            for slot in left:
                self._drop(slot.record)
                self._receiver.release(slot)
            left.clear()
        self._arrived.clear()
        self._turn = 0
        self._receiver.admit()
        return Ending(((self._receiver, self._drop),))

    def _give_back(self, slot: Slot[Rollout]) -> None:
        (self._receiver.hold if self._wanted_only else self._receiver.release)(slot)

    def _drop(self, record: Rollout) -> None:
        if not record.last[0]:
            self._control.counters.dropped += transitions(record)

    def _poll(self) -> None:
        for slot in self._receiver.poll():
            self._ready[slot.source].append(slot)
            if self._turns is None:
                self._arrived.append(slot.source)

    def _next(self) -> Slot[Rollout] | None:
        if self._turns is None:
            return self._ready[self._arrived.popleft()].popleft() if self._arrived else None
        ready = self._ready[self._turns[self._turn]]
        if not ready:
            return None
        self._turn = (self._turn + 1) % len(self._turns)
        return ready.popleft()
