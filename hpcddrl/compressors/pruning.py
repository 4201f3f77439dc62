"""Magnitude pruning (Han et al. 2015, arXiv:1506.02626): small weights become 0 and stay so while the rest learns on.

Han et al. prune a network that has learned. Here the teacher learns on, and at first has learned nothing: that it is
pruned anew as it goes, which holds for channels too, is ours.

Dense kernels multiply zeros as fast as anything else, so this saves bytes, not time.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from typing import Self

import numpy as np
import torch
from torch import Tensor

from hpcddrl.compressors.compressed import Bytes, as_bytes, from_bytes
from hpcddrl.compressors.distillation import Distiller
from hpcddrl.compressors.layers import weighted
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.types import Output, State


def mask_of(weight: Tensor, sparsity: float) -> Tensor:
    """Return a mask [like weight] bool that drops that part of the weights, the smallest first."""
    dropped = dropped_of(weight.numel(), sparsity)
    mask = torch.ones(weight.numel(), dtype=torch.bool)
    mask[weight.detach().abs().flatten().topk(dropped, largest=False).indices] = False
    return mask.view(weight.shape)


def dropped_of(count: int, sparsity: float) -> int:
    """Return how many of so many weights are dropped."""
    return round(count * sparsity)


def sparsity_after(rounds_done: int, rounds: int, sparsity: float) -> float:
    """Return the part dropped after some rounds, each of which drops the same part of what it finds."""
    return float(1 - (1 - sparsity) ** (rounds_done / rounds))


class Pruned(ABC):
    """What is left of a teacher's network, distilled from then on, and pruned anew as the teacher learns.

    The first follow prunes. The 2nd, 4th, 8th, … also prune the teacher as it is by then, distil what is left of it in
    the same way, and keep the one of both whose mean KL(teacher ‖ pruned) on the states is less.

    Args:
        network: what is left.
        distiller: of it.
    """

    def __init__(self, network: AnyNetwork, distiller: Distiller) -> None:
        self.network, self._distiller = network, distiller
        self._follows = 0

    def follow(self, teacher: AnyNetwork, states: Tensor) -> int:
        """See `Shape`."""
        self._follows += 1
        if self._follows == 1:
            return self.prune(teacher, states)
        steps = self.distil(teacher, states)
        if self._follows.bit_count() > 1:  # no power of two
            return steps
        other = self.another(copy.deepcopy(self.network))
        steps += other.follow(teacher, states)
        own_kl, other_kl = (pruned._distiller.kl(teacher, states) for pruned in (self, other))
        if other_kl < own_kl or math.isnan(own_kl):
            self.restore(other.state() | {"follows": self._follows})
        return steps

    @abstractmethod
    def prune(self, teacher: AnyNetwork, states: Tensor) -> int:
        """Take over what is left of a teacher and distil it; return the steps that it took."""

    @abstractmethod
    def distil(self, teacher: AnyNetwork, states: Tensor) -> int:
        """Come closer to the teacher's answers without a change in what is left; return the steps that it took."""

    @abstractmethod
    def another(self, network: AnyNetwork) -> Self:
        """Return one like this that has followed nothing yet, with another network."""

    def state(self) -> State:
        """See `Shape`."""
        return {"follows": self._follows, "distiller": self._distiller.state()}

    def restore(self, state: State) -> None:
        """See `Shape`."""
        self._follows = state["follows"]
        self._distiller.restore(state["distiller"])


class Magnitude(Pruned):
    """A teacher's weights without the smallest, of each layer alike, distilled between the rounds; see `Pruned`.

    Args:
        network: of the teacher's shape.
        sparsity: the part of each layer's weights that is 0 in the end.
        rounds: in how many steps it is reached.
        distiller: of the network.
    """

    def __init__(self, network: AnyNetwork, sparsity: float, rounds: int, distiller: Distiller) -> None:
        super().__init__(network, distiller)
        self._sparsity, self._rounds = sparsity, rounds
        self._masks: list[Tensor] = []

    def prune(self, teacher: AnyNetwork, states: Tensor) -> int:
        """See `Pruned`; weights are dropped in rounds."""
        self.network.load_state_dict(teacher.state_dict())
        steps = 0
        for done in range(1, self._rounds + 1):
            part = sparsity_after(done, self._rounds, self._sparsity)
            self._masks = [mask_of(layer.weight, part) for layer in weighted(self.network)]
            self.constrain()
            steps += self.distil(teacher, states)
        return steps

    def distil(self, teacher: AnyNetwork, states: Tensor) -> int:
        """See `Pruned`; zeros stay zeros."""
        return self._distiller.follow(teacher, states, self.constrain)

    def another(self, network: AnyNetwork) -> Magnitude:
        """See `Pruned`."""
        return Magnitude(network, self._sparsity, self._rounds, self._distiller.of_another(network))

    def state(self) -> State:
        """See `Shape`."""
        return super().state() | {"masks": self._masks}

    def restore(self, state: State) -> None:
        """See `Shape`."""
        super().restore(state)
        self._masks = [mask.clone() for mask in state["masks"]]

    def constrain(self) -> None:
        """Put the dropped weights back to 0."""
        with torch.no_grad():
            for layer, mask in zip(weighted(self.network), self._masks, strict=True):
                layer.weight.mul_(mask)


class SparseStandIn:
    """A network with zeros, published as one bit a weight and the numbers that are not 0.

    Args:
        network: gives the shape; becomes the stand-in's own.
        sparsity: the part of each layer's weights that is 0.
    """

    simulated = True

    def __init__(self, network: AnyNetwork, sparsity: float) -> None:
        self._network, self._sparsity = network, sparsity

    def __call__(self, observation: Tensor) -> Output:
        """See `StandIn`."""
        output: Output = self._network(observation)
        return output

    def take(self, network: AnyNetwork, states: Tensor) -> None:
        """See `StandIn`."""
        self._network.load_state_dict(network.state_dict())

    def pack(self) -> Bytes:
        """See `StandIn`; a kept weight may be 0 by chance, so the kept ones are the largest, not those above 0."""
        masks = [mask_of(layer.weight, self._sparsity).flatten() for layer in weighted(self._network)]
        kept = [layer.weight.flatten()[m] for layer, m in zip(weighted(self._network), masks, strict=True)]
        bits = [np.packbits(m.numpy()) for m in masks]
        return np.concatenate([*bits, as_bytes([*kept, *self._others()])])

    def unpack(self, data: Bytes) -> None:
        """See `StandIn`."""
        masks, offset = [], 0
        for layer in weighted(self._network):
            count = layer.weight.numel()
            end = offset + -(-count // 8)
            masks.append(torch.from_numpy(np.unpackbits(data[offset:end], count=count)).bool())
            offset = end
        kept = [torch.empty(int(mask.sum())) for mask in masks]
        from_bytes(data[offset:], [*kept, *self._others()])
        with torch.no_grad():
            for layer, mask, values in zip(weighted(self._network), masks, kept, strict=True):
                layer.weight.copy_(torch.zeros(mask.numel()).masked_scatter(mask, values).view_as(layer.weight))

    def tune(self, observation: Tensor) -> None:
        """See `StandIn`; there is no choice."""

    def _others(self) -> list[Tensor]:
        """Return the parameters that are never dropped: biases, and a Gaussian policy's deviations."""
        weights = {id(layer.weight) for layer in weighted(self._network)}
        return [p for p in self._network.parameters() if id(p) not in weights]
