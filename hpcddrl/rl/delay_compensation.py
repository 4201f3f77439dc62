"""Delay-compensated asynchronous gradients: Zheng et al. 2017, arXiv:1609.08326.

A gradient g(w_bak) arrives when the weights are w. Its first-order Taylor term needs the Hessian at w_bak, of which the
diagonal of g gᵀ is a cheap stand-in: for a negative log-likelihood E[g gᵀ] = E[Hessian] where model and data agree
(Fisher's information both ways), so λ g ⊙ g ⊙ (w − w_bak) is added, with λ < 1 to trade its bias against its variance.
"""

from __future__ import annotations

from torch import Tensor


def compensated(gradient: Tensor, weights: Tensor, backup: Tensor, strength: Tensor | float) -> Tensor:
    """Return g + λ g ⊙ g ⊙ (w − w_bak); all [P], ``strength`` λ a number or [P]."""
    factor = (weights - backup).mul_(gradient).mul_(strength).add_(1)  # one new vector: at a server it is all the cost
    return factor.mul_(gradient)


def mean_square(before: Tensor, gradient: Tensor, decay: float) -> Tensor:
    """Return m MS + (1 − m) g², the running mean square [P] of DC-ASGD-a."""
    return (decay * before).addcmul_(gradient, gradient, value=1 - decay)


def adaptive_strength(strength: float, mean_square: Tensor, epsilon: float) -> Tensor:
    """Return λ [P] = λ₀ / √(MS + ε), so that the added term has the gradient's own scale (DC-ASGD-a)."""
    return (mean_square + epsilon).rsqrt_().mul_(strength)
