"""Simulated actors: with weights of their own, or with actions that a learner sends."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import simpy

from hpcddrl.comm.wait import PROMPT_S
from hpcddrl.simulation.messages import Buffer, Channel
from hpcddrl.simulation.world import Rank, Run


class Publisher:
    """A learner's side of publication: answers requests with the newest weights, or later with newer ones.

    Args:
        owner: the learner.
        pull_bytes: of a request.
    """

    def __init__(self, owner: Rank, pull_bytes: float) -> None:
        self._owner = owner
        self.requests: Channel[int] = Channel("pull", owner, pull_bytes, posted=2)
        self._asked: dict[Rank, int] = {}
        self._inboxes: dict[Rank, Channel[int]] = {}
        self._waits: Callable[[Rank], bool] = lambda actor: False

    def subscribe(self, actor: Rank, inbox: Channel[int]) -> None:
        """Note where an actor takes its weights."""
        self._inboxes[actor] = inbox

    def serve(self, version: int) -> None:
        """Answer the requests that can be answered with these weights."""
        while self.requests.arrived:
            actor, wanted = self.requests.take()
            self._asked[actor] = wanted
            self.requests.release(actor)
        for actor in [a for a, wanted in self._asked.items() if wanted < version and not self._waits(a)]:
            self._inboxes[actor].send(self._owner, version)
            del self._asked[actor]

    def postpone(self, waits: Callable[[Rank], bool]) -> None:
        """Answer no actor while this is true of it."""
        self._waits = waits


class Inbox:
    """An actor's side: the version that it acts with, and whether it has asked for a newer one."""

    def __init__(self, owner: Rank, publisher: Publisher, weights_bytes: float) -> None:
        self._owner, self._publisher = owner, publisher
        self._weights: Channel[int] = Channel("weights", owner, weights_bytes, posted=2)
        publisher.subscribe(owner, self._weights)
        self.asking = False
        self.version = 0

    def ask(self) -> None:
        """Ask for newer weights, unless that was asked already."""
        if not self.asking:
            self._publisher.requests.send(self._owner, self.version)
            self.asking = True

    def refresh(self) -> None:
        """Take the weights that have arrived."""
        while self._weights.arrived:
            learner, version = self._weights.take()
            self._weights.release(learner)
            self.version, self.asking = max(self.version, version), False


def actor(rank: Rank, inbox: Inbox, receivers: Sequence[Channel[int]], length: int) -> Run:
    """Collect rollouts and deal them to the receivers in turn; see `roles.actor.Actor`.

    Args:
        rank: the actor.
        inbox: where weights arrive.
        receivers: where rollouts go.
        length: steps of a rollout.
    """
    work, buffer, ask_at = rank.work, Buffer(), length // 2
    overhead = work.collect.times(1 / length)
    after = work.send + work.refresh + work.rest
    for turn in range(10**12):
        asked = yield from _let_in(rank, inbox, buffer)
        inbox.refresh()
        version = inbox.version
        if ask_at:
            yield from rank.act(ask_at, overhead)
        if not asked:
            inbox.ask()
        yield from rank.act(length - ask_at, overhead)
        yield from rank.spend(after)
        buffer.free = False
        receivers[turn % len(receivers)].send(rank, version, buffer.taken)


def _let_in(rank: Rank, inbox: Inbox, buffer: Buffer) -> Generator[simpy.Event, Any, bool]:
    """Wait for a free buffer; end by saying whether weights were asked for, as they are when it takes long."""
    world, began, asked = rank.world, rank.world.now, False

    def free() -> bool:
        nonlocal asked
        if not buffer.free:
            inbox.refresh()
            if world.now >= began + PROMPT_S and not asked:
                inbox.ask()
                asked = True
        return buffer.free

    def answered() -> bool:
        inbox.refresh()
        return not (asked and inbox.asking) or world.now >= until

    if not buffer.free:
        world.later(PROMPT_S, rank.ring)
    yield from rank.wait(free, longest_s=2e-3)
    until = 2 * world.now - began
    if asked:
        world.later(until - world.now, rank.ring)
    yield from rank.wait(answered, longest_s=2e-3)
    return asked


def remote_actor(rank: Rank, frames: Channel[None], actions: Channel[None]) -> Run:
    """Step environments with the actions that a learner answers each frame with; see `roles.actor.RemoteActor`."""
    overhead = rank.work.rest + rank.work.send
    while True:
        frames.send(rank, None)
        yield from rank.wait(lambda: bool(actions.arrived), longest_s=1e-3)
        learner, _ = actions.take()
        actions.release(learner)
        yield from rank.act(1, overhead)
