"""The learner: one loop for every recipe, one line an axis."""

from __future__ import annotations

from functools import partial

import numpy as np
from torch import Tensor

from hpcddrl.algorithms.algorithm import Algorithm
from hpcddrl.comm.channel import reopen
from hpcddrl.logs.timing import Phase
from hpcddrl.roles.control import Control
from hpcddrl.roles.evaluating import Evaluating
from hpcddrl.roles.legs import Legs
from hpcddrl.roles.peers import Peers
from hpcddrl.roles.pretext import Pretext
from hpcddrl.roles.publishing import Publishing
from hpcddrl.roles.saving import Saver
from hpcddrl.roles.sources import Source
from hpcddrl.roles.updates import Update
from hpcddrl.roles.waiting import Starved
from hpcddrl.types import RunError, Weights


class Learner:
    """Turns experience into weights.

    Args:
        algorithm: from a batch to a gradient.
        pretext: what is learned beside it.
        gradient: [P + TAIL] what the algorithm writes to, and room for what is reduced with it.
        source: experience.
        update: where gradients become weights.
        publisher: to actors.
        peers: the other groups.
        evaluating: of what is learned.
        saver: of what others play.
        legs: of the run.
        control: of this rank.
        frame_skip: environment frames in an env step.
        learners: of this group, which all take this one's steps at the same time.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        pretext: Pretext,
        gradient: Tensor,
        source: Source,
        update: Update,
        publisher: Publishing,
        peers: Peers,
        evaluating: Evaluating,
        saver: Saver,
        legs: Legs,
        control: Control,
        frame_skip: int,
        learners: int,
    ) -> None:
        self._algorithm, self._pretext, self._gradient = algorithm, pretext, gradient
        self._source, self._update = source, update
        self._publisher, self._peers, self._saver, self._legs = publisher, peers, saver, legs
        self._evaluating = evaluating
        self._control, self._frame_skip, self._learners = control, frame_skip, learners

    def run(self, weights: Weights) -> None:
        """Learn from ``weights``, leg by leg, until the run ends."""
        while True:
            weights = self._learn(self._update.first(weights))
            endings = self._publisher.end(), self._source.end(), self._update.end(), self._peers.end()
            self._legs.rest(*endings)
            if not self._legs.between(weights, partial(self._save, weights)):
                break
            reopen(*endings)
            weights = weights._replace(last=False)
        self._evaluating.end(weights)
        self._pretext.end()
        self._update.close()

    def _learn(self, weights: Weights) -> Weights:
        """Learn until the leg ends; return the weights that it ends with."""
        control, counters, timing = self._control, self._control.counters, self._control.timing
        weights = weights._replace(last=weights.last or self._legs.finished(weights.frames))
        self._publisher.put(weights)
        self._evaluating.see(weights)
        try:
            while not weights.last:
                batch = self._source.get(self._publisher.version)
                with timing(Phase.GRADIENT):
                    targets = self._peers.targets(batch, weights)
                    learned = self._algorithm.gradients(batch, targets, weights)
                beside = self._pretext.learn(batch, weights)
                lags = np.maximum(0, weights.version - batch.versions)
                samples, frames = batch.samples, batch.steps * self._frame_skip  # resets too: the same in every group
                stop = self._legs.over(weights.version + 1, weights.frames + frames * self._learners)
                entering = weights.entering(control.wanted, weights.version + 1)
                weights = self._update(entering, self._gradient, frames, samples, learned.metrics["loss"], stop)
                control.enter(weights.stage, weights.since)
                self._source.feedback(learned.errors, learned=not self._update.refused)
                self._peers.exchange(weights)  # which may change them
                self._publisher.put(weights, batch)
                self._evaluating.see(weights)
                counters.trained += samples
                counters.updates = weights.version
                control.learned(learned.metrics | beside | self._update.metrics, lags)
                control.tick()
        except Starved:  # of actors that are silent, at the end of the run
            pass
        except RunError:
            self._saver.save(weights, self._update.optimizer_state() or {})
            raise
        return weights

    def _save(self, weights: Weights) -> None:
        self._saver.save(weights, self._update.optimizer_state())
