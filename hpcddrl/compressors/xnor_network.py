"""A network of signs as it acts: packed bits, sent as such and multiplied by XNOR and popcount."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn

from hpcddrl.compressors.binary import BinaryConv2d, BinaryLayer, binarise, replace, scales, sign
from hpcddrl.compressors.compressed import Bytes, as_bytes, from_bytes
from hpcddrl.compressors.kernel import NoKernelError, XnorKernel, packed_signs, xnor_kernel
from hpcddrl.networks.encoding import Precision
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.types import Output


class Signs(nn.Module):
    """A binary layer without its float weights.

    Args:
        layer: gives thresholds, biases and geometry.
        kernel: multiplies; without one, floats do.
    """

    def __init__(self, layer: BinaryLayer, kernel: XnorKernel | None) -> None:
        super().__init__()
        self.layer, self._kernel = layer, kernel
        self.take(layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the binary layer returns."""
        layer = self.layer
        above = x - layer.threshold.view(1, -1, *[1] * (x.dim() - 2))
        if self._kernel is not None:
            image = x if x.dim() == 4 else x.view(*x.shape, 1, 1)
            dots = self._kernel(image, layer.threshold, self._packed)
            return layer.finish(dots if x.dim() == 4 else dots.flatten(1), above, self.alpha)
        weight = torch.where(self.positive, 1.0, -1.0)
        if isinstance(layer, BinaryConv2d):
            return layer.finish(F.conv2d(sign(above), weight, None, layer.stride, layer.padding), above, self.alpha)
        return layer.finish(F.linear(sign(above), weight), above, self.alpha)

    def take(self, layer: BinaryLayer) -> None:
        """Take over another's numbers, signs for its weights."""
        weight = layer.weight.detach()
        self._fill(weight >= 0, scales(weight))
        with torch.no_grad():
            self.layer.threshold.copy_(layer.threshold)
            self._bias.copy_(layer.bias)  # type: ignore[arg-type]

    def bits(self) -> Bytes:
        """Return the signs, one bit each."""
        return np.packbits(self.positive.numpy())

    def take_bits(self, data: Bytes) -> None:
        """Take over another's `bits`."""
        signs = torch.from_numpy(np.unpackbits(data, count=self.positive.numel())).bool()
        self._fill(signs.view(self.positive.shape), self.alpha)

    def floats(self) -> list[Tensor]:
        """Return the numbers that stay floats."""
        return [self.alpha, self.layer.threshold, self._bias]

    @property
    def _bias(self) -> Tensor:
        assert self.layer.bias is not None
        return self.layer.bias

    def _fill(self, positive: Tensor, alpha: Tensor) -> None:
        self.positive, self.alpha = positive, alpha
        if isinstance(self.layer, BinaryConv2d):
            self._packed = packed_signs(positive, int(self.layer.stride[0]), int(self.layer.padding[0]))
        else:
            self._packed = packed_signs(positive.view(*positive.shape, 1, 1), stride=1, padding=0)


class XnorStandIn:
    """A binarised network that multiplies by the kernel, or where there is none by floats, which is simulated.

    Args:
        network: as the teacher's; becomes the stand-in's own.
    """

    def __init__(self, network: AnyNetwork) -> None:
        self._network = network
        self._network.precision = Precision("fp32", channels_last=True)  # the kernel reads a pixel's channels together
        kernel, self.why_simulated = _kernel_or_reason()
        self.simulated = kernel is None
        self._signs = [Signs(layer, kernel) for layer in binarise(network)]
        inner = {id(p) for signs in self._signs for p in signs.parameters()}
        self._others = {name: p for name, p in network.named_parameters() if id(p) not in inner}
        for signs in self._signs:
            replace(network.torso, signs.layer, signs)

    def __call__(self, observation: Tensor) -> Output:
        """See `StandIn`."""
        output: Output = self._network(observation)
        return output

    def take(self, network: AnyNetwork, states: Tensor) -> None:
        """See `StandIn`."""
        given = network.state_dict()
        with torch.no_grad():
            for name, own in self._others.items():
                own.copy_(given[name])
        for signs, layer in zip(self._signs, binary_layers(network), strict=True):
            signs.take(layer)

    def pack(self) -> Bytes:
        """See `StandIn`."""
        return np.concatenate([*(signs.bits() for signs in self._signs), as_bytes(self._floats())])

    def unpack(self, data: Bytes) -> None:
        """See `StandIn`."""
        offset = 0
        for signs in self._signs:
            end = offset + -(-signs.positive.numel() // 8)
            signs.take_bits(data[offset:end])
            offset = end
        from_bytes(data[offset:], self._floats())

    def tune(self, observation: Tensor) -> None:
        """See `StandIn`; there is no choice."""

    def _floats(self) -> list[Tensor]:
        return [*(number for signs in self._signs for number in signs.floats()), *self._others.values()]


def binary_layers(network: nn.Module) -> list[BinaryLayer]:
    """Return a binarised network's binary layers, in order."""
    return [m for m in network.modules() if isinstance(m, BinaryLayer)]


def _kernel_or_reason() -> tuple[XnorKernel | None, str]:
    try:
        return xnor_kernel(), ""
    except NoKernelError as error:
        return None, str(error)
