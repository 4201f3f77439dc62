"""A torso with a policy head and a value head."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hpcddrl.networks.encoding import Precision, encode, initialised_torso, orthogonal
from hpcddrl.types import Continuous, EnvSpec, Output


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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.torso, units = initialised_torso(torso_name, spec.observation_shape, width)
            continuous = isinstance(spec.action, Continuous)
            outputs = spec.action.dim if isinstance(spec.action, Continuous) else spec.action.num_actions
            self.policy = nn.Linear(units, outputs)
            self.value = nn.Linear(units, 1)
            self.log_std = nn.Parameter(torch.full((outputs,), math.log(0.6))) if continuous else None
            orthogonal(self.policy, 0.01)
            orthogonal(self.value, 1.0)

    def forward(self, observation: Tensor) -> Output:
        """Return policy and value of observations [N, *observation_shape] (uint8 images or float32 vectors)."""
        return self.answer(encode(self.torso, observation, self.precision))

    def answer(self, features: Tensor) -> Output:
        """Return policy and value of a torso's features [N, units] f32."""
        policy = self.policy(features)
        if self.log_std is not None:
            policy = torch.cat([policy, self.log_std.expand_as(policy)], -1)
        return Output(policy=policy, value=self.value(features).squeeze(-1))
