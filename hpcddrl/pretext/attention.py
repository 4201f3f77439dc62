"""A mask that learns where reconstruction fails, and a reconstruction that heeds the mask."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class AttentionLosses(NamedTuple):
    """Two losses; each is constant to the other's gradient."""

    reconstruction: Tensor
    attention: Tensor
    mask: Tensor  # [N, H, W], of mean 1 in each image


def attention_losses(error: Tensor, logits: Tensor, temperature: float) -> AttentionLosses:
    """Weigh squared errors e [N, H, W] by a learned mask A = H·W · softmax(logits) over each image's pixels.

    The reconstruction minimises mean(A e). The mask minimises the cross-entropy −Σ p log softmax(logits) with
    p = softmax(e / (T max e)), the maximum being an image's, so that the errors' scale does not matter. At its optimum
    the worst pixel weighs exp(1/T) times as much as one without error: those weights are the worst case of the mean
    error under a KL penalty (Hu and Hong 2013, Kullback-Leibler divergence constrained distributionally robust
    optimization). To climb to them by that mean's own gradient takes very long, since a few pixels hardly show in it.

    Args:
        error: squared errors.
        logits: [N, H, W] of the mask.
        temperature: T > 0.
    """
    log_mask = torch.log_softmax(logits.flatten(1), dim=1)
    mask = log_mask.exp().detach() * logits[0].numel()
    constant = error.detach().flatten(1)
    worst = constant.amax(dim=1, keepdim=True).clamp(min=1e-12)
    wanted = torch.softmax(constant / worst / temperature, dim=1)
    return AttentionLosses(
        reconstruction=(mask * error.flatten(1)).mean(),
        attention=-(wanted * log_mask).sum(dim=1).mean(),
        mask=mask.view_as(logits),
    )
