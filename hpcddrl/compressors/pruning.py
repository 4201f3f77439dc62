"""Magnitude pruning (Han et al. 2015, arXiv:1506.02626): small weights become 0 and stay so while the rest learns on.

Dense kernels multiply zeros as fast as anything else, so this saves bytes, not time.
"""

from __future__ import annotations

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


class Magnitude:
    """A teacher's weights without the smallest, of each layer alike, distilled between the rounds and from then on.

    Args:
        network: of the teacher's shape.
        sparsity: the part of each layer's weights that is 0 in the end.
        rounds: in how many steps it is reached.
        distiller: of the network.
    """

    def __init__(self, network: AnyNetwork, sparsity: float, rounds: int, distiller: Distiller) -> None:
        self.network, self._sparsity, self._rounds, self._distiller = network, sparsity, rounds, distiller
        self._masks: list[Tensor] = []

    def follow(self, teacher: AnyNetwork, states: Tensor) -> int:
        """See `Shape`; the first time it drops weights in rounds, after that it only learns."""
        if self._masks:
            return self._distiller.follow(teacher, states, self.constrain)
        self.network.load_state_dict(teacher.state_dict())
        steps = 0
        for done in range(1, self._rounds + 1):
            part = sparsity_after(done, self._rounds, self._sparsity)
            self._masks = [mask_of(layer.weight, part) for layer in weighted(self.network)]
            self.constrain()
            steps += self._distiller.follow(teacher, states, self.constrain)
        return steps

    def state(self) -> State:
        """See `Shape`."""
        return {"masks": self._masks, "distiller": self._distiller.state()}

    def restore(self, state: State) -> None:
        """See `Shape`."""
        self._masks = [mask.clone() for mask in state["masks"]]
        self._distiller.restore(state["distiller"])

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
