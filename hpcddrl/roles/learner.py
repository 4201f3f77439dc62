"""The learner: one loop for every recipe, one line an axis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from hpcddrl.algorithms.actor_critic import ActorCritic
from hpcddrl.comm.channel import drain
from hpcddrl.logs.timing import Phase
from hpcddrl.roles.control import Control
from hpcddrl.roles.peers import Peers
from hpcddrl.roles.publishing import Publisher
from hpcddrl.roles.saving import Saver
from hpcddrl.roles.sources import Source
from hpcddrl.roles.updates import Update
from hpcddrl.types import RunError, Weights


class Learner:
    """Turns experience into weights.

    Args:
        algorithm: from a batch to a gradient.
        gradient: [P + 1] what the algorithm writes to, and room for a flag.
        source: experience.
        update: where gradients become weights.
        publisher: to actors.
        peers: the other groups.
        saver: of checkpoints.
        control: of this rank.
        frames_per_sample: environment frames that the group trains on for each step in this learner's batch.
        enough: says whether so many trained frames end a deterministic run.
    """

    def __init__(
        self,
        algorithm: ActorCritic,
        gradient: Tensor,
        source: Source,
        update: Update,
        publisher: Publisher,
        peers: Peers,
        saver: Saver,
        control: Control,
        frames_per_sample: int,
        enough: Callable[[float], bool],
    ) -> None:
        self._algorithm, self._gradient, self._source, self._update = algorithm, gradient, source, update
        self._publisher, self._peers, self._saver, self._control = publisher, peers, saver, control
        self._frames_per_sample, self._enough = frames_per_sample, enough

    def run(self, weights: Weights, frames: float) -> None:
        """Learn from ``weights``, after so many trained frames, until the run ends."""
        control, counters, timing = self._control, self._control.counters, self._control.timing
        self._publisher.put(weights)
        while not weights.last:
            batch = self._source.get(weights.version)
            with timing(Phase.GRADIENT):
                targets = self._peers.targets(batch)
                metrics = self._algorithm.gradients(batch, targets)
            samples = int(batch.valid.sum())
            new_frames = batch.valid.numel() * self._frames_per_sample  # resets too: the same in every group
            frames += new_frames
            lags = np.maximum(0, weights.version - batch.versions)
            stop = control.stop or self._enough(frames)
            try:
                weights = self._update(weights, self._gradient, new_frames, stop)
            except RunError:
                self._saver.save(weights, frames, self._update.optimizer_state() or {})
                raise
            self._publisher.put(weights)
            self._peers.exchange(weights)
            counters.trained += samples
            counters.updates = weights.version
            control.learned(metrics | self._update.metrics, lags)
            self._saver.save_when_due(weights, frames, self._update.optimizer_state)
            control.tick()
        self._saver.save(weights, frames, self._update.optimizer_state())
        with timing(Phase.WAIT):
            drain(self._publisher.end(), self._source.end(), self._update.end(), self._peers.end())
