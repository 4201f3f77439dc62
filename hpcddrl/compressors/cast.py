"""A network with floats of 32 or 16 bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from hpcddrl.compressors.compressed import Bytes, as_bytes, from_bytes
from hpcddrl.networks.encoding import Precision, as_input
from hpcddrl.networks.held import held
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.networks.precision import choose_precision, shortest_calls
from hpcddrl.types import EnvSpec, Output


class Float32StandIn:
    """The network as it is; published, it is its parameters in `parameters()` order, as uncompressed ones are.

    Args:
        network: answers, and holds the parameters.
        spec: the environment's.
        precision: that it may compute in; auto computes in fp32 until it is tuned.
    """

    simulated = False

    def __init__(self, network: AnyNetwork, spec: EnvSpec, precision: Literal["auto", "fp32", "bf16"] = "auto") -> None:
        self._network, self._spec, self._wanted = network, spec, precision
        network.precision = Precision("bf16" if precision == "bf16" else "fp32")
        self._answers = network  # or a copy in the format that it computes with

    def __call__(self, observation: Tensor) -> Output:
        """See `StandIn`."""
        output: Output = self._answers(observation)
        return output

    def take(self, network: AnyNetwork, states: Tensor) -> None:
        """See `StandIn`."""
        self._network.load_state_dict(network.state_dict())
        self._renew()

    def pack(self) -> Bytes:
        """See `StandIn`."""
        return as_bytes(self._network.parameters())

    def unpack(self, data: Bytes) -> None:
        """See `StandIn`."""
        from_bytes(data, self._network.parameters())
        self._renew()

    def tune(self, observation: Tensor) -> None:
        """Choose among fp32 and bf16 arithmetic as far as it may, channels last or not, and hold the weights so."""
        precision, _ = choose_precision(self._network, self._spec, self._wanted, len(observation), trains=False)
        self._answers = held(self._network, precision)

    def _renew(self) -> None:
        if self._answers is not self._network:
            with torch.no_grad():
                for own, given in zip(self._answers.parameters(), self._network.parameters(), strict=True):
                    own.copy_(given)


class CastStandIn:
    """The network with 16-bit weights, whose torso computes with them; the heads compute in float32.

    Args:
        network: gives the shape; becomes the stand-in's own.
        dtype: bfloat16 or float16.
    """

    simulated = False

    def __init__(self, network: AnyNetwork, dtype: torch.dtype) -> None:
        self._network, self._dtype = network, dtype
        self._layout = torch.contiguous_format
        self.take(network, torch.empty(0))

    def __call__(self, observation: Tensor) -> Output:
        """See `StandIn`."""
        x = as_input(observation, self._dtype, channels_last=self._layout is torch.channels_last)
        features = self._network.torso(x)
        return self._network.answer(features.float())

    def take(self, network: AnyNetwork, states: Tensor) -> None:
        """See `StandIn`."""
        self._network.torso.to(self._dtype)
        with torch.no_grad():
            for own, given in zip(self._network.parameters(), network.parameters(), strict=True):
                own.copy_(given.to(self._dtype))

    def pack(self) -> Bytes:
        """See `StandIn`."""
        return as_bytes(p.to(self._dtype) for p in self._network.parameters())

    def unpack(self, data: Bytes) -> None:
        """See `StandIn`."""
        numbers = [torch.empty(p.shape, dtype=self._dtype) for p in self._network.parameters()]
        from_bytes(data, numbers)
        with torch.no_grad():
            for own, given in zip(self._network.parameters(), numbers, strict=True):
                own.copy_(given)

    def tune(self, observation: Tensor) -> None:
        """Choose between channels first and channels last."""
        if observation.dim() == 4:
            calls = dict.fromkeys((torch.contiguous_format, torch.channels_last), self._pass(observation))
            shortest = shortest_calls(calls, seconds=0.05, prepare=self.lay_out)
            self.lay_out(min(shortest, key=lambda layout: shortest[layout]))

    def lay_out(self, layout: torch.memory_format) -> None:
        """Keep the torso's weights so, and observations likewise."""
        self._layout = layout
        self._network.torso.to(memory_format=layout)  # type: ignore[call-overload]

    def _pass(self, observation: Tensor) -> Callable[[], object]:
        def once() -> None:
            with torch.no_grad():
                self(observation)

        return once
