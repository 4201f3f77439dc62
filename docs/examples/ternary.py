"""A compressor of one's own: every weight is −a, 0 or a, and travels in two bits.

A compressor has two sides (`hpcddrl/compressors/compressed.py`): a *shape*, the float network that is kept like the
teacher, and a *stand-in*, what is published of it: bytes that travel, and a network that answers. Here the shape is any
(`Whole`: the teacher itself, or `Student`: a smaller one that learns from it), and the stand-in is this:

    Compressor(Whole(blueprint.build()), TernaryStandIn(blueprint.build()))

Of each matrix, what is smaller than 0.7 of the mean magnitude becomes 0, and a is the mean magnitude of the rest (after
Li et al. 2016, arXiv:1605.04711). It computes with floats, so it saves messages and no time, and says so: `simulated`.

To make it an answer that --set knows: a frozen dataclass with its own ``kind`` among the formats of
`hpcddrl/config/compression.py`, and one ``case`` in `make_stand_in` of `hpcddrl/compressors/make.py`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hpcddrl.compressors.compressed import Bytes, as_bytes, from_bytes
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.types import Output

SMALL = 0.7  # of the mean magnitude; less is 0


def ternary(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the signs −1, 0, 1 of a weight, as they are kept, and the magnitude a [1] of all that are not 0."""
    signs = torch.sign(weight) * (weight.abs() >= SMALL * weight.abs().mean())
    kept = signs != 0
    scale = weight.abs()[kept].mean() if kept.any() else torch.zeros(())
    return signs, scale.reshape(1)


class TernaryStandIn:
    """A network whose matrices are ternary; has the interface of `hpcddrl.compressors.compressed.StandIn`.

    Args:
        network: gives the shape; becomes the stand-in's own.
    """

    simulated = True

    def __init__(self, network: AnyNetwork) -> None:
        self._network = network
        self._matrices = [p for p in network.parameters() if p.dim() > 1]
        self._others = [p for p in network.parameters() if p.dim() == 1]  # biases, a Gaussian policy's deviations
        self.take(network, torch.empty(0))

    def __call__(self, observation: Tensor) -> Output:
        """Return policy and value of observations [N, *observation_shape]."""
        output: Output = self._network(observation)
        return output

    def take(self, network: AnyNetwork, states: Tensor) -> None:
        """Take over a float network's numbers; no states are needed."""
        with torch.no_grad():
            self._network.load_state_dict(network.state_dict())
            for matrix in self._matrices:
                signs, scale = ternary(matrix)
                matrix.copy_(signs * scale)

    def pack(self) -> Bytes:
        """Return four weights a byte, and the rest as it is."""
        codes = np.concatenate([(m.detach().sign() + 1).flatten().numpy().astype(np.uint8) for m in self._matrices])
        four = np.pad(codes, (0, -len(codes) % 4)).reshape(-1, 4)
        scales = [m.detach().abs().max().reshape(1) for m in self._matrices]
        packed = (four << np.array([0, 2, 4, 6], np.uint8)).sum(1, dtype=np.uint8)
        return np.concatenate([packed, as_bytes([*scales, *self._others])])

    def unpack(self, data: Bytes) -> None:
        """Take over the numbers of another that was made alike."""
        count = sum(m.numel() for m in self._matrices)
        codes = (data[: -(-count // 4), None] >> np.array([0, 2, 4, 6], np.uint8)) & 3
        signs = torch.from_numpy(codes.reshape(-1)[:count].astype(np.float32) - 1)
        scales = [torch.empty(1) for _ in self._matrices]
        from_bytes(data[-(-count // 4) :], [*scales, *self._others])
        parts = torch.split(signs, [m.numel() for m in self._matrices])
        with torch.no_grad():
            for matrix, part, scale in zip(self._matrices, parts, scales, strict=True):
                matrix.copy_(part.view_as(matrix) * scale)

    def tune(self, observation: Tensor) -> None:
        """Choose how to compute; there is no choice here."""
