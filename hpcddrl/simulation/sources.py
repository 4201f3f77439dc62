"""How a simulated learner's rollouts become batches, and the ranks that hold a replay; see `roles.sources`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from hpcddrl.config import Replay
from hpcddrl.simulation.feeds import Feed, Taken
from hpcddrl.simulation.messages import Buffer, Channel
from hpcddrl.simulation.world import Rank, Run


class Source(Protocol):
    """Gives batches."""

    def get(self, version: int) -> Taken:
        """Wait for the next batch; it ends with the versions of those of its rollouts whose age is known."""

    def feedback(self) -> Run:
        """Say what became of it."""


class Fresh:
    """Rollouts as they come, in one pass or several.

    Args:
        feed: of rollouts.
        passes: updates with each batch.
    """

    def __init__(self, feed: Feed, passes: int) -> None:
        self._feed, self._passes = feed, passes
        self._left = 0
        self._ages: list[int] = []

    def get(self, version: int) -> Taken:
        """See `Source`: a batch is as old in every pass as it was in the first."""
        if not self._left:
            versions = yield from self._feed.take(version)
            self._ages, self._left = [version - v for v in versions], self._passes
            self._feed.release()
        self._left -= 1
        return [version - age for age in self._ages]

    def feedback(self) -> Run:
        """See `Source`."""
        yield from ()


class Pace:
    """How much more may be learned from a replay; it is filled already."""

    def __init__(self, config: Replay, rollout_steps: int) -> None:
        self._batch, self._each = config.batch_size, rollout_steps * config.replay_ratio
        self._allowed = 0.0

    @property
    def may_draw(self) -> bool:
        """Say whether a batch may be drawn."""
        return self._allowed >= self._batch

    def gathered(self, rollouts: int) -> None:
        """Note that so many rollouts came."""
        self._allowed += rollouts * self._each

    def drawn(self) -> None:
        """Note that a batch was."""
        self._allowed -= self._batch


class Replayed:
    """Transitions drawn from a replay that the learner holds and fills."""

    def __init__(self, feed: Feed, pace: Pace) -> None:
        self._feed, self._pace = feed, pace

    def get(self, version: int) -> Taken:
        """See `Source`; the age of what is drawn depends on the replay's size, and is not simulated."""
        yield from self._gather(version, wait=False)
        while not self._pace.may_draw:
            yield from self._gather(version, wait=True)
        self._pace.drawn()
        return []

    def feedback(self) -> Run:
        """See `Source`: part of what a batch takes."""
        yield from ()

    def _gather(self, version: int, wait: bool) -> Run:
        taken = yield from self._feed.take(version, wait)
        self._pace.gathered(len(taken))
        self._feed.release()


class RemoteReplay:
    """Transitions that replay ranks draw ahead of time.

    Args:
        rank: the learner.
        samples: that come.
        errors: where what was learned of each rank's samples goes.
        meanwhile: called while nothing arrives, with the version of the weights.
    """

    def __init__(
        self,
        rank: Rank,
        samples: Channel[None],
        errors: Mapping[Rank, Channel[None]],
        meanwhile: Callable[[int], None],
    ) -> None:
        self._rank, self._samples, self._errors, self._meanwhile = rank, samples, errors, meanwhile
        self._from: Rank | None = None

    def get(self, version: int) -> Taken:
        """See `Source`."""

        def ready() -> bool:
            if not self._samples.arrived:
                self._meanwhile(version)
            return bool(self._samples.arrived)

        yield from self._rank.wait(ready, longest_s=1e-3)
        self._from, _ = self._samples.take()
        return []

    def feedback(self) -> Run:
        """See `Source`."""
        assert self._from is not None
        yield from self._rank.spend(self._rank.work.send)
        self._errors[self._from].send(self._rank, None)
        self._samples.release(self._from)


def replay_rank(
    rank: Rank, rollouts: Channel[int], errors: Channel[None], samples: Mapping[Rank, Channel[None]], pace: Pace
) -> Run:
    """Insert rollouts, send samples, take errors; see `roles.replay.ReplayRank`."""
    buffers = {learner: Buffer() for learner in samples}

    def due() -> list[Rank]:
        return [learner for learner, buffer in buffers.items() if buffer.free] if pace.may_draw else []

    while True:
        yield from rank.wait(lambda: bool(rollouts.arrived or errors.arrived or due()), longest_s=1e-3)
        yield from rank.compute(rank.poll_s)
        for _ in range(len(rollouts.arrived)):
            actor, _version = rollouts.take()
            yield from rank.spend(rank.work.collect)
            rollouts.release(actor)
            pace.gathered(1)
        for _ in range(len(errors.arrived)):
            learner, _none = errors.take()
            yield from rank.spend(rank.work.update)
            errors.release(learner)
        for learner in due():
            if pace.may_draw:
                pace.drawn()
                yield from rank.spend(rank.work.batch + rank.work.send + rank.work.rest)
                buffers[learner].free = False
                samples[learner].send(rank, None, buffers[learner].taken)
        yield from rank.tick()
