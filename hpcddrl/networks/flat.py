"""All of a network's parameters as one vector."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import torch
from torch import Tensor, nn

TAIL = 3  # numbers that learners reduce along with their gradients: the stage, frames, and the wish to stop


class Flat(NamedTuple):
    """All parameters of a module, and all gradients, as one vector each; the module's tensors are views of them."""

    values: Tensor  # [P] f32
    buffer: Tensor  # [P + TAIL] f32: the gradients, and room for what is reduced with them

    @property
    def gradient(self) -> Tensor:
        """Return the gradients [P]."""
        return self.buffer[:-TAIL]


def size(module: nn.Module) -> int:
    """Return P, the number of a module's parameters."""
    return sum(p.numel() for p in module.parameters())


def flatten(module: nn.Module) -> Flat:
    """Rebind a module's parameters and gradients to views of two flat vectors, in `parameters()` order.

    Sending, reducing and stepping a network is then one call on one vector.
    """
    parameters = list(module.parameters())
    values = torch.cat([p.detach().reshape(-1).float() for p in parameters])
    gradient = torch.zeros(values.numel() + TAIL, device=values.device)
    bind(module, values)
    offset = 0
    for parameter in parameters:
        end = offset + parameter.numel()
        parameter.grad = gradient[offset:end].view(parameter.shape)
        offset = end
    return Flat(values, gradient)


def bind(module: nn.Module, values: Tensor) -> None:
    """Let a module's parameters be views of a vector [P], in `parameters()` order; nothing is copied."""
    offset = 0
    for parameter in module.parameters():
        end = offset + parameter.numel()
        parameter.data = values[offset:end].view(parameter.shape)
        offset = end


def architecture(module: nn.Module) -> int:
    """Return a number that modules share whose parameters have the same names and shapes, in the same order."""
    shapes = [(name, tuple(parameter.shape)) for name, parameter in module.named_parameters()]
    return zlib.crc32(repr(shapes).encode())
