"""Central inference: actors send frames, their learner answers with actions and writes the rollouts itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpcddrl.comm.channel import Ending, Sender, Slot, Tag, Traffic
from hpcddrl.comm.messages import ActionsMessage, FramesMessage, actions_layout, frames_layout
from hpcddrl.comm.records import Layout
from hpcddrl.comm.world import World
from hpcddrl.logs.timing import Phase
from hpcddrl.roles.came import Counted
from hpcddrl.roles.control import Control
from hpcddrl.roles.feeds import Arrived
from hpcddrl.roles.rollouts import RolloutWriter
from hpcddrl.roles.waiting import Waiting
from hpcddrl.types import Act, Acted, EnvSpec, Rollout


def _steps(record: FramesMessage) -> int:
    return int(np.count_nonzero(~record.first))


class _Remote:
    """One actor's half of central inference: its rollout in the making, and what was last decided for it."""

    def __init__(self, number: int, spec: EnvSpec, num_envs: int, layout: Layout[Rollout]) -> None:
        self.number = number
        self.writer = RolloutWriter(spec, num_envs)
        _, self.rollout = layout.allocate()
        self.acted: Acted | None = None
        self.steps = 0  # transitions in the rollout so far


class Central:
    """Frames from actors, answered with actions in batches; the learner writes the rollouts itself.

    An actor whose rollout is full gets its next actions after it has been learned from, so the queue of full ones is
    no longer than the actors are many. With ``minimum`` = the number of actors this is lockstep, and all data are
    on-policy. Actors that have died or are silent are done without: neither actions nor batches wait for them. One that
    comes back goes on with the rollout that it left.

    Args:
        world: whose ranks are meant.
        actors: the ranks that send to this learner, in order.
        spec: the environments'.
        num_envs: B of each actor.
        layout: of a rollout.
        rollouts: R of a batch.
        take_more: take all rollouts that are full, if they are more.
        minimum: actors to await before a batch is inferred.
        act: the learner's policy.
        control: of this rank.
        traffic: where messages are counted.
    """

    def __init__(
        self,
        world: World,
        actors: Sequence[int],
        spec: EnvSpec,
        num_envs: int,
        layout: Layout[Rollout],
        rollouts: int,
        take_more: bool,
        minimum: int,
        act: Act,
        control: Control,
        traffic: Traffic,
    ) -> None:
        self.sources = len(actors)
        layout_in = frames_layout(spec, num_envs)
        self._frames = Counted(world, actors, Tag.FRAMES, layout_in, 1, _steps, control.counters)
        self._actions = Sender(world, Tag.ACTIONS, actions_layout(spec, num_envs), 2 * len(actors), traffic)
        self._rollouts, self._take_more, self._minimum = rollouts, take_more, minimum
        self._act, self._control, self._num_envs = act, control, num_envs
        self._world = world
        self._actors = {rank: _Remote(number, spec, num_envs, layout) for number, rank in enumerate(actors)}
        self._waiting: list[int] = []  # for actions
        self._full: list[int] = []  # rollouts to learn from
        self._taken: list[int] = []  # being learned from
        self._resting: list[int] = []  # to begin a rollout with the next weights
        self._pause = Waiting(control, lambda: None, longest_s=1e-3, anybody=lambda: bool(self._frames.open))

    def take(self, version: int, wait: bool = True) -> list[Arrived]:
        """See `Feed`; in the actors' order."""
        self._begin(version)
        while True:
            self._serve(version, wait)
            if len(self._full) >= self._wanted or not wait:
                break
        count = len(self._full) if self._take_more or not wait else self._wanted
        self._taken, self._full = sorted(self._full[:count]), self._full[count:]
        return [Arrived(self._actors[rank].number, self._actors[rank].rollout) for rank in self._taken]

    def release(self) -> None:
        """See `Feed`."""
        self._resting, self._taken = self._resting + self._taken, []

    def end(self) -> Ending:
        """See `Feed`."""
        self._control.counters.dropped += sum(a.steps for r, a in self._actors.items() if r not in self._resting)
        for actor in self._actors.values():
            actor.acted, actor.steps = None, 0  # it begins with a frame again
        self._waiting, self._full, self._resting = [], [], []
        self._actions.say_last(self._actors)
        return Ending(((self._frames, self._drop),), (self._actions,))

    @property
    def _absent(self) -> int:
        """Return how many actors are done without, of those that owe frames."""
        away = (self._world.silent | self._world.gone) & self._actors.keys()
        return len(away.difference(self._full, self._waiting, self._resting)) if away else 0

    @property
    def _wanted(self) -> int:
        """Return how many rollouts make a batch."""
        return max(1, min(self._rollouts, len(self._actors) - self._absent))

    @property
    def _awaited(self) -> int:
        """Return how many actors' frames make a batch of actions."""
        return max(1, min(self._minimum, len(self._actors) - len(self._full) - self._absent))

    def _drop(self, record: FramesMessage) -> None:
        if not record.last[0]:
            self._control.counters.dropped += _steps(record)

    def _serve(self, version: int, wait: bool) -> None:
        """Take frames, waiting for some if a rollout is wanted, and answer the actors that may be answered."""
        timing = self._control.timing
        with timing(Phase.WAIT):
            while not (arrived := self._frames.poll()) and wait and len(self._full) < self._wanted:
                self._pause.pause()
                if len(self._waiting) >= self._awaited:  # since others are done without
                    break
            self._pause.reset()
        with timing(Phase.COLLECT):
            for slot in arrived:
                self._take(slot, version)
                self._frames.release(slot)
        if len(self._waiting) >= self._awaited:
            self._answer()

    def _begin(self, version: int) -> None:
        """Let the actors whose rollouts were learned from go on."""
        for rank in self._resting:
            actor = self._actors[rank]
            actor.writer.begin(actor.rollout, version)
            actor.steps = 0
            if actor.acted is not None:  # its last frame is here already
                self._waiting.append(rank)
        self._resting = []
        if len(self._waiting) >= max(1, min(self._minimum, len(self._actors) - self._absent)):
            self._answer()

    def _take(self, slot: Slot[FramesMessage], version: int) -> None:
        actor, record = self._actors[slot.source], slot.record
        if actor.acted is None:
            actor.writer.start(record.frame)
            actor.writer.begin(actor.rollout, version)
            self._waiting.append(slot.source)
            return
        actor.steps += _steps(record)
        full = actor.writer.add(
            actor.acted,
            frame=record.frame,
            first=record.first,
            reward=record.reward,
            discount=record.discount,
        )
        (self._full if full else self._waiting).append(slot.source)

    def _answer(self) -> None:
        """Infer the actions of all who wait, as one batch in the actors' order, and send them."""
        timing = self._control.timing
        ranks, self._waiting = sorted(self._waiting), []
        with timing(Phase.COLLECT):
            observations = np.concatenate([self._actors[rank].writer.observation() for rank in ranks])
        with timing(Phase.ACT):
            acted = self._act(observations)
        self._control.counters.predictions += len(observations)
        with timing(Phase.SEND):
            for i, rank in enumerate(ranks):
                rows = slice(i * self._num_envs, (i + 1) * self._num_envs)
                self._actors[rank].acted = Acted(*(column[rows] for column in acted))
                slot: Slot[ActionsMessage] | None = self._actions.take()
                assert slot is not None, "each actor has taken its actions of the step before"
                slot.record.action[:] = acted.action[rows]
                self._actions.send(slot, rank)
                self._actions.release(slot)
