"""The ensemble policy of several groups, π_ens(a|s) = Σ cᵢ(s) πᵢ(a|s): the weights c, and how much it counts.

Members stand in the first dimension. Nothing here has a gradient to give: values and policies are constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


def softmax_weights(values: Tensor, temperature: float) -> Tensor:
    """Return c = softmax over the members of V_i(s) / T.

    Source: the proposal, part 3, which has T = 1. A shift of all values changes nothing; their scale does, hence T.

    Args:
        values: [members, ...] each member's value of the same states.
        temperature: T > 0.
    """
    return torch.softmax(values / temperature, dim=0)


def uniform_weights(values: Tensor) -> Tensor:
    """Return c = 1 / members: bagging, which no critic can bias."""
    return torch.full_like(values, 1.0 / len(values))


def best_weights(values: Tensor) -> Tensor:
    """Return c = 1 for the member with the greatest value of each state (the first of several), else 0."""
    return torch.zeros_like(values).scatter_(0, values.argmax(0, keepdim=True), 1.0)


def best_group_weights(values: Tensor, scores: Tensor) -> Tensor:
    """Return c = 1 for the member with the greatest score [members], on all states, else 0.

    Members of unknown score (NaN) count as worse than any; while all are unknown, the first has the weight.
    """
    best = int(scores.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).argmax())
    weights = torch.zeros_like(values)
    weights[best] = 1.0
    return weights


class Moments(NamedTuple):
    """Mean and variance of each member's values so far, recent batches counting most."""

    mean: Tensor  # [members] f64
    variance: Tensor  # [members] f64
    batches: Tensor  # [members] f64: how many they are of

    def of(self, members: Sequence[int]) -> Moments:
        """Return those of some members."""
        return Moments(*(x[list(members)] for x in self))


def no_moments(members: int) -> Moments:
    """Return the moments before any batch."""
    return Moments(*(torch.zeros(members, dtype=torch.float64) for _ in Moments._fields))


def updated_moments(moments: Moments, members: Sequence[int], values: Tensor, decay: float) -> Moments:
    """Return the moments after one more batch of some members' values [members, ...].

    A batch counts 1 / n of n while that is more than 1 − decay, so that the first ones make a plain mean. The variance
    is exactly that of the mixture of the old values and the new: a·v + (1 − a)·v' + a (1 − a) (m − m')². Hence values
    that are shifted and scaled, all of them, give moments that are shifted and scaled.
    """
    found, flat = list(members), values.detach().double().flatten(1)
    before = moments.of(found)
    batches = before.batches + 1
    new = torch.clamp(1 / batches, min=1 - decay)
    mean, variance = flat.mean(1).to(before.mean.device), flat.var(1, correction=0).to(before.mean.device)
    mixed = Moments(
        mean=before.mean + new * (mean - before.mean),
        variance=(1 - new) * before.variance + new * variance + new * (1 - new) * (mean - before.mean).square(),
        batches=batches,
    )
    return Moments(*(old.index_copy(0, torch.tensor(found), x) for old, x in zip(moments, mixed, strict=True)))


def standardised(values: Tensor, moments: Moments) -> Tensor:
    """Return each member's values [members, ...] with mean 0 and deviation 1 by its own moments.

    So a member with an over-estimating critic or another scale of rewards does not win by that: a member's values
    shifted and scaled throughout give the same. A member of which no spread is known yet gets 0 everywhere.
    """
    shape = (-1, *[1] * (values.dim() - 1))
    mean, deviation = (x.to(values.device).view(shape) for x in (moments.mean, moments.variance.sqrt()))
    known = deviation > 0
    scaled = (values.double() - mean) / torch.where(known, deviation, 1.0)
    return torch.where(known, scaled, 0.0).to(values.dtype)


def climb(frames: float, start: float, length: float) -> float:
    """Return 0 up to ``start`` frames, then what climbs linearly to 1 over ``length`` frames, and 1 from there on."""
    return min(1.0, max(0.0, (frames - start) / length))


def plateaued(returns: Sequence[float], patience: int, gain: float) -> bool:
    """Say whether a policy has stopped to improve.

    It has when the best of its last ``patience`` mean returns is not above the best before them by more than ``gain``
    times the spread of all of them. The spread makes it independent of the rewards' scale.

    Args:
        returns: mean returns of equal spans of frames, oldest first.
        patience: spans that may pass without a gain.
        gain: share of the spread that counts as one.
    """
    if len(returns) <= patience:
        return False
    spread = max(returns) - min(returns)
    return max(returns[-patience:]) - max(returns[:-patience]) <= gain * spread
