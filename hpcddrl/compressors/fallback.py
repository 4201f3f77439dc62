"""Several compressors in order of speed, of which the fastest acts that still answers like its teacher."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from hpcddrl.compressors.compressed import Bytes, Compressor, StandIn
from hpcddrl.config.compression import Trigger
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.types import Output, State

PATIENCE = 3  # times in a row that what was within its bound may be above it: one batch of states may be odd


class OneOf:
    """One of several stand-ins, which one travels with its numbers; a new one is that of the most bytes.

    Args:
        stand_ins: in the same order wherever they act.
    """

    def __init__(self, stand_ins: Sequence[StandIn]) -> None:
        self._stand_ins = list(stand_ins)
        self.current = max(range(len(stand_ins)), key=lambda i: len(stand_ins[i].pack()))

    @property
    def simulated(self) -> bool:
        """See `StandIn`."""
        return self._stand_ins[self.current].simulated

    def __call__(self, observation: Tensor) -> Output:
        """See `StandIn`."""
        return self._stand_ins[self.current](observation)

    def take(self, network: AnyNetwork, states: Tensor) -> None:
        """See `StandIn`."""
        self._stand_ins[self.current].take(network, states)

    def pack(self) -> Bytes:
        """See `StandIn`."""
        return np.concatenate([np.array([self.current], np.uint8), self._stand_ins[self.current].pack()])

    def unpack(self, data: Bytes) -> None:
        """See `StandIn`."""
        self.current = int(data[0])
        self._stand_ins[self.current].unpack(data[1:])

    def tune(self, observation: Tensor) -> None:
        """Let each of them choose."""
        for stand_in in self._stand_ins:
            stand_in.tune(observation)


class Fallback:
    """Compresses as the first of several compressors does, and as the next when that is no longer like its teacher.

    Args:
        compressors: the fastest first; the last one's answers are never judged.
        kl_bound: greatest mean KL(teacher ‖ stand-in) after following, in nats.
    """

    def __init__(self, compressors: Sequence[Compressor], kl_bound: float) -> None:
        self._compressors, self._kl_bound = list(compressors), kl_bound
        self.stand_in = OneOf([c.stand_in for c in compressors])
        self.choice = self._above = 0

    @property
    def trigger(self) -> Trigger:
        """See `Compressor`."""
        return self._compressors[self.choice].trigger

    @property
    def beside(self) -> bool:
        """See `Compressor`."""
        return self._compressors[self.choice].beside

    def learn(self, teacher: AnyNetwork, states: Tensor) -> int:
        """See `Compressor`."""
        return self._compressors[self.choice].learn(teacher, states)

    def take(self, states: Tensor) -> None:
        """See `Compressor`."""
        self.stand_in.current = self.choice
        self._compressors[self.choice].take(states)

    def accepts(self, kl: float) -> bool:
        """Say whether the stand-in may go on acting with this KL after following; else the next is to follow.

        With NaN none may, and one that has just come in another's place only within the bound.
        """
        self._above = 0 if kl <= self._kl_bound else self._above + 1
        if self.choice == len(self._compressors) - 1 or (self._above < PATIENCE and not math.isnan(kl)):
            return True
        self.choice, self._above = self.choice + 1, PATIENCE - 1
        return False

    def state(self) -> State:
        """See `Stateful`: of all compressors, since the choice may come to each."""
        shapes = [c.shape.state() for c in self._compressors]
        return {"choice": self.choice, "above": self._above, "shapes": shapes, "acts": self.stand_in.pack()}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self.choice, self._above = state["choice"], state["above"]
        for compressor, shape in zip(self._compressors, state["shapes"], strict=True):
            compressor.shape.restore(shape)
        self.stand_in.unpack(state["acts"])
