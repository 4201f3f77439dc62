"""What an answer costs, whatever the machine."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hpcddrl.compressors.binary import BinaryLayer
from hpcddrl.compressors.layers import weighted
from hpcddrl.networks.flat import size
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.types import EnvSpec


class Cost(NamedTuple):
    """What one observation costs."""

    parameters: int
    macs: int  # multiply-accumulates
    binary_macs: int  # of one bit each: an XNOR and a count


def cost_of(network: AnyNetwork, spec: EnvSpec) -> Cost:
    """Count a network's parameters and multiply-accumulates per observation (biases and activations not)."""
    macs = {False: 0, True: 0}

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d | nn.Linear)
        macs[isinstance(module, BinaryLayer)] += output.numel() // len(module.weight) * module.weight.numel()

    handles = [module.register_forward_hook(count) for module in weighted(network)]
    with torch.no_grad():
        network(torch.zeros(1, *spec.observation_shape))
    for handle in handles:
        handle.remove()
    return Cost(size(network), macs[False], macs[True])
