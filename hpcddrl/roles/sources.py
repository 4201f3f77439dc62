"""How rollouts become batches: as they come, in several passes, or drawn from a replay here or on other ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch

from hpcddrl.comm.channel import Comm, Ending, Receiver, Sender, Slot, Tag, Traffic, ignore
from hpcddrl.comm.messages import SampleMessage, errors_layout, sample_layout
from hpcddrl.config import Replay as ReplayConfig
from hpcddrl.logs.timing import Phase
from hpcddrl.networks.device import CPU, batch_to
from hpcddrl.replay.replay import Replay, Sample
from hpcddrl.roles.control import Control
from hpcddrl.roles.feeds import Feed
from hpcddrl.roles.pacing import Holder
from hpcddrl.roles.rollouts import Batcher
from hpcddrl.roles.waiting import Waiting
from hpcddrl.types import Array, Batch, EnvSpec, Output, Rollout, State, Transitions


class Source(Protocol):
    """Gives batches."""

    def get(self, version: int) -> Batch | Transitions:
        """Return the next batch, waiting for it; ``version`` is that of the weights that act here, if any do."""

    def feedback(self, errors: Array | None, learned: bool) -> None:
        """Say what became of the last batch: its temporal differences [N], and whether its gradient was applied."""

    def end(self) -> Ending:
        """Part from whoever sends, at the end of a leg; what still comes is counted as dropped."""


Kept = Callable[[], Output | None] | None


class Fresh:
    """Rollouts as they come, each learned from once.

    Args:
        feed: of rollouts.
        batcher: makes a batch of them.
        kept: returns the outputs of the forward passes that acted, if they go together, where they are learned from.
        control: of this rank.
        look: called with each batch's rollouts, which may not be kept.
    """

    def __init__(
        self,
        feed: Feed,
        batcher: Batcher,
        kept: Kept,
        control: Control,
        look: Callable[[list[Rollout]], None] = lambda rollouts: None,
    ) -> None:
        self._feed, self._batcher, self._kept, self._control, self._look = feed, batcher, kept, control, look
        self._samples = 0

    def get(self, version: int) -> Batch:
        """See `Source`."""
        arrived = self._feed.take(version)
        with self._control.timing(Phase.BATCH):
            rollouts = [a.rollout for a in arrived]
            batch = self._batcher(rollouts)
            self._look(rollouts)
            self._feed.release()
        self._samples = batch.samples
        return batch if self._kept is None else batch._replace(output=_if_of(batch, self._kept()))

    def feedback(self, errors: Array | None, learned: bool) -> None:
        """See `Source`."""
        self.count(self._samples, learned)

    def count(self, samples: int, learned: bool) -> None:
        """Count transitions as used or, if they were not learned from, as dropped."""
        counters = self._control.counters
        if learned:
            counters.used += samples
        else:
            counters.dropped += samples

    def end(self) -> Ending:
        """See `Source`."""
        return self._feed.end()


def _if_of(batch: Batch, output: Output | None) -> Output | None:
    """Return outputs if they are those of a batch; they are not where an actor fell silent or came back meanwhile."""
    return output if output is not None and output.value.shape == batch.action.shape[:2] else None


class Passes:
    """Several passes over each batch; in each, its environments are dealt anew to minibatches.

    The rollouts stay whole, so value targets are made for each minibatch with the values of the moment. A batch's age
    is counted from when it came: the updates of its own passes make it no older.

    Args:
        fresh: the batches.
        epochs: passes.
        minibatches: in each pass.
        seed: of the dealing.
        control: of this rank.
    """

    def __init__(self, fresh: Fresh, epochs: int, minibatches: int, seed: int, control: Control) -> None:
        self._fresh, self._epochs, self._minibatches, self._control = fresh, epochs, minibatches, control
        self._generator = np.random.default_rng(seed)
        self._left: list[Array] = []  # the columns of the minibatches to come
        self._batch: Batch | None = None
        self._updates = self._samples = 0
        self._untouched = 0  # samples of the batch that the first pass has not come to

    def get(self, version: int) -> Batch:
        """See `Source`."""
        steps = 0
        if not self._left:
            self._batch = self._fresh.get(version)
            self._updates, self._untouched = 0, self._batch.samples
            steps = self._batch.steps
            for _ in range(self._epochs):
                order = self._generator.permutation(self._batch.action.shape[1])
                self._left += np.array_split(order, self._minibatches)
        assert self._batch is not None
        with self._control.timing(Phase.BATCH):
            part = columns(self._batch, self._left.pop(0))
        part = part._replace(versions=part.versions + self._updates, steps=steps)
        self._updates, self._samples = self._updates + 1, part.samples
        return part

    def feedback(self, errors: Array | None, learned: bool) -> None:
        """See `Source`: the first pass decides."""
        if self._updates <= self._minibatches:
            self._fresh.count(self._samples, learned)
            self._untouched -= self._samples

    def end(self) -> Ending:
        """See `Source`: the passes that are left are left out; what the first has not come to is dropped."""
        self._fresh.count(self._untouched, learned=False)
        self._left, self._untouched = [], 0
        return self._fresh.end()

    def state(self) -> State:
        """See `Stateful`."""
        return {"generator": self._generator.bit_generator.state}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self._generator.bit_generator.state = state["generator"]


def columns(batch: Batch, chosen: Array) -> Batch:
    """Return the part of a batch that some of its N environments make, as one rollout of that many."""
    index = torch.from_numpy(chosen)
    rollouts, steps, envs = batch.observation.shape[:3]
    observation = batch.observation.transpose(0, 1).reshape(steps, rollouts * envs, *batch.observation.shape[3:])
    return batch._replace(
        observation=observation[:, index].unsqueeze(0),
        action=batch.action[:, index],
        log_mu=batch.log_mu[:, index],
        reward=batch.reward[:, index],
        discount=batch.discount[:, index],
        valid=batch.valid[:, index],
        versions=batch.versions[chosen],
    )


class Replayed(Holder):
    """Transitions drawn from a replay that this learner holds and fills.

    It gathers as long as more would be learned from than ``replay_ratio`` allows, and takes meanwhile what comes.

    Args:
        feed: of rollouts.
        replay: the memory.
        beta: of its samples' importance weights.
        config: of the replay.
        num_envs: B of a rollout.
        control: of this rank.
        device: that learns.
    """

    def __init__(
        self,
        feed: Feed,
        replay: Replay,
        beta: float,
        config: ReplayConfig,
        num_envs: int,
        control: Control,
        device: torch.device = CPU,
    ) -> None:
        super().__init__(replay, config, control.counters)
        self._feed, self._beta, self._config, self._num_envs = feed, beta, config, num_envs
        self._control, self._device = control, device
        self._sample: Sample | None = None  # made with the first, then written anew

    def get(self, version: int) -> Transitions:
        """See `Source`."""
        steps = self._gather(version, wait=False)
        while not self._pace.may_draw(self._replay):
            steps += self._gather(version, wait=True)
        with self._control.timing(Phase.BATCH):
            self._sample = self._replay.sample(self._config.batch_size, self._beta, self._sample)
            batch = batch_to(_transitions(self._sample, steps), self._device)
        self._pace.drawn(self._config.batch_size)
        return batch

    def feedback(self, errors: Array | None, learned: bool) -> None:
        """See `Source`."""
        assert errors is not None, "what learns from a replay tells its errors"
        assert self._sample is not None
        with self._control.timing(Phase.BATCH):
            self._replay.update(self._sample.keys, errors)
            if learned:
                self._replay.mark(self._sample.keys)
        self._count()

    def end(self) -> Ending:
        """See `Source`."""
        self._count()
        return self._feed.end()

    def _gather(self, version: int, wait: bool) -> int:
        """Put rollouts into the replay; return their env steps."""
        steps = 0
        for source, rollout in self._feed.take(version, wait):
            with self._control.timing(Phase.BATCH):
                self._replay.insert(source * self._num_envs, rollout)
            self._pace.gathered(self._replay, rollout.reward.size)
            steps += rollout.reward.size
        self._feed.release()
        self._count()
        return steps


def _transitions(drawn: Sample | SampleMessage, steps: int) -> Transitions:
    """Return what was drawn as tensors, which share its memory."""
    observation, after, action = (
        torch.from_numpy(x) for x in (drawn.observation, drawn.next_observation, drawn.action)
    )
    reward, discount, weight = (torch.from_numpy(x) for x in (drawn.reward, drawn.discount, drawn.weight))
    return Transitions(observation, after, action, reward, discount, weight, drawn.version.copy(), steps)


class RemoteReplay:
    """Transitions that replay ranks draw ahead of time; what was learned of them goes back.

    Args:
        world: whose ranks are meant.
        replays: the group's ranks that hold a share of the replay each.
        spec: the environments'.
        batch_size: N.
        meanwhile: called while nothing arrives.
        control: of this rank.
        traffic: where messages are counted.
        device: that learns.
    """

    def __init__(
        self,
        world: Comm,
        replays: Sequence[int],
        spec: EnvSpec,
        batch_size: int,
        meanwhile: Callable[[], None],
        control: Control,
        traffic: Traffic,
        device: torch.device = CPU,
    ) -> None:
        self._replays, self._control, self._device = list(replays), control, device
        self._samples = Receiver(world, replays, Tag.SAMPLE, sample_layout(spec, batch_size), slots=2)
        self._errors = Sender(world, Tag.ERRORS, errors_layout(batch_size), 2 * len(self._replays), traffic)
        self._waiting = Waiting(control, meanwhile, longest_s=1e-3, anybody=lambda: bool(self._samples.open))
        self._arrived: list[Slot[SampleMessage]] = []
        self._slot: Slot[SampleMessage] | None = None

    def get(self, version: int) -> Transitions:
        """See `Source`; valid until `feedback`."""
        with self._control.timing(Phase.WAIT):
            self._arrived += self._samples.poll()
            while not self._arrived:
                self._waiting.pause()
                self._arrived += self._samples.poll()
            self._waiting.reset()
        self._slot = self._arrived.pop(0)
        record = self._slot.record
        return batch_to(_transitions(record, int(record.steps[0])), self._device)

    def feedback(self, errors: Array | None, learned: bool) -> None:
        """See `Source`."""
        assert errors is not None, "what learns from a replay tells its errors"
        assert self._slot is not None
        with self._control.timing(Phase.SEND):
            while (out := self._errors.take()) is None:
                self._waiting.pause()
            self._waiting.reset()
            out.record.learned[0], out.record.keys[:], out.record.errors[:] = learned, self._slot.record.keys, errors
            self._errors.send(out, self._slot.source)
            self._errors.release(out)
            self._samples.release(self._slot)
            self._slot = None

    def end(self) -> Ending:
        """See `Source`."""
        for slot in self._arrived:
            self._samples.release(slot)
        self._arrived = []
        self._errors.say_last(self._replays)
        return Ending(((self._samples, ignore),), (self._errors,))
