"""How different the policies of several groups are, and what is done when they become all the same."""

from __future__ import annotations

import torch
from torch import Tensor

from hpcddrl.rl.policies import Policy


def pairwise_divergence(policy: Policy, members: Tensor) -> Tensor:
    """Return mean KL(π_i ‖ π_j) over the states, [n, n], of policies [n, ..., size]."""
    return torch.stack([policy.kl(one.expand_as(members), members).flatten(1).mean(1) for one in members])


def pairwise_disagreement(policy: Policy, members: Tensor) -> Tensor:
    """Return the share of states on which each two of the policies [n, ..., size] would act differently, [n, n]."""
    return torch.stack([policy.differ(one.expand_as(members), members).float().flatten(1).mean(1) for one in members])


def between_others(pairwise: Tensor) -> float:
    """Return the mean of a table [n, n] over the pairs of two different members (0 if there are none)."""
    n = len(pairwise)
    return float((pairwise.sum() - pairwise.diagonal().sum()) / (n * (n - 1))) if n > 1 else 0.0


def guard(divergence: float, least: float) -> float:
    """Return the factor on β: 1 while the groups' mean divergence is at least ``least``, else their ratio.

    An ensemble of equals has nothing to teach, and pulls them together for good: as they collapse onto each other the
    pull fades, and their own losses may part them again. With ``least`` = 0 there is no guard.
    """
    return min(1.0, divergence / least) if least > 0 else 1.0
