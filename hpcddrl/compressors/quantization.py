"""Eight-bit integers: x ≈ scale · (q − zero), weights by output channel, activations by layer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LEVELS = 127  # of a weight's size; symmetric, so that no zero point is needed
FEW_LEVELS = 63  # two products with a byte, 2 · 255 · 63, fit into 16 bits


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


def weight_levels() -> int:
    """Return the levels of a weight's size with which this processor's integer kernels are exact.

    An x86 processor without VNNI adds two products at a time in 16 bits, and clips what does not fit.
    """
    known = torch.cpu.get_capabilities()
    adds_in_32_bits = any(known.get(name, False) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))
    return LEVELS if adds_in_32_bits or known.get("architecture") != "x86_64" else FEW_LEVELS


def quantised_weight(weight: Tensor, levels: int = LEVELS) -> tuple[Tensor, Tensor]:
    """Return a weight [out, ...] as int8 and the scale of each output [out] f32; the error is at most scale / 2."""
    largest = weight.detach().flatten(1).abs().amax(1)
    scale = torch.where(largest > 0, largest, 1.0) / levels
    shape = (-1, *[1] * (weight.dim() - 1))
    return (weight.detach() / scale.view(shape)).round().to(torch.int8), scale
