"""Simulated learners and servers: the loop, and where gradients become weights; see `roles.learner`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from hpcddrl.simulation.cost import Cost
from hpcddrl.simulation.messages import Channel, Meeting
from hpcddrl.simulation.sources import Source
from hpcddrl.simulation.world import Rank, Run


class Update(Protocol):
    """Where gradients become weights."""

    version: int  # of the weights

    def make(self) -> Run:
        """Make an update of a gradient."""


class LocalUpdate:
    """The learner's own optimizer, after the learners of its group have met if they are several.

    Args:
        rank: the learner.
        meeting: of the group's learners, if they are several.
        overlap: what is awaited is the meeting of the update before.
    """

    def __init__(self, rank: Rank, meeting: Meeting | None, overlap: bool) -> None:
        self._rank, self._meeting, self._overlap, self.version = rank, meeting, overlap, 0
        self._before: int | None = None  # the meeting of the update before

    def make(self) -> Run:
        """See `Update`."""
        if self._meeting is not None:
            if self._overlap:
                if self._before is not None:
                    yield from self._meeting.leave(self._rank, self._before)
                self._before = self._meeting.come(self._rank)
            else:
                yield from self._meeting.join(self._rank)
            yield from self._rank.spend(self._rank.work.reduce)
        yield from self._rank.spend(self._rank.work.update)
        self.version += 1


class ServerUpdate:
    """Send each shard its part of the gradient, and wait for their weights.

    Args:
        rank: the learner.
        shards: where gradients go, each with the shard's version that they are of.
        answers: the shards' weights.
        asks: the first shard is asked before the others are told.
    """

    def __init__(self, rank: Rank, shards: Mapping[Rank, Channel[int]], answers: Channel[int], asks: bool) -> None:
        self._rank, self._shards, self._answers = rank, dict(shards), answers
        self._versions = dict.fromkeys(shards, 0)
        ranks = list(shards)
        self._rounds = [ranks[:1], ranks[1:]] if asks and len(ranks) > 1 else [ranks]
        self.version = 0

    def make(self) -> Run:
        """See `Update`."""
        yield from self._rank.spend(self._rank.work.reduce)
        for shards in self._rounds:
            for shard in shards:
                self._shards[shard].send(self._rank, self._versions[shard])
            yield from self._rank.wait(partial(self._answered, len(shards)), longest_s=1e-3)
            while self._answers.arrived:
                shard, version = self._answers.take()
                self._answers.release(shard)
                self._versions[shard] = version
        self.version = self._versions[next(iter(self._shards))]

    def _answered(self, shards: int) -> bool:
        return len(self._answers.arrived) == shards


class Learner:
    """One simulated learner.

    Args:
        rank: that it is.
        source: of batches.
        rollouts: of a batch, as the work of an update was measured; more take more.
        update: where its gradients become weights.
        publish: called with each new version.
        exchange: with the other groups, called with each new version.
    """

    def __init__(
        self,
        rank: Rank,
        source: Source,
        rollouts: int,
        update: Update,
        publish: Callable[[int], None],
        exchange: Callable[[int], Run],
    ) -> None:
        self._rank, self._source, self._rollouts, self._update = rank, source, rollouts, update
        self._publish, self._exchange = publish, exchange

    def run(self) -> Run:
        """Learn."""
        rank, update, work = self._rank, self._update, self._rank.work
        while True:
            versions = yield from self._source.get(update.version)
            share = len(versions) / self._rollouts if versions else 1.0
            yield from rank.spend((work.batch + work.gradient).scaled(share) + work.rest)
            rank.lags += [update.version - version for version in versions]
            yield from update.make()
            yield from self._source.feedback()
            yield from rank.compute(work.publish.draw(rank.world.rng) + rank.poll_s)
            self._publish(update.version)
            yield from self._exchange(update.version)
            rank.updates.note(rank.world.now)
            yield from rank.tick()


def nothing(version: int) -> Run:
    """Tell nobody of a new version."""
    yield from ()


def exchange(rank: Rank, every: int, messages: int, nbytes: float, meeting: Meeting | None) -> Callable[[int], Run]:
    """Return what a learner does with each new version to tell the other groups and hear of them.

    Messages between leaders are booked on this rank's link as a whole, those that it sends and those that come: with
    thousands of groups there are millions of them. Nobody waits for them.

    Args:
        rank: the learner.
        every: so many updates.
        messages: that it sends to other groups then, and takes from them; none if it does not lead.
        nbytes: of each.
        meeting: of the group's learners, if they are several.
    """
    world, cost, wire_s = rank.world, rank.work.exchange, messages * nbytes / rank.world.machine.bandwidth

    def run(version: int) -> Run:
        if version % every:
            return
        rank.out_free = max(rank.out_free, world.now) + wire_s
        rank.in_free = max(rank.in_free, world.now) + wire_s
        rank.out_s += wire_s
        rank.in_s += wire_s
        world.messages["exchange"] += messages
        world.nbytes["exchange"] += round(messages * nbytes)
        yield from rank.spend(cost)
        if meeting is not None:
            yield from meeting.join(rank)

    return run


class Server:
    """One simulated shard: applies gradients one by one or one of every learner together, and answers.

    Args:
        rank: that it is.
        gradients: that come, with the version that each is of.
        answers: where each learner's weights go.
        together: average those of all learners for one update.
    """

    def __init__(
        self, rank: Rank, gradients: Channel[int], answers: Mapping[Rank, Channel[int]], together: bool
    ) -> None:
        self._rank, self._gradients, self._answers, self._together = rank, gradients, answers, together
        self._version = 0

    def run(self) -> Run:
        """Serve."""
        rank, needed = self._rank, len(self._answers) if self._together else 1
        while True:
            yield from rank.wait(lambda: len(self._gradients.arrived) >= needed, longest_s=1e-3)
            yield from rank.compute(rank.poll_s)
            ready = [self._gradients.take() for _ in range(len(self._gradients.arrived) // needed * needed)]
            for i in range(0, len(ready), needed):
                yield from self._serve(ready[i : i + needed])
            yield from rank.tick()

    def _serve(self, gradients: list[tuple[Rank, int]]) -> Run:
        work, rank = self._rank.work, self._rank
        yield from rank.spend(work.update + work.reduce)
        rank.lags += [self._version - version for _, version in gradients]
        self._version += 1
        rank.updates.note(rank.world.now)
        each: Cost = work.publish + work.rest
        for learner, _ in gradients:
            yield from rank.spend(each)
            self._gradients.release(learner)
            self._answers[learner].send(rank, self._version)
