"""Policies as distributions over actions, given a network's outputs: categorical and diagonal Gaussian."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from hpcddrl.types import ActionSpec, Discrete

_LOG_2PI = math.log(2 * math.pi)


class Behaviour(Protocol):
    """A way to act; ``params`` [..., size] are a network's outputs."""

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        """Return log μ(action), [...]."""

    def sample(self, params: Tensor, generator: torch.Generator) -> Tensor:
        """Draw an action for each row."""

    def greedy(self, params: Tensor) -> Tensor:
        """Return the best action for each row."""

    def action_value(self, params: Tensor, value: Tensor, action: Tensor) -> Tensor:
        """Return Q of the action where ``params`` are Q, else the ``value`` [...] of the state."""


class Policy(Behaviour, Protocol):
    """A family of distributions that can be learned."""

    size: int

    def entropy(self, params: Tensor) -> Tensor:
        """Return H(π) in nats, [...]."""

    def mixture(self, members: Tensor, weights: Tensor) -> Tensor:
        """Return the parameters of Σ cᵢ πᵢ, from members [n, ..., size] and weights c [n, ...]."""

    def kl(self, target: Tensor, params: Tensor) -> Tensor:
        """Return KL(target ‖ params), [...]; ``target`` is a constant to the gradient."""

    def differ(self, one: Tensor, other: Tensor) -> Tensor:
        """Say where two policies would do different things, [...]."""


class Categorical:
    """Discrete actions; ``params`` are logits."""

    def __init__(self, num_actions: int) -> None:
        self.size = num_actions

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        """Return log π(action) for int64 actions [...]."""
        return params.log_softmax(-1).gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self, params: Tensor) -> Tensor:
        """Return −Σ π log π."""
        log_pi = params.log_softmax(-1)
        return -(log_pi.exp() * log_pi).sum(-1)

    def sample(self, params: Tensor, generator: torch.Generator) -> Tensor:
        """Draw by the Gumbel-max trick: argmax(logits + Gumbel noise)."""
        uniform = torch.rand(params.shape, generator=generator).clamp_(1e-20, 1.0)
        return (params - torch.log(-torch.log(uniform))).argmax(-1)

    def greedy(self, params: Tensor) -> Tensor:
        """Return the likeliest action."""
        return params.argmax(-1)

    def action_value(self, params: Tensor, value: Tensor, action: Tensor) -> Tensor:
        """Return the state's value."""
        return value

    def mixture(self, members: Tensor, weights: Tensor) -> Tensor:
        """Return log Σ cᵢ softmax(membersᵢ): log-probabilities, which are logits too."""
        return torch.logsumexp(members.log_softmax(-1) + weights.log().unsqueeze(-1), dim=0)

    def kl(self, target: Tensor, params: Tensor) -> Tensor:
        """Return Σ p (log p − log π)."""
        log_p = target.detach().log_softmax(-1)
        return (log_p.exp() * (log_p - params.log_softmax(-1))).sum(-1)

    def differ(self, one: Tensor, other: Tensor) -> Tensor:
        """Say where the likeliest actions are not the same."""
        return one.argmax(-1) != other.argmax(-1)


class Gaussian:
    """Continuous actions; ``params`` are the mean and the log standard deviation, side by side."""

    def __init__(self, dim: int) -> None:
        self.size = 2 * dim

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        """Return the log-density of actions [..., dim]."""
        mean, log_std = params.chunk(2, -1)
        return (-0.5 * ((action - mean) / log_std.exp()).square() - log_std - 0.5 * _LOG_2PI).sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        """Return Σ (log σ + ½ log 2πe)."""
        return (params.chunk(2, -1)[1] + 0.5 * (_LOG_2PI + 1)).sum(-1)

    def sample(self, params: Tensor, generator: torch.Generator) -> Tensor:
        """Draw mean + σ · noise."""
        mean, log_std = params.chunk(2, -1)
        return mean + log_std.exp() * torch.randn(mean.shape, generator=generator)

    def greedy(self, params: Tensor) -> Tensor:
        """Return the mean."""
        return params.chunk(2, -1)[0]

    def action_value(self, params: Tensor, value: Tensor, action: Tensor) -> Tensor:
        """Return the state's value."""
        return value

    def mixture(self, members: Tensor, weights: Tensor) -> Tensor:
        """Return the Gaussian with the mixture's exact mean and variance (the mixture itself is not Gaussian)."""
        mean, log_std = members.chunk(2, -1)
        c = weights.unsqueeze(-1)
        mixed = (c * mean).sum(0)
        variance = (c * (log_std.mul(2).exp() + mean.square())).sum(0) - mixed.square()
        return torch.cat([mixed, 0.5 * variance.clamp(min=1e-12).log()], -1)

    def kl(self, target: Tensor, params: Tensor) -> Tensor:
        """Return the KL between two Gaussians.

        For a target from `mixture` its gradient is that of −E_ens[log π], exactly: that expectation depends on the
        mixture's mean and variance alone.
        """
        mean_p, log_std_p = target.detach().chunk(2, -1)
        mean, log_std = params.chunk(2, -1)
        variance_ratio = (2 * (log_std_p - log_std)).exp()
        distance = ((mean_p - mean) / log_std.exp()).square()
        return (0.5 * (variance_ratio + distance - 1) + log_std - log_std_p).sum(-1)

    def differ(self, one: Tensor, other: Tensor) -> Tensor:
        """Say where the means are further apart than both deviations, in any dimension."""
        (mean, log_std), (mean_2, log_std_2) = one.chunk(2, -1), other.chunk(2, -1)
        return ((mean - mean_2).abs() > torch.maximum(log_std, log_std_2).exp()).any(-1)


def policy_for(action: ActionSpec) -> Policy:
    """Return the family of policies for an action space."""
    return Categorical(action.num_actions) if isinstance(action, Discrete) else Gaussian(action.dim)
