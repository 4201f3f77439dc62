"""Networks that only answer: their weights stand in the format that they are computed with."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from hpcddrl.networks.encoding import Precision
from hpcddrl.networks.make import AnyNetwork


def held(network: AnyNetwork, precision: Precision) -> AnyNetwork:
    """Return a copy of a network that computes with ``precision`` and cannot learn.

    Its answers are the same, but nothing is cast or reordered for each of them: the torso's weights are kept as they
    are computed with. The heads stay float32, as ever.
    """
    made = copy.deepcopy(network).requires_grad_(False)
    made.precision = precision
    if precision.name == "bf16":
        made.torso.to(torch.bfloat16)
    if precision.channels_last:
        made.torso.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return made


def fill(network: torch.nn.Module, values: Tensor) -> None:
    """Copy a vector [P] f32 of all parameters, in `parameters()` order, into a network of whatever format."""
    parameters = list(network.parameters())
    parts = torch.split(values, [p.numel() for p in parameters])
    with torch.no_grad():
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.copy_(part.view(parameter.shape))
