"""The parameter server: holds the weights and the optimizer, takes gradients, answers with weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from hpcddrl.comm.channel import Comm, Ending, Receiver, Sender, Slot, Tag, Traffic, drain, ignore
from hpcddrl.comm.messages import GradientMessage, gradient_layout, weights_layout
from hpcddrl.logs.timing import Phase
from hpcddrl.roles.control import Control
from hpcddrl.roles.saving import Saver
from hpcddrl.roles.updates import OptimizerStep
from hpcddrl.roles.waiting import Waiting
from hpcddrl.types import Weights


class Server:
    """Applies each gradient as it comes (in turn in a deterministic run) and answers its sender.

    Args:
        world: whose ranks are meant.
        learners: the ranks that send gradients, in order.
        step: the optimizer over the weights.
        in_turn: take one gradient from each learner in turn.
        saver: of checkpoints.
        control: of this rank.
        enough: says whether so many trained frames end a deterministic run.
        traffic: where messages are counted.
    """

    def __init__(
        self,
        world: Comm,
        learners: Sequence[int],
        parameters: int,
        step: OptimizerStep,
        in_turn: bool,
        saver: Saver,
        control: Control,
        enough: Callable[[float], bool],
        traffic: Traffic,
    ) -> None:
        self._learners, self._step, self._saver, self._control = list(learners), step, saver, control
        self._enough, self._in_turn = enough, in_turn
        self._gradients = Receiver(world, learners, Tag.GRADIENT, gradient_layout(parameters), slots=1)
        self._weights = Sender(world, Tag.WEIGHTS, weights_layout(parameters), 2 * len(self._learners), traffic)

    def run(self, weights: Weights) -> None:
        """Serve from ``weights`` until the run ends and every learner knows."""
        control, timing = self._control, self._control.timing
        for learner in self._learners:
            self._answer(weights, learner)
        told: set[int] = set()
        early: dict[int, Slot[GradientMessage]] = {}
        turn = 0
        pause = Waiting(control, meanwhile=lambda: None, longest_s=1e-3)
        while len(told) < len(self._learners):
            with timing(Phase.WAIT):
                early |= {slot.source: slot for slot in self._gradients.poll()}
            ready = self._ready(early, turn)
            if not ready:
                with timing(Phase.WAIT):
                    pause.pause()
                continue
            pause.reset()
            for learner in ready:
                slot = early.pop(learner)
                if not slot.record.last[0]:
                    weights = self._apply(weights, slot.record)
                    last = weights.last or control.stop or self._enough(weights.frames)
                    weights = weights._replace(last=last)
                    self._answer(weights, learner)
                    if weights.last:
                        told.add(learner)
                self._gradients.release(slot)
                turn = (turn + 1) % len(self._learners)
            self._saver.save_when_due(weights, self._step.optimizer.state_dict)
            control.tick()
        self._saver.save(weights, self._step.optimizer.state_dict())
        with timing(Phase.WAIT):
            drain(Ending(((self._gradients, ignore),), (self._weights,)))

    def _ready(self, early: dict[int, Slot[GradientMessage]], turn: int) -> list[int]:
        """Return the learners whose gradients may be applied now."""
        if not self._in_turn:
            return list(early)
        learner = self._learners[turn]
        return [learner] if learner in early else []

    def _apply(self, weights: Weights, record: GradientMessage) -> Weights:
        with self._control.timing(Phase.UPDATE):
            rate = self._step(torch.from_numpy(record.flat), int(record.frames[0]))
        staleness = float(weights.version - record.version[0])
        self._control.learned(
            {"learning_rate": rate, "staleness_mean": staleness, "staleness_max": staleness}, np.empty(0)
        )
        after = Weights(weights.version + 1, weights.flat, weights.frames + float(record.frames[0]), weights.last)
        self._control.counters.updates = after.version
        return after

    def _answer(self, weights: Weights, learner: int) -> None:
        with self._control.timing(Phase.PUBLISH):
            slot = self._weights.take()
            assert slot is not None, "each learner has taken the answer to its gradient before"
            slot.record.version[0], slot.record.last[0] = weights.version, weights.last
            slot.record.frames[0] = weights.frames
            slot.record.flat[:] = weights.flat.numpy()
            self._weights.send(slot, learner)
            self._weights.release(slot)
