"""Targets and losses of Q-learning."""

from __future__ import annotations

import torch
from torch import Tensor


def q_targets(*, reward: Tensor, discount: Tensor, next_q: Tensor, next_target_q: Tensor, double: bool) -> Tensor:
    """Return y = R + γᵐ Q⁻(x', a*), [N]; no gradient flows.

    a* is the best action by the target weights themselves (Mnih et al. 2015), or with ``double`` by those being
    learned (van Hasselt et al. 2016, arXiv:1509.06461, equation 4).

    Args:
        reward: [N] Σ γᵏ r over the m steps.
        discount: [N] γᵐ, 0 after a termination.
        next_q: [N, actions] of x' by the weights being learned.
        next_target_q: [N, actions] of x' by the target weights.
        double: see above.
    """
    with torch.no_grad():
        best = (next_q if double else next_target_q).argmax(-1, keepdim=True)
        return reward + discount * next_target_q.gather(-1, best).squeeze(-1)


def huber(errors: Tensor, delta: float | None) -> Tensor:
    """Return ½ δ² up to |δ| = ``delta`` and ``delta`` (|δ| − ½ ``delta``) beyond: the gradient is clipped there.

    Source: Mnih et al. 2015, "error clipping". None: ½ δ² throughout.
    """
    if delta is None:
        return 0.5 * errors.square()
    near = errors.abs().clamp(max=delta)
    return near * (errors.abs() - 0.5 * near)
