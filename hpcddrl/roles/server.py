"""The parameter server: each rank holds a shard of the weights and its optimizer, takes gradients, answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from hpcddrl.comm.channel import Ending, Receiver, Sender, Slot, Tag, Traffic, ignore, reopen
from hpcddrl.comm.messages import GradientMessage, gradient_layout, weights_layout
from hpcddrl.comm.world import World
from hpcddrl.logs.timing import Phase
from hpcddrl.roles.applying import Applying, Order
from hpcddrl.roles.control import Control
from hpcddrl.roles.legs import Legs
from hpcddrl.roles.memories import Keeping
from hpcddrl.roles.saving import Saver
from hpcddrl.roles.waiting import Waiting
from hpcddrl.types import Stage, Weights


class Server:
    """One shard: applies the learners' gradients of its part of the weights, and answers each with that part.

    Shards don't tell each other about the end. A learner ends when any shard calls its answer the last one, and says
    so to all; a shard serves until every learner has.

    Args:
        world: whose ranks are meant.
        learners: the ranks that send gradients, in order.
        parameters: of this shard.
        order: which gradients are applied next.
        applying: how they become weights.
        keeping: what else is done here.
        apart: learners go on apart in the late stage. It ends when the first of them speaks, who hands over the one
            model that has come of it; else what was learned apart would be lost whenever another speaks before.
        optimizer_state: for checkpoints.
        saver: of what others play.
        legs: of the run.
        control: of this rank.
        traffic: where messages are counted.
    """

    def __init__(
        self,
        world: World,
        learners: Sequence[int],
        parameters: int,
        order: Order,
        applying: Applying,
        keeping: Keeping,
        apart: bool,
        optimizer_state: Callable[[], dict[str, Any]],
        saver: Saver,
        legs: Legs,
        control: Control,
        traffic: Traffic,
    ) -> None:
        self._world, self._learners = world, list(learners)
        self._sending, self._untold = list[int](), set[int]()
        self._order, self._applying, self._keeping, self._apart = order, applying, keeping, apart
        self._optimizer_state = optimizer_state
        self._saver, self._legs, self._control = saver, legs, control
        self._gradients = Receiver(world, learners, Tag.GRADIENT, gradient_layout(parameters), slots=1)
        self._weights = Sender(world, Tag.WEIGHTS, weights_layout(parameters), 2 * len(learners), traffic)

    def run(self, weights: Weights) -> None:
        """Serve from ``weights``, this shard's, leg by leg, until the run ends."""
        while True:
            weights = self._lead(weights._replace(last=self._legs.finished(weights.frames)))
            ending = Ending(((self._gradients, ignore),), (self._weights,)).joined(self._keeping.end())
            self._legs.rest(ending)
            if not self._legs.between(weights, partial(self._save, weights)):
                break
            reopen(ending)

    def _lead(self, weights: Weights) -> Weights:
        """Serve until every learner has sent its last record of the leg; return the weights that it ends with."""
        control, timing = self._control, self._control.timing
        self._sending, self._untold = list(self._learners), set(self._learners)
        weights = self._entering(weights, ())
        for learner in self._sending:
            self._answer(weights, learner, refused=False)
        early: dict[int, Slot[GradientMessage]] = {}
        pause = Waiting(control, meanwhile=lambda: None, longest_s=1e-3)
        while self._sending:
            with timing(Phase.WAIT):
                early |= {slot.source: slot for slot in self._gradients.poll()}
            self._forget(self._world.gone, early)
            ready = self._order(self._sending, early) if self._sending else []
            kept = self._keeping.serve(weights.version)
            if ready or kept:
                pause.reset()
            else:
                with timing(Phase.WAIT):
                    pause.pause()
                continue
            for learners in ready:
                weights = self._serve(weights, [early.pop(learner) for learner in learners])
            control.tick()
        self._weights.say_last(self._untold)
        return weights

    def _save(self, weights: Weights) -> None:
        self._saver.save(weights, self._optimizer_state())

    def _forget(self, gone: frozenset[int], early: dict[int, Slot[GradientMessage]]) -> None:
        """Do without learners that are gone, and without what they sent last."""
        self._sending = [learner for learner in self._sending if learner not in gone]
        for learner in gone & early.keys():
            del early[learner]

    def _serve(self, weights: Weights, slots: list[Slot[GradientMessage]]) -> Weights:
        """Make one update of these gradients and answer their senders; those who said their last are through."""
        gradients = {slot.source: slot.record for slot in slots if not slot.record.last[0]}
        refused = False
        if gradients:
            weights, refused = self._applying(weights, gradients)
            weights = weights._replace(last=weights.last or self._legs.over(weights.version, weights.frames))
            weights = self._entering(weights, gradients)
            self._control.enter(weights.stage, weights.since)
            self._control.counters.updates = weights.version
        for slot in slots:
            self._sending.remove(slot.source)
            if not slot.record.last[0]:
                self._sending.append(slot.source)
                self._answer(weights, slot.source, refused)
            self._gradients.release(slot)
        return weights

    def _entering(self, weights: Weights, heard: Collection[int]) -> Weights:
        """Return the weights in the stage that they are to enter, now that these learners have spoken."""
        if self._apart and weights.stage is Stage.LATE:
            leads = next((learner for learner in self._learners if learner not in self._world.gone), None)
            if leads not in heard:
                return weights
        return weights.entering(self._control.wanted_with(weights.frames), weights.version)

    def _answer(self, weights: Weights, learner: int, refused: bool) -> None:
        with self._control.timing(Phase.PUBLISH):
            slot = self._weights.take()
            assert slot is not None, "each learner has taken the answer to its gradient before"
            slot.record.version[0], slot.record.last[0] = weights.version, weights.last
            slot.record.frames[0], slot.record.refused[0] = weights.frames, refused
            slot.record.stage[0], slot.record.since[0] = weights.stage, weights.since
            slot.record.flat[:] = weights.flat.numpy()
            self._weights.send(slot, learner)
            self._weights.release(slot)
            self._applying.sent(learner, weights.flat)
        if weights.last:
            self._untold.discard(learner)
