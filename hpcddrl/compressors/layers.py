"""The layers of a network that hold weights."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

Weighted = nn.Conv2d | nn.Linear


def weighted(module: nn.Module) -> Iterator[Weighted]:
    """Yield convolutions and linear layers in the order in which they compute."""
    return (m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear))
