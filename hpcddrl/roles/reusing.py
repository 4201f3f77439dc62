"""Batches of rollouts that were learned from before, between fresh ones."""

from __future__ import annotations

import numpy as np
import torch

from hpcddrl.comm.channel import Ending
from hpcddrl.config import RolloutReplay
from hpcddrl.logs.timing import Phase
from hpcddrl.networks.device import to_device
from hpcddrl.replay.rollouts import Drawn, RolloutMemory
from hpcddrl.roles.control import Control
from hpcddrl.roles.feeds import Feed
from hpcddrl.roles.rollouts import Batcher
from hpcddrl.roles.sources import Fresh, Kept
from hpcddrl.types import Array, Batch, Rollout, Stage


class Reusing:
    """Fresh batches; in the middle stage, batches drawn from a memory of them between.

    Drawn batches have importance weights and no env steps of their own. Fresh ones count as used or dropped, as without
    a memory; what is drawn again counts as replayed beside.

    Args:
        feed: of rollouts.
        batcher: makes a batch of them.
        kept: see `Fresh`.
        memory: of rollouts.
        again: makes a batch of drawn ones.
        count: rollouts of an environment in a drawn batch.
        config: of the memory.
        control: of this rank.
    """

    def __init__(
        self,
        feed: Feed,
        batcher: Batcher,
        kept: Kept,
        memory: RolloutMemory,
        again: Batcher,
        count: int,
        config: RolloutReplay,
        control: Control,
    ) -> None:
        self._fresh = Fresh(feed, batcher, kept, control, self._look)
        self._memory, self._again, self._count, self._config, self._control = memory, again, count, config, control
        self._running = False
        self._owed = 0.0  # drawn batches
        self._slots: list[Array] = []  # of the last fresh batch's rollouts
        self._drawn: Drawn | None = None  # the last batch, if it was
        self._samples = 0
        self._stale = 0

    def get(self, version: int) -> Batch:
        """See `Source`."""
        self._switch(version)
        self._drawn = None
        if self._running and self._owed >= 1 and self._enough(version):
            return self._draw()
        self._slots = []
        return self._fresh.get(version)

    def feedback(self, errors: Array | None, learned: bool) -> None:
        """See `Source`."""
        assert errors is not None, "what is drawn by its errors has some"
        if self._drawn is not None:
            self._memory.learned(self._drawn.slots, errors)
            self._control.counters.replayed += self._samples
            return
        self._fresh.feedback(errors, learned)
        if not self._slots:
            return
        slots = np.concatenate(self._slots)
        if learned:
            self._memory.learned(slots, errors)
            self._owed += self._config.replay_ratio
        else:
            self._memory.remove(slots)

    def end(self) -> Ending:
        """See `Source`."""
        return self._fresh.end()

    def _look(self, rollouts: list[Rollout]) -> None:
        if self._running:
            self._slots = [self._memory.insert(rollout) for rollout in rollouts]

    def _switch(self, version: int) -> None:
        """Begin or end with the stage."""
        stage = self._control.stage
        if self._running != (stage is Stage.MIDDLE):
            self._running = not self._running
            self._control.helper("rollout_replay", self._running, f"{stage.name.lower()} stage", version)

    def _enough(self, version: int) -> bool:
        """Drop what is too stale; say whether there are as many rollouts as are drawn."""
        self._stale += self._memory.drop_before(version - self._config.max_lag)
        there = len(self._memory)
        self._control.learned({"replay_stale_max": float(self._stale), "replay_kept": float(there)}, np.empty(0))
        if there < self._count:
            self._owed = 0.0
        return there >= self._count

    def _draw(self) -> Batch:
        with self._control.timing(Phase.BATCH):
            self._owed -= 1
            self._drawn = drawn = self._memory.draw(self._count)
            batch = self._again([drawn.rollout])._replace(steps=0)
            weight = to_device(torch.from_numpy(drawn.weight), batch.valid.device)
        self._samples = batch.samples
        return batch._replace(weight=weight)
