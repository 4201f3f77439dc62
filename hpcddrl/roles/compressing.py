"""What a learner publishes instead of its weights: a cheaper network that follows them."""

from __future__ import annotations

import math
import time

import torch

from hpcddrl.compressors.compressed import Bytes, Compressor
from hpcddrl.compressors.distillation import JUDGED, Likeness, answers
from hpcddrl.config.compression import EveryUpdates, Trigger
from hpcddrl.logs.timing import Phase
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.rl.distillation import Drift, is_due
from hpcddrl.roles.control import Control
from hpcddrl.types import Batch, Transitions, Weights

BATCHES = 4  # that the recent observations come from, at least
AT_EACH_PUBLICATION = EveryUpdates(updates=1)  # of networks with no weights of their own
LOOK_EVERY = 50  # updates between two rows in the log about what has no weights of its own


class Recent:
    """The observations that were learned from last, some of each batch.

    Args:
        first: observations [N, *observation_shape] to begin with.
        most: observations to keep.
    """

    def __init__(self, first: torch.Tensor, most: int) -> None:
        self._kept, self._most, self._next = first[:most].clone(), most, 0

    def add(self, batch: Batch | Transitions) -> None:
        """Take some of a batch's observations, evenly, for the oldest."""
        found = batch.observation.flatten(0, 2) if isinstance(batch, Batch) else batch.observation
        share = max(1, self._most // BATCHES)
        found = found[:: -(-len(found) // share)]
        room = self._most - len(self._kept)
        self._kept = torch.cat([self._kept, found[:room]])
        for part in torch.split(found[room:], self._most):
            self._overwrite(part)

    def all(self) -> torch.Tensor:
        """Return them, in no order."""
        return self._kept

    def newest(self, count: int) -> torch.Tensor:
        """Return those that came last."""
        return self._kept[[(self._next - 1 - i) % len(self._kept) for i in range(min(count, len(self._kept)))]]

    def _overwrite(self, observation: torch.Tensor) -> None:
        rows = (self._next + torch.arange(len(observation))) % self._most
        self._kept[rows] = observation
        self._next = (self._next + len(observation)) % self._most


class Compressing:
    """Packs a stand-in for the weights being learned, which follows them when it is time to.

    What is published is of the version that it last followed, so a student that lags is seen as lag.

    Args:
        compressor: makes the stand-in.
        teacher: the network being learned.
        trigger: when to follow; None: at each publication.
        recent: what to follow on.
        likeness: how far the stand-in's answers are from the teacher's.
        control: of this rank.
    """

    def __init__(
        self,
        compressor: Compressor,
        teacher: AnyNetwork,
        trigger: Trigger | None,
        recent: Recent,
        likeness: Likeness,
        control: Control,
    ) -> None:
        self._compressor, self._teacher, self._trigger = compressor, teacher, trigger or AT_EACH_PUBLICATION
        self._recent, self._likeness, self._control = recent, likeness, control
        self._packed = compressor.stand_in.pack()
        self.nbytes = len(self._packed)
        self._version = self._looked = -1
        self._started = time.perf_counter()
        self._spent_s = self._last_s = 0.0

    def see(self, batch: Batch | Transitions) -> None:
        """See `Packing`."""
        with self._control.timing(Phase.COMPRESS):
            self._recent.add(batch)

    def renew(self, weights: Weights) -> int:
        """See `Packing`."""
        with self._control.timing(Phase.COMPRESS):
            drift = Drift(
                updates=weights.version - self._version,
                unseen=weights.version - self._looked,
                kl=lambda: self._kl(weights.version),
                spent_s=self._spent_s,
                last_s=self._last_s,
                elapsed_s=time.perf_counter() - self._started,
            )
            if self._version < 0 or is_due(self._trigger, drift):
                self._follow(weights.version)
        return self._version

    def pack(self) -> Bytes:
        """See `Packing`."""
        return self._packed

    def _kl(self, version: int) -> float:
        self._looked = version
        states = self._recent.newest(JUDGED)
        wanted, given = answers(self._teacher, states), answers(self._compressor.stand_in, states)
        return float(self._likeness.kl(wanted, given).mean())

    def _follow(self, version: int) -> None:
        start = time.perf_counter()
        looks = self._trigger is not AT_EACH_PUBLICATION or version - self._looked >= LOOK_EVERY
        before = self._kl(version) if looks and self._version >= 0 else math.nan
        followed = self._compressor.follow(self._teacher, self._recent.all())
        self._packed = self._compressor.stand_in.pack()
        after = self._kl(version) if looks else math.nan
        self._last_s = time.perf_counter() - start
        self._spent_s += self._last_s
        if looks:
            self._control.note(
                "compression",
                version=version,
                updates=version - max(0, self._version),
                kl_before=before,
                kl_after=after,
                steps=followed.steps,
                seconds=self._last_s,
                bytes=len(self._packed),
            )
        self._version = version
