"""Things as points: where each of P maps is strongest, and images taken apart and put together at such points.

Coordinates are (y, x) in [−1, 1] from the first to the last row or column of a map.
"""

from __future__ import annotations

import torch
from torch import Tensor


def centres(maps: Tensor) -> Tensor:
    """Return the mean places [N, P, 2] under softmaxes over the whole of each map [N, P, h, w] of logits.

    (The spatial softmax of Finn et al. 2016, arXiv:1509.06113.)
    """
    height, width = maps.shape[-2:]
    share = torch.softmax(maps.flatten(2), dim=2).reshape(maps.shape)
    return torch.stack([share.sum(3) @ _axis(height, maps), share.sum(2) @ _axis(width, maps)], dim=-1)


def gaussians(places: Tensor, size: tuple[int, int], deviation: float) -> Tensor:
    """Return bumps [N, P, h, w] of height 1 around places [N, P, 2].

    Args:
        places: (y, x).
        size: (h, w).
        deviation: of a bump, in the units of the places.
    """
    squares = [
        (_axis(length, places) - places[..., i, None]) ** 2 for i, length in enumerate(size)
    ]  # [N, P, h], [N, P, w]
    return torch.exp(-(squares[0][..., :, None] + squares[1][..., None, :]) / (2 * deviation**2))


def transported(source: Tensor, target: Tensor, source_bumps: Tensor, target_bumps: Tensor) -> Tensor:
    """Return the source's features with what stands at either image's points taken from the target's, [N, F, h, w].

    (1 − H_s)(1 − H_t) Φ_s + H_t Φ_t, H being the largest of the points' bumps (Kulkarni et al. 2019, arXiv:1906.11883,
    equation 1). To make the target's image of this, the points must stand on all that differs between the two.

    Args:
        source: Φ_s [N, F, h, w].
        target: Φ_t.
        source_bumps: [N, P, h, w].
        target_bumps: likewise.
    """
    h_source, h_target = (bumps.amax(dim=1, keepdim=True) for bumps in (source_bumps, target_bumps))
    return (1 - h_source) * (1 - h_target) * source + h_target * target


def in_pixels(places: Tensor, height: int, width: int) -> Tensor:
    """Return places [..., 2] as rows and columns of an image."""
    row, column = ((places + 1) / 2).unbind(-1)
    return torch.stack([row * (height - 1), column * (width - 1)], -1)


def _axis(length: int, like: Tensor) -> Tensor:
    return torch.linspace(-1, 1, length, dtype=like.dtype, device=like.device)
