"""Losses of actor-critic methods, each a mean over the valid steps of a batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPS_FLOOR = 1e-6  # GA3C's floor under π inside the logarithm


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Return the mean of ``x`` [T, B] over the steps where ``valid`` [T, B] is 1 (0 if there are none)."""
    return (x * valid).sum() / valid.sum().clamp(min=1.0)


def effective_share(weights: Tensor, valid: Tensor) -> float:
    """Return the effective sample size of weights [T, B] as a share of the valid steps: (Σx)² / (n Σx²).

    Source: Kong 1992; 1 where all weights are alike, 1 / n where one is all that counts.
    """
    x = torch.where(valid > 0, weights, 0.0).double()
    n, squares = float(valid.sum()), float(x.square().sum())
    return float(x.sum()) ** 2 / (n * squares) if squares else 0.0


def log_with_floor(log_pi: Tensor, floor: float = EPS_FLOOR) -> Tensor:
    """Return log(max(π, ε)): its gradient vanishes where the learned policy has left the action behind.

    Source: GA3C (Babaeizadeh et al. 2017); Espeholt et al. 2018, section 5.2.2, call it ε-correction.
    """
    return torch.clamp(log_pi, min=math.log(floor))


def policy_gradient_loss(*, log_pi: Tensor, advantage: Tensor, ratio: Tensor, valid: Tensor) -> Tensor:
    """Return −mean(ρ A log π), with ρ and A constants to the gradient.

    Minimised, this *raises* the probability of actions with a positive advantage: the proposal's L_teacher prints
    the term without its minus. All [T, B].
    """
    return -masked_mean((ratio * advantage).detach() * log_pi, valid)


def clipped_surrogate_loss(*, log_pi: Tensor, log_mu: Tensor, advantage: Tensor, clip: float, valid: Tensor) -> Tensor:
    """Return −mean(min(r A, clip(r, 1 − ε, 1 + ε) A)), r = π/μ, with A a constant.

    Source: Schulman et al. 2017 (arXiv:1707.06347), equation 7. All [T, B].
    """
    ratio = torch.exp(torch.where(valid > 0, log_pi - log_mu, 0.0))  # a reset step's may be anything
    advantage = advantage.detach()
    return -masked_mean(torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage), valid)


def value_loss(*, value: Tensor, target: Tensor, valid: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """Return mean(w ½ (v − V)²) with v a constant. All [T, B], the weights w [B] of rollouts."""
    return masked_mean(0.5 * (target.detach() - value).square() * weight, valid)


def normalised(advantage: Tensor, valid: Tensor) -> Tensor:
    """Return the advantages [T, B] with mean 0 and deviation 1 over the valid steps."""
    mean = masked_mean(advantage, valid)
    deviation = masked_mean((advantage - mean).square(), valid).sqrt()
    return (advantage - mean) / (deviation + 1e-8)
