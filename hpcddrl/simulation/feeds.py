"""Where a simulated learner's rollouts come from; see `roles.feeds`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Protocol

import simpy

from hpcddrl.simulation.actors import Publisher
from hpcddrl.simulation.messages import Channel
from hpcddrl.simulation.world import Rank

Taken = Generator[simpy.Event, Any, list[int]]  # a run that ends with the versions of the rollouts taken


class Feed(Protocol):
    """Gives rollouts."""

    def take(self, version: int, wait: bool = True) -> Taken:
        """Take the rollouts of a batch, or those that are there; ``version`` is that of the learner's weights."""

    def release(self) -> None:
        """Give back what was taken."""


class Inline:
    """The learner steps its own environments."""

    def __init__(self, rank: Rank, length: int) -> None:
        self._rank, self._length = rank, length
        self._overhead = rank.work.collect.times(1 / length)

    def take(self, version: int, wait: bool = True) -> Taken:
        """See `Feed`."""
        if not wait:
            return []
        yield from self._rank.act(self._length, self._overhead)
        return [version]

    def release(self) -> None:
        """See `Feed`."""


class Queue:
    """Rollouts from actors, as they arrive or as they are wanted.

    Args:
        rank: the learner.
        channel: that they come by.
        rollouts: of a batch.
        wanted: let none in while others are here.
        publisher: of the weights that they act with.
    """

    def __init__(self, rank: Rank, channel: Channel[int], rollouts: int, wanted: bool, publisher: Publisher) -> None:
        self._rank, self._channel, self._rollouts, self._publisher = rank, channel, rollouts, publisher
        publisher.postpone(channel.waits)
        self._give_back = channel.hold if wanted else channel.release
        self._taken: list[Rank] = []

    def take(self, version: int, wait: bool = True) -> Taken:
        """See `Feed`."""
        versions: list[int] = []

        def enough() -> bool:
            while self._channel.arrived and len(versions) < self._rollouts:
                actor, acted = self._channel.take()
                self._taken.append(actor)
                versions.append(acted)
            if len(versions) < self._rollouts:
                self._channel.admit(self._rollouts - len(versions))
                self._publisher.serve(version)
                return not wait
            return True

        yield from self._rank.compute(self._rank.poll_s)
        yield from self._rank.wait(enough, longest_s=1e-3)
        return versions

    def release(self) -> None:
        """See `Feed`."""
        for actor in self._taken:
            self._give_back(actor)
        self._taken = []
        if not self._channel.arrived:
            self._channel.admit(0)


class Central:
    """Frames from actors, answered with actions in batches; the learner writes the rollouts itself.

    Args:
        rank: the learner.
        frames: that come.
        actions: where each actor's answers go.
        length: steps of a rollout.
        rollouts: of a batch.
        take_more: take all rollouts that are full, if they are more.
        minimum: actors to await before a batch is inferred.
    """

    def __init__(
        self,
        rank: Rank,
        frames: Channel[None],
        actions: dict[Rank, Channel[None]],
        length: int,
        rollouts: int,
        take_more: bool,
        minimum: int,
    ) -> None:
        self._rank, self._frames, self._actions = rank, frames, actions
        self._length, self._rollouts, self._take_more, self._minimum = length, rollouts, take_more, minimum
        self._steps = dict.fromkeys(actions, -1)  # in the rollout so far; -1: it has not begun
        self._versions: dict[Rank, int] = {}
        self._waiting: list[Rank] = []
        self._full: list[Rank] = []
        self._taken: list[Rank] = []
        self._resting: list[Rank] = []

    def take(self, version: int, wait: bool = True) -> Taken:
        """See `Feed`."""
        for actor in self._resting:
            self._steps[actor], self._versions[actor] = 0, version
        self._waiting, self._resting = self._waiting + self._resting, []
        if self._waiting and len(self._waiting) >= self._minimum:
            yield from self._answer()
        while True:
            if wait and len(self._full) < self._rollouts:
                yield from self._rank.wait(lambda: bool(self._frames.arrived), longest_s=1e-3)
            yield from self._collect(version)
            if self._waiting and len(self._waiting) >= min(self._minimum, len(self._actions) - len(self._full)):
                yield from self._answer()
            if len(self._full) >= self._rollouts or not wait:
                break
        count = len(self._full) if self._take_more or not wait else self._rollouts
        self._taken, self._full = self._full[:count], self._full[count:]
        return [self._versions[actor] for actor in self._taken]

    def release(self) -> None:
        """See `Feed`."""
        self._resting, self._taken = self._resting + self._taken, []

    def _collect(self, version: int) -> Generator[simpy.Event, Any, None]:
        """Take the frames that are here."""
        arrived: Sequence[Rank] = [self._frames.take()[0] for _ in range(len(self._frames.arrived))]
        yield from self._rank.compute(self._rank.poll_s)
        yield from self._rank.spend(self._rank.work.collect.times(len(arrived)))
        for actor in arrived:
            self._frames.release(actor)
            self._steps[actor] += 1
            if self._steps[actor] == 0:
                self._versions[actor] = version
            (self._full if self._steps[actor] == self._length else self._waiting).append(actor)

    def _answer(self) -> Generator[simpy.Event, Any, None]:
        """Infer the actions of all who wait, and send them."""
        actors, self._waiting = self._waiting, []
        work = self._rank.work
        yield from self._rank.spend((work.act + work.send).times(len(actors)))
        for actor in actors:
            self._actions[actor].send(self._rank, None)
