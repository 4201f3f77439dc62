"""A torso with a policy head and a value head, all parameters views of one flat vector."""

from __future__ import annotations

import contextlib
import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hpcddrl.networks.torsos import Residual, torso
from hpcddrl.types import Continuous, EnvSpec


class Precision(NamedTuple):
    """How a network computes; its parameters stay float32 either way."""

    name: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = False


class Output(NamedTuple):
    """A network's answer to N observations, in float32."""

    policy: Tensor  # [N, size] the policy's parameters
    value: Tensor  # [N]


class PolicyValueNetwork(nn.Module):
    """The network of the actor-critic algorithms.

    Torso and heads are initialised orthogonally: gain √2, 0.01 for the policy (so that it starts near uniform), 1 for
    the value; residual blocks start as the identity (Goyal et al. 2017, section 5.1). A Gaussian policy's deviation
    starts at 0.6 of half the action range and does not depend on the state.

    Args:
        spec: the environment's.
        torso_name: mlp, nips, nature, resnet or auto.
        width: factor on channels and units.
        seed: of the initialisation.
        precision: how to compute.
    """

    def __init__(self, spec: EnvSpec, torso_name: str, width: float, seed: int, precision: Precision) -> None:
        super().__init__()
        self.precision = precision
        self._scale = 1 / 255 if spec.frame_dtype == np.uint8 else 1.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.torso = torso(torso_name, spec.observation_shape, width)
            units = next(m.out_features for m in reversed(list(self.torso.modules())) if isinstance(m, nn.Linear))
            continuous = isinstance(spec.action, Continuous)
            outputs = spec.action.dim if isinstance(spec.action, Continuous) else spec.action.num_actions
            self.policy = nn.Linear(units, outputs)
            self.value = nn.Linear(units, 1)
            self.log_std = nn.Parameter(torch.full((outputs,), math.log(0.6))) if continuous else None
            for module in self.torso.modules():
                _orthogonal(module, math.sqrt(2))
                if isinstance(module, Residual):  # six blocks that each double the variance would start far from 1
                    nn.init.zeros_(module.second.weight)
            _orthogonal(self.policy, 0.01)
            _orthogonal(self.value, 1.0)

    def forward(self, observation: Tensor) -> Output:
        """Return policy and value of observations [N, *observation_shape] (uint8 images or float32 vectors)."""
        bf16 = self.precision.name == "bf16"
        layout = torch.channels_last if self.precision.channels_last and observation.dim() == 4 else None
        x = observation.to(torch.bfloat16 if bf16 else torch.float32, memory_format=layout or torch.preserve_format)
        with torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext():
            features = self.torso(x * self._scale if self._scale != 1.0 else x)
        features = features.float()
        policy = self.policy(features)
        if self.log_std is not None:
            policy = torch.cat([policy, self.log_std.expand_as(policy)], -1)
        return Output(policy=policy, value=self.value(features).squeeze(-1))


def _orthogonal(module: nn.Module, gain: float) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.orthogonal_(module.weight, gain)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Flat(NamedTuple):
    """All parameters of a module, and all gradients, as one vector each; the module's tensors are views of them."""

    values: Tensor  # [P] f32
    buffer: Tensor  # [P + 1] f32: the gradients, and room for a flag that is reduced with them

    @property
    def gradient(self) -> Tensor:
        """Return the gradients [P]."""
        return self.buffer[:-1]


def flatten(module: nn.Module) -> Flat:
    """Rebind a module's parameters and gradients to views of two flat vectors, in `parameters()` order.

    Sending, reducing and stepping a network is then one call on one vector.
    """
    parameters = list(module.parameters())
    values = torch.cat([p.detach().reshape(-1).float() for p in parameters])
    gradient = torch.zeros(values.numel() + 1)
    offset = 0
    for parameter in parameters:
        end = offset + parameter.numel()
        parameter.data = values[offset:end].view(parameter.shape)
        parameter.grad = gradient[offset:end].view(parameter.shape)
        offset = end
    return Flat(values, gradient)
