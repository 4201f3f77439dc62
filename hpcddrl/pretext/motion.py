"""What moves in an image, and errors that count it as much as all that does not.

A ball of a few pixels is a thousandth of an Atari image: a plain mean of squared errors hardly knows that it is there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from torch import Tensor

THRESHOLD = 4 / 255  # a smaller change of a pixel is none


def newest(observation: Tensor, channels: int) -> Tensor:
    """Return the newest frame [N, channels, H, W] f32 in [0, 1] of observations [N, K·channels, H, W] u8."""
    return observation[:, -channels:].float() / 255


def moving(observation: Tensor, channels: int, spread: int = 0) -> Tensor:
    """Say where [N, 1, H, W] bool the newest frame differs from the one before.

    Both places of a thing that moved differ: where it is, and where it was.

    Args:
        observation: [N, K·channels, H, W] u8, K ≥ 2.
        channels: of one frame.
        spread: pixels by which the places are widened; the more, the less a thing itself counts in `balanced` weights.
    """
    assert observation.shape[1] >= 2 * channels, "checked when the task was made"
    before = observation[:, -2 * channels : -channels].float() / 255
    change = (newest(observation, channels) - before).abs().amax(dim=1, keepdim=True)
    wide = F.max_pool2d(change, 2 * spread + 1, stride=1, padding=spread) if spread else change
    return wide > THRESHOLD


def balanced(mask: Tensor, share: float = 0.5) -> Tensor:
    """Return weights [N, 1, H, W] f32, of mean 1 in each image, of which a mask's pixels have ``share`` together.

    An image in which the mask is empty or everything is weighed evenly.
    """
    inside = mask.float()
    part = inside.mean(dim=(1, 2, 3), keepdim=True)
    even = (part == 0) | (part == 1)
    weights = share * inside / part.clamp(min=1e-9) + (1 - share) * (1 - inside) / (1 - part).clamp(min=1e-9)
    return torch.where(even, torch.ones_like(inside), weights)


def weighted_error(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return the mean of w (x̂ − x)² over images [N, C, H, W] with weights [N, 1, H, W]."""
    return (weights * (predicted - target) ** 2).mean()


def error_inside(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of (x̂ − x)² over a mask's pixels [N, 1, H, W] alone; 0 if there are none."""
    inside = mask.float().expand_as(target)
    return (inside * (predicted - target) ** 2).sum() / inside.sum().clamp(min=1)
