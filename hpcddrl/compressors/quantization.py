"""Eight-bit integers: x ≈ scale · (q − zero), weights by output channel, activations by layer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LEVELS = 127  # of a weight's size; symmetric, so that no zero point is needed


class Grid(NamedTuple):
    """The numbers that one byte can stand for: scale · (q − zero), q in 0…255."""

    scale: float
    zero: int


PIXELS = Grid(1 / 255, 0)


def grid_of(low: float, high: float) -> Grid:
    """Return the finest grid that covers a range and holds 0 exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255 or 1.0
    return Grid(scale, round(-low / scale))


def to_grid(x: Tensor, grid: Grid) -> Tensor:
    """Return the nearest bytes u8 of numbers; what is outside the range becomes its end."""
    return (x / grid.scale).round_().add_(grid.zero).clamp_(0, 255).to(torch.uint8)


def quantised_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return a weight [out, ...] as int8 and the scale of each output [out] f32; the error is at most scale / 2."""
    largest = weight.detach().flatten(1).abs().amax(1)
    scale = torch.where(largest > 0, largest, 1.0) / LEVELS
    shape = (-1, *[1] * (weight.dim() - 1))
    return (weight.detach() / scale.view(shape)).round().to(torch.int8), scale
