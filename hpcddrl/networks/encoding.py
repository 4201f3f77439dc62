"""Observations to features: how a torso is initialised, and with what precision it computes."""

from __future__ import annotations

import contextlib
import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from hpcddrl.networks.torsos import Residual, torso


class Precision(NamedTuple):
    """How a network computes; its parameters stay float32 either way."""

    name: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = False


def encode(body: nn.Module, observation: Tensor, precision: Precision) -> Tensor:
    """Return a torso's features [N, units] f32 of observations [N, *shape] (pixels are uint8, and scaled to [0, 1])."""
    bf16 = precision.name == "bf16"
    x = as_input(observation, torch.bfloat16 if bf16 else torch.float32, channels_last=precision.channels_last)
    with torch.autocast(x.device.type, torch.bfloat16) if bf16 else contextlib.nullcontext():
        features: Tensor = body(x)
    return features.float()


def as_input(observation: Tensor, dtype: torch.dtype, *, channels_last: bool) -> Tensor:
    """Return observations [N, *shape] as a torso takes them: in its format, pixels scaled to [0, 1]."""
    x = observation.to(dtype)
    if observation.dtype == torch.uint8:
        x *= 1 / 255  # of a copy, since no torso computes with uint8
    if channels_last and x.dim() == 4:
        return x.contiguous(memory_format=torch.channels_last)  # in one step with the cast it takes twice as long
    return x


def initialised_torso(name: str, shape: tuple[int, ...], width: float) -> tuple[nn.Module, int]:
    """Return a torso and the number of its features.

    Orthogonal with gain √2; residual blocks start as the identity (Goyal et al. 2017, section 5.1), since six blocks
    that each double the variance would start far from 1.
    """
    body = torso(name, shape, width)
    for module in body.modules():
        orthogonal(module, math.sqrt(2))
    for module in body.modules():
        if isinstance(module, Residual):
            nn.init.zeros_(module.second.weight)
    return body, next(m.out_features for m in reversed(list(body.modules())) if isinstance(m, nn.Linear))


def orthogonal(module: nn.Module, gain: float) -> None:
    """Initialise a layer's weights orthogonally and its biases with 0."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.orthogonal_(module.weight, gain)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
