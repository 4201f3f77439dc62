"""The ensemble policy of several groups: π_ens(a|s) = Σ cᵢ(s) πᵢ(a|s)."""

from __future__ import annotations

import torch
from torch import Tensor


def mixture_weights(values: Tensor, temperature: float) -> Tensor:
    """Return c = softmax over the members of V_i(s) / T.

    Source: the proposal, part 3, which has T = 1. A shift of all values changes nothing; their scale does, hence T.

    Args:
        values: [members, ...] each member's value of the same states.
        temperature: T > 0.
    """
    return torch.softmax(values / temperature, dim=0)
