"""Acting on action values: ε-greedy, with an ε for each environment."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class EpsilonGreedy:
    """The best action, or with probability ε any of them; ``params`` are Q [B, actions].

    Args:
        epsilon: returns the ε in force now, [B] or [1].
    """

    def __init__(self, epsilon: Callable[[], Tensor]) -> None:
        self._epsilon = epsilon

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        """Return log μ(action): μ = 1 − ε + ε / actions for the best action, ε / actions for the others."""
        epsilon = self._epsilon()
        best = (action == params.argmax(-1)).to(params.dtype)
        return torch.log((1 - epsilon) * best + epsilon / params.shape[-1])

    def sample(self, params: Tensor, generator: torch.Generator) -> Tensor:
        """Draw an action for each row."""
        best = params.argmax(-1)
        explores = torch.rand(best.shape, generator=generator) < self._epsilon()
        return torch.where(explores, torch.randint(params.shape[-1], best.shape, generator=generator), best)

    def greedy(self, params: Tensor) -> Tensor:
        """Return the best action for each row."""
        return params.argmax(-1)

    def action_value(self, params: Tensor, value: Tensor, action: Tensor) -> Tensor:
        """Return Q(action)."""
        return params.gather(-1, action.unsqueeze(-1)).squeeze(-1)


def spread_epsilons(base: float, exponent: float, count: int) -> Tensor:
    """Return εᵢ = base^(1 + exponent · i / (count − 1)), [count], from the boldest to the most careful.

    Source: Horgan et al. 2018 (arXiv:1803.00933), section 4.1, where base is 0.4 and the exponent 7, one ε an actor.
    """
    share = torch.arange(count) / max(1, count - 1)
    return torch.pow(base, 1 + exponent * share)


def linear_epsilon(start: float, end: float, frames: float, now: float) -> float:
    """Return the ε of a schedule that falls from ``start`` to ``end`` within so many frames."""
    return start + (end - start) * min(1.0, now / frames)
