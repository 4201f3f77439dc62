"""Who keeps rollouts that are learned from again: the learner itself, or a server for all of its learners."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from hpcddrl.comm.channel import Comm, Ending, Receiver, Sender, Slot, Tag, Traffic, ignore
from hpcddrl.comm.messages import (
    DrawnMessage,
    ErrorsMessage,
    LearnedMessage,
    drawn_layout,
    errors_layout,
    learned_layout,
    rollout_of,
)
from hpcddrl.comm.world import World
from hpcddrl.config import RolloutReplay
from hpcddrl.logs.timing import Phase
from hpcddrl.replay.rollouts import Drawn, RolloutMemory
from hpcddrl.roles.control import Control
from hpcddrl.types import Array, EnvSpec, Rollout, State

NOT_MEANT = -1  # in place of a rollout's key


class Memory(Protocol):
    """Keeps the rollouts of fresh batches, and gives some of them again."""

    @property
    def generator(self) -> np.random.Generator:
        """Return what else is drawn at random about them is drawn with."""

    @property
    def stale(self) -> int:
        """Return how many were dropped for their age so far, as far as is known here."""

    @property
    def kept(self) -> int:
        """Return how many can be drawn, as far as is known here."""

    def state(self) -> State:
        """See `Stateful`."""

    def restore(self, state: State) -> None:
        """See `Stateful`: what another kind of memory held is lost."""

    def keep(self, rollouts: list[Rollout]) -> None:
        """Take the rollouts of a fresh batch, which may be read now alone."""

    def learned(self, errors: Array) -> None:
        """Say how wrong the value was about each environment [N] of what was taken last; without this it is lost."""

    def draw(self, version: int) -> Drawn | None:
        """Return some, if there are enough; valid until `redrawn`. ``version`` is that of the weights now."""

    def redrawn(self, drawn: Drawn, errors: Array, meant: Array) -> None:
        """Say how wrong the value was about those drawn [n] now, where that is meant [n]."""

    def end(self) -> Ending:
        """Part, at the end of a leg."""


class OwnMemory:
    """Kept here.

    Args:
        memory: of rollouts.
        count: rollouts in a draw.
        max_lag: see `RolloutReplay`.
    """

    def __init__(self, memory: RolloutMemory, count: int, max_lag: int) -> None:
        self._memory, self._count, self._max_lag = memory, count, max_lag
        self._keys: list[Array] = []  # of what was taken last

    @property
    def generator(self) -> np.random.Generator:
        """See `Memory`."""
        return self._memory.generator

    @property
    def stale(self) -> int:
        """See `Memory`."""
        return self._memory.stale

    @property
    def kept(self) -> int:
        """See `Memory`."""
        return len(self._memory)

    def state(self) -> State:
        """See `Stateful`."""
        return {"memory": self._memory.state()}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        if "memory" in state:
            self._memory.restore(state["memory"])

    def keep(self, rollouts: list[Rollout]) -> None:
        """See `Memory`."""
        self._keys = [self._memory.insert(rollout) for rollout in rollouts]

    def learned(self, errors: Array) -> None:
        """See `Memory`."""
        self._memory.learned(np.concatenate(self._keys), errors)

    def draw(self, version: int) -> Drawn | None:
        """See `Memory`."""
        return drawn_from(self._memory, self._count, version - self._max_lag)

    def redrawn(self, drawn: Drawn, errors: Array, meant: Array) -> None:
        """See `Memory`."""
        self._memory.learned(drawn.keys[meant], errors[meant])

    def end(self) -> Ending:
        """See `Memory`."""
        return Ending()


def drawn_from(memory: RolloutMemory, count: int, since: int) -> Drawn | None:
    """Drop what weights before a version acted in; draw some of the rest if there are as many."""
    memory.drop_before(since)
    return memory.draw(count) if len(memory) >= count else None


class ServersMemory:
    """Kept by a server, which draws ahead. Nothing is waited for: who finds nothing drawn learns from fresh rollouts.

    What the server has not taken yet when the next batch comes keeps that one from being kept.

    Args:
        world: whose ranks are meant.
        server: the rank.
        spec: the environments'.
        unroll_length: T.
        num_envs: B of a fresh rollout.
        rollouts: most in a fresh batch.
        count: rollouts in a draw.
        max_lag: see `RolloutReplay`.
        seed: of what is drawn at random about them here.
        control: of this rank.
        traffic: where messages are counted.
    """

    def __init__(
        self,
        world: Comm,
        server: int,
        spec: EnvSpec,
        unroll_length: int,
        num_envs: int,
        rollouts: int,
        count: int,
        max_lag: int,
        seed: int,
        control: Control,
        traffic: Traffic,
    ) -> None:
        self._server, self._max_lag, self._control = server, max_lag, control
        self._fresh = Sender(
            world, Tag.ROLLOUT, learned_layout(spec, unroll_length, num_envs), slots_for(rollouts), traffic
        )
        self._errors = Sender(world, Tag.ERRORS, errors_layout(count), slots_for(1), traffic)
        self._samples = Receiver(world, [server], Tag.SAMPLE, drawn_layout(spec, unroll_length, count), slots=1)
        self._generator, self._stale, self._kept = np.random.default_rng(seed), 0, 0
        self._taken: list[Slot[LearnedMessage]] = []
        self._arrived: Slot[DrawnMessage] | None = None

    @property
    def generator(self) -> np.random.Generator:
        """See `Memory`."""
        return self._generator

    @property
    def stale(self) -> int:
        """See `Memory`."""
        return self._stale

    @property
    def kept(self) -> int:
        """See `Memory`."""
        return self._kept

    def state(self) -> State:
        """See `Stateful`."""
        return {"generator": self._generator.bit_generator.state, "stale": self._stale, "kept": self._kept}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        if "generator" in state:
            self._generator.bit_generator.state = state["generator"]
            self._stale, self._kept = int(state["stale"]), int(state["kept"])

    def keep(self, rollouts: list[Rollout]) -> None:
        """See `Memory`."""
        self._give_back()
        if self._fresh.busy(self._server):
            return
        for rollout in rollouts:
            slot = self._fresh.take()
            assert slot is not None, "all are free when the last has been taken"
            for name, values in rollout._asdict().items():
                if name != "last":
                    getattr(slot.record, name)[...] = values
            self._taken.append(slot)

    def learned(self, errors: Array) -> None:
        """See `Memory`."""
        with self._control.timing(Phase.SEND):
            start = 0
            for slot in self._taken:
                own = slot.record.errors
                own[:] = errors[start : start + len(own)]
                start += len(own)
                self._fresh.send(slot, self._server)
        self._give_back()

    def draw(self, version: int) -> Drawn | None:
        """See `Memory`."""
        for slot in self._samples.poll():
            if slot.record.last[0]:
                self._samples.release(slot)
                continue
            record = slot.record
            self._stale, self._kept = int(record.stale[0]), int(record.kept[0])
            if record.version.min() < version - self._max_lag:  # it has waited here too long
                self._samples.release(slot)
                continue
            self._arrived = slot
            return Drawn(rollout_of(record), record.keys, record.weight)
        return None

    def redrawn(self, drawn: Drawn, errors: Array, meant: Array) -> None:
        """See `Memory`."""
        assert self._arrived is not None, "what was drawn stands in it"
        if not self._errors.busy(self._server) and (slot := self._errors.take()) is not None:
            slot.record.learned[0], slot.record.errors[:] = 1, errors
            slot.record.keys[:] = np.where(meant, drawn.keys, NOT_MEANT)
            self._errors.send(slot, self._server)
            self._errors.release(slot)
        self._samples.release(self._arrived)
        self._arrived = None

    def end(self) -> Ending:
        """See `Memory`."""
        self._give_back()
        for sender in (self._fresh, self._errors):
            sender.say_last([self._server])
        return Ending(((self._samples, ignore),), (self._fresh, self._errors))

    def _give_back(self) -> None:
        for slot in self._taken:
            self._fresh.release(slot)
        self._taken = []


def slots_for(messages: int) -> int:
    """Return the buffers of a sender that has so many messages on their way at most, and a closing one."""
    return messages + 1


class Keeping(Protocol):
    """What a server does beside holding weights."""

    def serve(self, version: int) -> bool:
        """Do what is due; say whether there was something. ``version`` is that of the weights now."""

    def end(self) -> Ending:
        """Part from the learners, at the end of a leg."""


class KeepsNothing:
    """Learners keep their rollouts themselves, or nobody does."""

    def serve(self, version: int) -> bool:
        """See `Keeping`."""
        return False

    def end(self) -> Ending:
        """See `Keeping`."""
        return Ending()


class KeepsRollouts:
    """A server's part: keeps the rollouts of all its learners, and draws for each, a batch ahead.

    Args:
        world: whose ranks are meant.
        learners: the ranks.
        memory: of rollouts.
        spec: the environments'.
        unroll_length: T.
        num_envs: B of a fresh rollout.
        count: rollouts in a draw.
        config: of the memory.
        control: of this rank.
        traffic: where messages are counted.
    """

    def __init__(
        self,
        world: World,
        learners: Sequence[int],
        memory: RolloutMemory,
        spec: EnvSpec,
        unroll_length: int,
        num_envs: int,
        count: int,
        config: RolloutReplay,
        control: Control,
        traffic: Traffic,
    ) -> None:
        self._world, self._memory, self._count, self._max_lag = world, memory, count, config.max_lag
        self._control = control
        self._fresh = Receiver(world, learners, Tag.ROLLOUT, learned_layout(spec, unroll_length, num_envs), slots=1)
        self._errors = Receiver(world, learners, Tag.ERRORS, errors_layout(count), slots=1)
        layout = drawn_layout(spec, unroll_length, count)
        # Buffers for each, so that a slow learner keeps no sample from a fast one.
        self._samples = {rank: Sender(world, Tag.SAMPLE, layout, slots_for(1), traffic) for rank in learners}

    def state(self) -> State:
        """See `Stateful`."""
        return {"memory": self._memory.state()}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self._memory.restore(state["memory"])

    def serve(self, version: int) -> bool:
        """See `Keeping`."""
        return any([self._take_rollouts(), self._take_errors(), self._send(version)])

    def end(self) -> Ending:
        """See `Keeping`: what still comes is kept."""
        for learner, sender in self._samples.items():
            sender.say_last([learner])
        return Ending(((self._fresh, self._insert), (self._errors, self._heed)), tuple(self._samples.values()))

    def _take_rollouts(self) -> bool:
        arrived = self._fresh.poll()
        with self._control.timing(Phase.COLLECT):
            for slot in arrived:
                self._insert(slot.record)
                self._fresh.release(slot)
        return bool(arrived)

    def _insert(self, record: LearnedMessage) -> None:
        if not record.last[0]:
            self._memory.learned(self._memory.insert(rollout_of(record)), record.errors)

    def _take_errors(self) -> bool:
        arrived = self._errors.poll()
        for slot in arrived:
            self._heed(slot.record)
            self._errors.release(slot)
        return bool(arrived)

    def _heed(self, record: ErrorsMessage) -> None:
        meant = record.keys != NOT_MEANT
        if not record.last[0]:
            self._memory.learned(record.keys[meant], record.errors[meant])

    def _send(self, version: int) -> bool:
        sent = False
        for learner, sender in self._samples.items():
            if learner in self._world.gone or sender.busy(learner):
                continue
            with self._control.timing(Phase.BATCH):
                drawn = drawn_from(self._memory, self._count, version - self._max_lag)
            if drawn is None or (slot := sender.take()) is None:
                continue
            record = slot.record
            with self._control.timing(Phase.SEND):
                for name, values in drawn.rollout._asdict().items():
                    if name not in ("last", "number"):
                        getattr(record, name)[...] = values
                record.keys[:], record.weight[:] = drawn.keys, drawn.weight
                record.stale[0], record.kept[0] = self._memory.stale, len(self._memory)
                sender.send(slot, learner)
                sender.release(slot)
            sent = True
        return sent
