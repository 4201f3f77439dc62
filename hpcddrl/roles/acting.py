"""Running a policy: observations in, actions and their probabilities out."""

from __future__ import annotations

import torch

from hpcddrl.networks.policy_value import PolicyValueNetwork
from hpcddrl.rl.policies import Policy
from hpcddrl.types import Acted, Array


class LocalPolicy:
    """Acts with a network at hand.

    Args:
        network: evaluated without gradient.
        policy: the family that its outputs parametrise.
        seed: of the draws.
        greedy: take the likeliest action instead of drawing one.
    """

    def __init__(self, network: PolicyValueNetwork, policy: Policy, seed: int, greedy: bool = False) -> None:
        self._network = network
        self._policy = policy
        self._generator = torch.Generator().manual_seed(seed)
        self._greedy = greedy

    def __call__(self, observation: Array) -> Acted:
        """Act on observations [B, *observation_shape]."""
        with torch.no_grad():
            params = self._network(torch.from_numpy(observation)).policy
            action = self._policy.greedy(params) if self._greedy else self._policy.sample(params, self._generator)
            return Acted(action=action.numpy(), log_mu=self._policy.log_prob(params, action).numpy())
