"""A network whose torso is stored, sent and computed in 8-bit integers."""

from __future__ import annotations

import torch
from torch import Tensor

from hpcddrl.compressors.compressed import Bytes, as_bytes, few, from_bytes, scaled
from hpcddrl.compressors.int8_ops import integer_ops
from hpcddrl.compressors.quantization import PIXELS, Grid, grid_of, to_grid
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.types import Output


class Int8StandIn:
    """Weights and activations of the torso as integers; the heads, a thousandth of the work, stay in float32.

    Args:
        network: gives the shape; becomes the stand-in's own.
        states: observations, at most, that the activations' ranges are measured on.
    """

    simulated = False

    def __init__(self, network: AnyNetwork, states: int) -> None:
        self._network, self._states = network, states
        self._ops = integer_ops(network.torso)
        self._input = torch.tensor(PIXELS)
        self._prepare()

    def __call__(self, observation: Tensor) -> Output:
        """See `StandIn`."""
        q = observation if observation.dtype == torch.uint8 else to_grid(observation, self._grid)
        q = q.contiguous(memory_format=torch.channels_last) if q.dim() == 4 else q
        for op in self._ops:
            q = op(q)
        return self._network.answer(q)

    def take(self, network: AnyNetwork, states: Tensor) -> None:
        """See `StandIn`."""
        self._network.load_state_dict(network.state_dict())
        x = scaled(few(states, self._states, "compression.format.kind = 'int8'"))
        if states.dtype != torch.uint8:
            self._input = torch.tensor(grid_of(float(x.min()), float(x.max())))
        with torch.no_grad():
            for op in self._ops:
                x = op.calibrate(x)
        self._prepare()

    def pack(self) -> Bytes:
        """See `StandIn`."""
        return as_bytes(self._numbers())

    def unpack(self, data: Bytes) -> None:
        """See `StandIn`."""
        from_bytes(data, self._numbers())
        self._prepare()

    def tune(self, observation: Tensor) -> None:
        """See `StandIn`; there is no choice."""

    @property
    def _grid(self) -> Grid:
        return Grid(float(self._input[0]), int(self._input[1]))

    def _numbers(self) -> list[Tensor]:
        torso = {id(p) for p in self._network.torso.parameters()}
        heads = [p for p in self._network.parameters() if id(p) not in torso]
        return [self._input, *(n for op in self._ops for n in op.numbers()), *heads]

    def _prepare(self) -> None:
        grid = self._grid
        for op in self._ops:
            grid = op.prepare(grid)
