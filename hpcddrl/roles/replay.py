"""The replay: keeps a share of a group's transitions, draws samples ahead of the learners, takes their errors back."""

from __future__ import annotations

from collections.abc import Sequence

from hpcddrl.comm.channel import Ending, Receiver, Sender, Tag, Traffic, ignore, reopen
from hpcddrl.comm.messages import ErrorsMessage, SampleMessage, errors_layout, sample_layout
from hpcddrl.comm.records import Layout
from hpcddrl.comm.wait import Backoff
from hpcddrl.comm.world import World
from hpcddrl.config import Replay as ReplayConfig
from hpcddrl.logs.timing import Phase
from hpcddrl.replay.replay import Replay, Sample
from hpcddrl.roles.came import Counted
from hpcddrl.roles.control import Control
from hpcddrl.roles.legs import Legs
from hpcddrl.roles.pacing import Holder
from hpcddrl.roles.rollouts import transitions
from hpcddrl.types import EnvSpec, Rollout


class ReplayRank(Holder):
    """Inserts rollouts, sends samples, updates priorities, until every learner has said its last.

    Args:
        world: whose ranks are meant.
        actors: the ranks whose rollouts come here, in order; each has its own streams of the replay.
        learners: the group's, in order; each gets samples of its own.
        replay: the memory.
        beta: of its samples' importance weights.
        config: of the replay.
        spec: the environments'.
        num_envs: B of a rollout.
        layout: of a rollout.
        legs: of the run.
        control: of this rank.
        traffic: where messages are counted.
    """

    def __init__(
        self,
        world: World,
        actors: Sequence[int],
        learners: Sequence[int],
        replay: Replay,
        beta: float,
        config: ReplayConfig,
        spec: EnvSpec,
        num_envs: int,
        layout: Layout[Rollout],
        legs: Legs,
        control: Control,
        traffic: Traffic,
    ) -> None:
        super().__init__(replay, config, control.counters)
        self._beta, self._batch_size = beta, config.batch_size
        self._legs, self._control = legs, control
        self._first_stream = {rank: number * num_envs for number, rank in enumerate(actors)}
        self._world = world
        self._rollouts = Counted(world, actors, Tag.ROLLOUT, layout, 2, transitions, control.counters)
        self._errors = Receiver(world, learners, Tag.ERRORS, errors_layout(config.batch_size), slots=2)
        layout_out = sample_layout(spec, config.batch_size)
        # A slot each, so that a slow learner keeps no sample from a fast one.
        self._samples: dict[int, Sender[SampleMessage]] = {
            rank: Sender(world, Tag.SAMPLE, layout_out, 1, traffic) for rank in learners
        }
        self._steps = dict.fromkeys(learners, 0)  # that came since the last sample for each

    def run(self) -> None:
        """Serve, leg by leg, until the run ends."""
        ending = Ending(((self._rollouts, self._drop), (self._errors, ignore)), tuple(self._samples.values()))
        while True:
            self._serve()
            with self._control.timing(Phase.WAIT):
                for rank, sender in self._samples.items():
                    sender.say_last([rank])
            self._legs.rest(ending)
            self._count()
            if not self._legs.between():
                break
            reopen(ending)

    def _serve(self) -> None:
        """Serve until every learner has said its last of the leg."""
        control, timing = self._control, self._control.timing
        backoff = Backoff(longest_s=1e-3)
        while self._errors.open:
            busy = [self._take_rollouts(), self._take_errors(), self._send_samples()]
            if any(busy):
                backoff.reset()
            else:
                with timing(Phase.WAIT):
                    backoff.pause()
            self._count()
            control.tick()

    def _take_rollouts(self) -> bool:
        arrived = self._rollouts.poll()
        with self._control.timing(Phase.COLLECT):
            for slot in arrived:
                if not slot.record.last[0]:
                    self._replay.insert(self._first_stream[slot.source], slot.record)
                    steps = slot.record.reward.size
                    self._pace.gathered(self._replay, steps)
                    for learner in self._steps:
                        self._steps[learner] += steps
                self._rollouts.release(slot)
        return bool(arrived)

    def _take_errors(self) -> bool:
        arrived = self._errors.poll()
        with self._control.timing(Phase.UPDATE):
            for slot in arrived:
                if not slot.record.last[0]:
                    self._heed(slot.record)
                self._errors.release(slot)
        return bool(arrived)

    def _heed(self, record: ErrorsMessage) -> None:
        self._replay.update(record.keys, record.errors)
        if record.learned[0]:
            self._replay.mark(record.keys)

    def _send_samples(self) -> bool:
        sent = False
        for learner, sender in self._samples.items():
            if learner in self._world.gone:
                continue
            if not self._pace.may_draw(self._replay) or (slot := sender.take()) is None:
                continue
            record = slot.record
            with self._control.timing(Phase.BATCH):
                out = Sample(**{name: getattr(record, name) for name in Sample._fields})
                self._replay.sample(self._batch_size, self._beta, out)
            record.steps[0] = self._steps[learner] // len(self._samples)  # each learner's part of them
            self._steps[learner] %= len(self._samples)
            with self._control.timing(Phase.SEND):
                sender.send(slot, learner)
                sender.release(slot)
            self._pace.drawn(self._batch_size)
            sent = True
        return sent

    def _drop(self, record: Rollout) -> None:
        if not record.last[0]:
            self._control.counters.dropped += transitions(record)
