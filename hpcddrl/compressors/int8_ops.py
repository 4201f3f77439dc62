"""A torso's parts computed with bytes, by oneDNN's integer kernels.

torch has them as `onednn::qconv_pointwise` and `onednn::qlinear_pointwise`, the operators of quantised graphs: no
global engine and no quantised tensor types are involved. Convolutions write bytes; linear layers write float32, since
what follows them wants floats. Where the learner's processor has no VNNI, weights have 7 bits instead of 8, so that
nothing is clipped there; give it one as its actors have.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from hpcddrl.compressors.layers import Weighted
from hpcddrl.compressors.quantization import Grid, grid_of, quantised_weight, to_grid, weight_levels
from hpcddrl.networks.torsos import Residual

ops = torch.ops.onednn


class Op(Protocol):
    """A part of a torso, from bytes to bytes."""

    def numbers(self) -> list[Tensor]:
        """Return what is published of it."""

    def calibrate(self, x: Tensor) -> Tensor:
        """Take over the float layer's weights, measure ranges on its input; return the float layer's output."""

    def prepare(self, grid: Grid) -> Grid:
        """Make ready for inputs on a grid; return the outputs'."""

    def __call__(self, q: Tensor) -> Tensor:
        """Compute."""


class _Layer:
    """The stored numbers of a convolution or a linear layer: int8 weights, scales, biases and the output's grid."""

    def __init__(self, layer: Weighted) -> None:
        self.layer = layer
        self._levels = weight_levels()
        self.weight, self.scale = quantised_weight(layer.weight, self._levels)
        self.bias = torch.zeros(len(self.scale))
        self.grid = torch.tensor([1.0, 0.0])
        self.zeros = torch.zeros(len(self.scale), dtype=torch.int32)

    def numbers(self) -> list[Tensor]:
        return [self.weight, self.scale, self.bias, self.grid]

    def take(self) -> None:
        self.weight, self.scale = quantised_weight(self.layer.weight, self._levels)
        if self.layer.bias is not None:
            self.bias.copy_(self.layer.bias.detach())

    def measure(self, output: Tensor) -> Tensor:
        self.grid = torch.tensor(grid_of(float(output.min()), float(output.max())))
        return output

    @property
    def output(self) -> Grid:
        return Grid(float(self.grid[0]), int(self.grid[1]))


class Convolution:
    """A convolution, perhaps with the ReLU behind it, perhaps added to what a residual block reads."""

    def __init__(self, layer: nn.Conv2d, relu: bool) -> None:
        self._stored, self._conv, self._relu = _Layer(layer), layer, relu
        self.numbers = self._stored.numbers

    def calibrate(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """See `Op`; ``added`` is what the output is added to."""
        self._stored.take()
        y: Tensor = self._conv(x)
        y = y if added is None else y + added
        return self._stored.measure(y.relu() if self._relu else y)

    def prepare(self, grid: Grid) -> Grid:
        """See `Op`."""
        stored, conv = self._stored, self._conv
        geometry = ([*conv.stride], [int(p) for p in conv.padding], [*conv.dilation], conv.groups)
        packed = ops.qconv_prepack(stored.weight, stored.scale, *grid, *geometry, None)
        self._input = (*grid, packed, stored.scale, stored.zeros)
        self._rest = (stored.bias, *geometry, *stored.output, torch.uint8)
        return stored.output

    def __call__(self, q: Tensor) -> Tensor:
        """See `Op`."""
        y: Tensor = ops.qconv_pointwise(q, *self._input, *self._rest, "relu" if self._relu else "none", [], "")
        return y

    def onto(self, q: Tensor, added: Tensor, grid: Grid) -> Tensor:
        """Return the convolution of ``q`` plus ``added``, bytes on a grid, which are overwritten."""
        y: Tensor = ops.qconv2d_pointwise.binary(q, *self._input, added, *self._rest, *grid, "sum", 1.0, "none", [], "")
        return y


class Block:
    """A residual block."""

    def __init__(self, block: Residual) -> None:
        self._first, self._second = Convolution(block.first, relu=True), Convolution(block.second, relu=False)

    def numbers(self) -> list[Tensor]:
        """See `Op`."""
        return [*self._first.numbers(), *self._second.numbers()]

    def calibrate(self, x: Tensor) -> Tensor:
        """See `Op`."""
        return self._second.calibrate(self._first.calibrate(x.relu()), added=x)

    def prepare(self, grid: Grid) -> Grid:
        """See `Op`."""
        self._grid = grid
        return self._second.prepare(self._first.prepare(grid))

    def __call__(self, q: Tensor) -> Tensor:
        """See `Op`."""
        return self._second.onto(self._first(q.clamp_min(self._grid.zero)), q, self._grid)


class Linear:
    """A linear layer and its activation, computed in float32 from integer products."""

    def __init__(self, layer: nn.Linear, activation: nn.Module, last: bool) -> None:
        self._stored, self._activation, self._last = _Layer(layer), activation, last
        self.numbers = self._stored.numbers

    def calibrate(self, x: Tensor) -> Tensor:
        """See `Op`."""
        self._stored.take()
        y: Tensor = self._activation(self._stored.layer(x))
        return self._stored.measure(y)

    def prepare(self, grid: Grid) -> Grid:
        """See `Op`."""
        stored = self._stored
        packed = ops.qlinear_prepack(stored.weight, None)
        self._arguments = (*grid, packed, stored.scale, stored.zeros, stored.bias, 1.0, 0, torch.float32)
        return stored.output

    def __call__(self, q: Tensor) -> Tensor:
        """See `Op`; the torso's last one returns float32."""
        y: Tensor = self._activation(ops.qlinear_pointwise(q, *self._arguments, "none", [], ""))
        return y if self._last else to_grid(y, self._stored.output)


class Unweighted:
    """What has no numbers of its own: a ReLU, max pooling, a change of shape.

    Args:
        module: computes it with floats.
        compute: computes it with bytes on a grid.
    """

    def __init__(self, module: nn.Module, compute: Callable[[Tensor, Grid], Tensor]) -> None:
        self._module, self._compute = module, compute

    def numbers(self) -> list[Tensor]:
        """See `Op`."""
        return []

    def calibrate(self, x: Tensor) -> Tensor:
        """See `Op`."""
        y: Tensor = self._module(x)
        return y

    def prepare(self, grid: Grid) -> Grid:
        """See `Op`; order is kept, so the grid is."""
        self._grid = grid
        return grid

    def __call__(self, q: Tensor) -> Tensor:
        """See `Op`."""
        return self._compute(q, self._grid)


def integer_ops(torso: nn.Module) -> list[Op]:
    """Return a torso's parts as integer operations; activations go with the layers before them.

    Raises:
        ValueError: this torch was built without the kernels.
    """
    if not hasattr(ops, "qconv_pointwise"):
        raise ValueError(
            "compression.format.kind = 'int8': this torch has no integer kernels (oneDNN's, x86); choose fp32 or cast"
        )
    modules = list(torso.children())
    made: list[Op] = []
    for index, module in enumerate(modules):
        after = modules[index + 1] if index + 1 < len(modules) else None
        match module:
            case nn.Conv2d():
                made.append(Convolution(module, relu=isinstance(after, nn.ReLU)))
            case Residual():
                made.append(Block(module))
            case nn.Linear():
                assert after is not None, "a torso ends with an activation"
                made.append(Linear(module, after, last=index + 2 == len(modules)))
            case nn.MaxPool2d():
                made.append(Unweighted(module, partial(pooled, pool=module)))
            case nn.Flatten():
                made.append(Unweighted(module, lambda q, _: q.flatten(1)))
            case nn.ReLU() | nn.Tanh() if isinstance(modules[index - 1], nn.Conv2d | nn.Linear):
                pass  # it went with the layer before it
            case nn.ReLU():
                made.append(Unweighted(module, lambda q, grid: q.clamp_min(grid.zero)))
            case _:
                raise AssertionError(f"no integer operation for {module}")
    return made


def pooled(q: Tensor, grid: Grid, pool: nn.MaxPool2d) -> Tensor:
    """Return max pooling of bytes [N, C, H, W], by rows and then by columns; torch has no kernel for it."""
    return _largest(_largest(q, 2, pool), 3, pool)


def _largest(q: Tensor, dim: int, pool: nn.MaxPool2d) -> Tensor:
    """Return the maxima along one dimension; the padding is the least byte there is."""
    kernel, stride, padding = (int(v) for v in (pool.kernel_size, pool.stride, pool.padding))  # type: ignore[arg-type]
    count = (q.shape[dim] + 2 * padding - kernel) // stride + 1
    shape = [*q.shape]
    shape[dim] = count
    result = torch.zeros(shape, dtype=q.dtype).contiguous(memory_format=torch.channels_last)
    for offset in range(kernel):
        first = max(0, -(-(padding - offset) // stride))  # the first output that this tap touches
        last = min(count - 1, (q.shape[dim] - 1 + padding - offset) // stride)
        start = first * stride + offset - padding
        part = q.narrow(dim, start, (last - first) * stride + 1)
        part = part[:, :, ::stride] if dim == 2 else part[:, :, :, ::stride]
        into = result.narrow(dim, first, last - first + 1)
        torch.maximum(into, part, out=into)
    return result
