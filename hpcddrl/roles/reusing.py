"""Batches of rollouts that were learned from before, between fresh ones."""

from __future__ import annotations

import numpy as np
import torch

from hpcddrl.comm.channel import Ending
from hpcddrl.config import RolloutReplay
from hpcddrl.logs.timing import Phase
from hpcddrl.networks.device import to_device
from hpcddrl.replay.rollout_hindsight import RolloutHindsight
from hpcddrl.replay.rollouts import Drawn
from hpcddrl.roles.control import Control
from hpcddrl.roles.feeds import Feed
from hpcddrl.roles.memories import Memory
from hpcddrl.roles.rollouts import Batcher
from hpcddrl.roles.sources import Fresh, Kept
from hpcddrl.types import Array, Batch, Rollout, Stage, State


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
        config: of the memory.
        control: of this rank.
        hindsight: gives drawn ones other goals.
    """

    def __init__(
        self,
        feed: Feed,
        batcher: Batcher,
        kept: Kept,
        memory: Memory,
        again: Batcher,
        config: RolloutReplay,
        control: Control,
        hindsight: RolloutHindsight | None = None,
    ) -> None:
        self._hindsight = hindsight
        self._fresh = Fresh(feed, batcher, kept, control, self._look)
        self._memory, self._again, self._config, self._control = memory, again, config, control
        self._running = False
        self._owed = 0.0  # drawn batches
        self._drawn: Drawn | None = None  # the last batch, if it was
        self._own = np.empty(0, bool)  # of its rollouts, those with the goals that they were acted with
        self._samples = 0

    def state(self) -> State:
        """See `Stateful`."""
        return self._memory.state() | {"owed": self._owed}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self._memory.restore(state)
        self._owed = float(state["owed"])

    def get(self, version: int) -> Batch:
        """See `Source`."""
        self._switch(version)
        self._drawn = self._draw(version) if self._running and self._owed >= 1 else None
        return self._fresh.get(version) if self._drawn is None else self._batch(self._drawn)

    def feedback(self, errors: Array | None, learned: bool) -> None:
        """See `Source`."""
        assert errors is not None, "what is drawn by its errors has some"
        if self._drawn is not None:
            # How wrong the value is about another goal says nothing of the rollout's own.
            self._memory.redrawn(self._drawn, errors, self._own)
            self._control.counters.replayed += self._samples
            return
        self._fresh.feedback(errors, learned)
        if learned and self._running:
            self._memory.learned(errors)
            self._owed += self._config.replay_ratio

    def end(self) -> Ending:
        """See `Source`."""
        return self._fresh.end().joined(self._memory.end())

    def _look(self, rollouts: list[Rollout]) -> None:
        if self._running:
            self._memory.keep(rollouts)

    def _switch(self, version: int) -> None:
        """Begin or end with the stage."""
        stage = self._control.stage
        if self._running != (stage is Stage.MIDDLE):
            self._running = not self._running
            self._control.helper("rollout_replay", self._running, f"{stage.name.lower()} stage", version)

    def _draw(self, version: int) -> Drawn | None:
        """Return rollouts of the memory, if it gives any; if not, no batch of them is owed any more."""
        with self._control.timing(Phase.BATCH):
            drawn = self._memory.draw(version)
        known = {"replay_stale_max": float(self._memory.stale), "replay_kept": float(self._memory.kept)}
        self._control.learned(known, np.empty(0))
        self._owed = 0.0 if drawn is None else self._owed - 1
        return drawn

    def _batch(self, drawn: Drawn) -> Batch:
        with self._control.timing(Phase.BATCH):
            self._own = np.ones(len(drawn.keys), bool)
            learned = None
            if self._hindsight is not None:
                _, learned, self._own = self._hindsight(drawn.rollout, self._memory.generator)
            batch = self._again([drawn.rollout])._replace(steps=0)
            weight = to_device(torch.from_numpy(drawn.weight), batch.valid.device)
            if learned is not None:
                batch = batch._replace(valid=batch.valid * to_device(torch.from_numpy(learned), batch.valid.device))
        self._samples = batch.samples
        return batch._replace(weight=weight)
