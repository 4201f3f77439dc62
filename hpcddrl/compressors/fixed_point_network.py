"""A network with the accuracy of fixed-point arithmetic, computed with floats that hold exactly its numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from hpcddrl.compressors.compressed import Bytes, as_bytes, few, from_bytes
from hpcddrl.compressors.fixed_point import (
    Q,
    best_format,
    bit_widths,
    fixed,
    integers,
    noise,
    packed_bits,
    unpacked_bits,
)
from hpcddrl.compressors.layers import Weighted, weighted
from hpcddrl.config.compression import FixedPoint
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.types import Output

Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]
SAMPLE = 10_000  # weights of a layer, at most, that its noise is measured on


class FixedPointStandIn:
    """Weights with a width for each layer, outputs of the torso's layers with one width; biases stay float32.

    Args:
        network: gives the shape; becomes the stand-in's own.
        config: widths, and the noise allowed.
    """

    simulated = True

    def __init__(self, network: AnyNetwork, config: FixedPoint) -> None:
        self._network, self._config = network, config
        self._layers = list(weighted(network))
        self._inner = list(weighted(network.torso))
        self._weights = [best_format(layer.weight, config.most_bits) for layer in self._layers]
        self._outputs = [Q(config.activation_bits, 0) for _ in self._inner]
        self._rounds = False
        for index, layer in enumerate(self._inner):
            layer.register_forward_hook(self._hook(index))

    @property
    def widths(self) -> list[int]:
        """Return the bits of each layer's weights, heads last."""
        return [q.bits for q in self._weights]

    def __call__(self, observation: Tensor) -> Output:
        """See `StandIn`."""
        self._rounds = True
        output: Output = self._network(observation)
        return output

    def take(self, network: AnyNetwork, states: Tensor) -> None:
        """See `StandIn`."""
        states = few(states, self._config.states, "compression.format.kind = 'fixed_point'")
        self._network.load_state_dict(network.state_dict())
        budget = 10 ** (-self._config.sqnr_db / 10)
        noises = [self._noises(layer) for layer in self._layers]
        widths = bit_widths([la.weight.numel() for la in self._layers], noises, self._config.least_bits, budget)
        self._weights = [best_format(layer.weight, bits) for layer, bits in zip(self._layers, widths, strict=True)]
        with torch.no_grad():
            for layer, q in zip(self._layers, self._weights, strict=True):
                layer.weight.copy_(fixed(layer.weight, q))
            self._rounds = False
            self._network(states)  # the hooks choose the outputs' formats

    def pack(self) -> Bytes:
        """See `StandIn`; each layer's formats come first."""
        header = np.array([*self._weights, *self._outputs], np.int8).view(np.uint8).flatten()
        weights = [
            packed_bits(integers(layer.weight, q).flatten(), q.bits)
            for layer, q in zip(self._layers, self._weights, strict=True)
        ]
        return np.concatenate([header, *weights, as_bytes(self._floats())])

    def unpack(self, data: Bytes) -> None:
        """See `StandIn`."""
        offset = 2 * (len(self._weights) + len(self._outputs))
        formats = [Q(int(bits), int(fraction)) for bits, fraction in data[:offset].view(np.int8).reshape(-1, 2)]
        self._weights, self._outputs = formats[: len(self._layers)], formats[len(self._layers) :]
        with torch.no_grad():
            for layer, q in zip(self._layers, self._weights, strict=True):
                end = offset + -(-q.bits * layer.weight.numel() // 8)
                values = unpacked_bits(data[offset:end], q.bits, layer.weight.numel()).view(layer.weight.shape)
                layer.weight.copy_(torch.ldexp(values.double(), torch.tensor(-q.fraction)))
                offset = end
        from_bytes(data[offset:], self._floats())

    def tune(self, observation: Tensor) -> None:
        """See `StandIn`; there is no choice."""

    def _hook(self, index: int) -> Hook:
        def round_output(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if not self._rounds:
                self._outputs[index] = best_format(output, self._config.activation_bits)
            return fixed(output, self._outputs[index])

        return round_output

    def _noises(self, layer: Weighted) -> list[float]:
        """Return a layer's noise at each width that is allowed."""
        weights = layer.weight.detach().flatten()
        sample = weights[:: -(-len(weights) // SAMPLE)]
        widths = range(self._config.least_bits, self._config.most_bits + 1)
        return [noise(sample, best_format(sample, bits)) for bits in widths]

    def _floats(self) -> list[Tensor]:
        weights = {id(layer.weight) for layer in self._layers}
        return [p for p in self._network.parameters() if id(p) not in weights]
