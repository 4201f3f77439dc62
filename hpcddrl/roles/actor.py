"""Actors: step environments, with weights of their own or with actions that a learner sends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import numpy as np

from hpcddrl.comm.channel import Ending, Receiver, Sender, Slot, Tag, Traffic, ignore, reopen
from hpcddrl.comm.messages import FramesMessage, actions_layout, frames_layout
from hpcddrl.comm.records import Layout
from hpcddrl.comm.wait import PROMPT_S, Backoff, wait_until
from hpcddrl.comm.world import World
from hpcddrl.envs.environments import Environments
from hpcddrl.logs.timing import Phase
from hpcddrl.roles.control import Control
from hpcddrl.roles.legs import Legs
from hpcddrl.roles.publishing import FIXED_LAG, Inbox
from hpcddrl.roles.rollouts import Collector, transitions
from hpcddrl.types import Rollout, Step


class Actor:
    """Collects rollouts with its copy of the weights and deals them to learners in turn, or sends them to a replay.

    Args:
        collector: steps the environments.
        inbox: where weights arrive.
        learner: the rank that they come from.
        world: whose ranks are meant.
        receivers: the ranks that rollouts are dealt to, in turn.
        order: this actor's index in its group and the group's number of actors.
        per_batch: rollouts in a learner's batch; says which version acts in a deterministic run.
        exact: the run is deterministic.
        unroll_length: T.
        layout: of a rollout.
        legs: of the run.
        control: of this rank.
        traffic: where messages are counted.
    """

    def __init__(
        self,
        collector: Collector,
        inbox: Inbox,
        learner: int,
        world: World,
        receivers: Sequence[int],
        order: tuple[int, int],
        per_batch: int,
        exact: bool,
        unroll_length: int,
        layout: Layout[Rollout],
        legs: Legs,
        control: Control,
        traffic: Traffic,
    ) -> None:
        self._collector, self._inbox, self._learner = collector, inbox, learner
        self._world, self._legs, self._control = world, legs, control
        self._receivers, self._order, self._per_batch, self._exact = list(receivers), order, per_batch, exact
        self._sender = Sender(world, Tag.ROLLOUT, layout, 1, traffic)  # more would only make data older
        self._ask_at = unroll_length // 2  # early enough for an answer between two of the learner's updates
        self._asked = False  # while the last rollout waited to be let in

    def run(self) -> None:
        """Collect and send, leg by leg, until the run ends."""
        while True:
            self._collect()
            with self._control.timing(Phase.WAIT):
                self._sender.say_last(self._receivers)
            endings = self._inbox.end(), Ending(senders=(self._sender,))
            self._legs.rest(*endings)
            if not self._legs.between():
                break
            reopen(*endings)

    def _collect(self) -> None:
        """Collect and send until the learner has said its last of the leg."""
        timing, inbox, control = self._control.timing, self._inbox, self._control
        index, first = 0, self._order[0]  # actors begin with different receivers, so that all have work at any time
        while True:
            slot = self._wait(self._version_for(index))
            receivers = [rank for rank in self._receivers if rank not in self._world.gone]
            if inbox.last or not receivers:
                break
            control.enter(inbox.stage, inbox.since)
            self._collector.collect(slot.record, inbox.version, partial(self._before_step, index + 1))
            with timing(Phase.SEND):
                self._sender.send(slot, receivers[(first + index) % len(receivers)])
                self._sender.release(slot)
            control.counters.produced += transitions(slot.record)
            index += 1
            control.tick()
        self._sender.release(slot)

    def _wait(self, version: int | None) -> Slot[Rollout]:
        """Wait for a free buffer and for weights that may act."""
        inbox = self._inbox
        with self._control.timing(Phase.WAIT):
            slot, until = self._let_in(version)
            wait_until(
                lambda: inbox.last or (self._may_act(version) and (not inbox.owed or time.monotonic() >= until)),
                longest_s=2e-3,
            )
        return slot

    def _let_in(self, version: int | None) -> tuple[Slot[Rollout], float]:
        """Wait for a free buffer, and ask for weights if that takes long: the answer comes when it is free.

        Returns:
            The buffer, and until when (`time.monotonic`) an answer is worth waiting for: as long again.
        """
        backoff, began, self._asked = Backoff(longest_s=2e-3), time.monotonic(), False
        while (slot := self._sender.take()) is None:
            backoff.pause()
            late = time.monotonic() > began + PROMPT_S
            if self._may_act(version) and late and version is not None and not self._asked:
                self._inbox.ask(version)
                self._asked = True
        now = time.monotonic()
        return slot, 2 * now - began if self._asked else now

    def _before_step(self, number: int, t: int) -> None:
        """Before step t of a rollout: say that this rank is alive, and ask in time for the weights of the next one.

        Who asked while its last rollout waited will wait again, and asks then.
        """
        self._control.tick()
        if t == self._ask_at and not self._asked:
            wanted = self._version_for(number)
            if wanted is not None:
                with self._control.timing(Phase.REFRESH):
                    self._inbox.ask(wanted)

    def _may_act(self, wanted: int | None) -> bool:
        """Take what has arrived; say whether the weights at hand may act."""
        with self._control.timing(Phase.REFRESH):
            inbox = self._inbox
            inbox.refresh()
            ready = inbox.version == wanted if self._exact else inbox.version >= 0
            if not ready and wanted is not None:
                inbox.ask(wanted)
        self._control.tick()
        return ready

    def _version_for(self, index: int) -> int | None:
        """Return the version that acts in the index-th rollout of an exact run's leg; None: it belongs to the next.

        A learner takes its actors' rollouts in turn, so it is known in which update this one will be learned from;
        the weights are those of ``FIXED_LAG`` updates before.
        """
        actor, actors = self._order
        update = (index // len(self._receivers) * actors + actor) // self._per_batch
        if not self._legs.covers(update):
            return None
        return self._legs.version_of(self._learner) + max(0, update - FIXED_LAG)


class RemoteActor:
    """Steps environments with the actions that its learner answers each frame with.

    Args:
        envs: the environments.
        world: whose ranks are meant.
        learner: the rank that acts.
        legs: of the run.
        control: of this rank.
        traffic: where messages are counted.
    """

    def __init__(
        self, envs: Environments, world: World, learner: int, legs: Legs, control: Control, traffic: Traffic
    ) -> None:
        self._envs, self._learner, self._legs, self._control = envs, learner, legs, control
        self._step: Step | None = None  # the newest
        self._frames: Sender[FramesMessage] = Sender(
            world, Tag.FRAMES, frames_layout(envs.spec, envs.num_envs), 2, traffic
        )
        self._actions = Receiver(world, [learner], Tag.ACTIONS, actions_layout(envs.spec, envs.num_envs), slots=1)

    def restart(self, seeds: Sequence[int]) -> None:
        """Begin new episodes, from these seeds."""
        self._envs.reseed(seeds)
        self._step = None

    def run(self) -> None:
        """Step, leg by leg, until the run ends."""
        endings = Ending(((self._actions, ignore),), (self._frames,))
        while True:
            self._answer()
            with self._control.timing(Phase.WAIT):
                self._frames.say_last([self._learner])
            self._legs.rest(endings)
            if not self._legs.between():
                break
            reopen(endings)

    def _answer(self) -> None:
        """Step with what the learner says until it has said its last of the leg; a leg's first frames end no step."""
        timing, control = self._control.timing, self._control
        zeros = np.zeros(self._envs.num_envs, np.float32)
        if self._step is None:
            with timing(Phase.ENV):
                self._step = Step(self._envs.reset(), zeros == 0, zeros, zeros, zeros, zeros)
        step = self._step._replace(first=zeros == 0)
        while True:
            with timing(Phase.SEND):
                self._send(step)
            with timing(Phase.WAIT):
                backoff = Backoff(longest_s=1e-3)
                while not (arrived := self._actions.poll()) and self._actions.open:
                    backoff.pause()
                    control.tick()
            slot = arrived[0] if arrived else None
            if slot is None or slot.record.last[0]:
                break
            with timing(Phase.ENV):
                step = self._envs.step(slot.record.action)
            self._actions.release(slot)
            control.counters.stepped(step)
            control.counters.produced += int(np.count_nonzero(~step.first))
            control.tick()
        if slot is not None:
            self._actions.release(slot)
        self._step = step

    def _send(self, step: Step) -> None:
        slot = self._frames.take()
        assert slot is not None, "the learner answered the frame before, so it was taken"
        record = slot.record
        record.frame[:], record.first[:] = step.frame, step.first
        record.reward[:], record.discount[:] = step.reward, step.discount
        self._frames.send(slot, self._learner)
        self._frames.release(slot)
