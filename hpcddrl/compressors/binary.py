"""Networks of signs (XNOR-Net, Rastegari et al. 2016, arXiv:1603.05279): w ≈ α sign(w), x ≈ K sign(x).

The first layer and the heads keep full precision. Behind a ReLU every input is positive, where XNOR-Net has batch
normalisation; here each layer learns a threshold for each of its inputs, and takes the sign of what is above it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn

from hpcddrl.compressors.distillation import Distiller, answers
from hpcddrl.compressors.layers import weighted
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.types import State

SMALL = 0.01  # of its inputs' size: what a layer whose teacher's weights are all 0 answers at first


class Sign(torch.autograd.Function):
    """+1 from 0 on, else −1; its gradient passes straight through where |x| ≤ 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return the signs."""
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the gradient where |x| ≤ 1, else 0."""
        (x,) = ctx.saved_tensors
        passed: Tensor = gradients[0] * (x.abs() <= 1)
        return passed


def sign(x: Tensor) -> Tensor:
    """Return +1 or −1 for each number, with the straight-through gradient."""
    signs: Tensor = Sign.apply(x)  # type: ignore[no-untyped-call]
    return signs


def scales(weight: Tensor) -> Tensor:
    """Return α = mean |w| of each output, [out]."""
    return weight.abs().flatten(1).mean(1)


class BinaryConv2d(nn.Conv2d):
    """y = α K (sign(x − t) ⊛ sign(w)) + b, K the mean of |x − t| in each window.

    Args:
        layer: the convolution in whose place it stands; its weights and biases are the first.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        geometry = (layer.kernel_size, layer.stride, layer.padding)
        super().__init__(layer.in_channels, layer.out_channels, *geometry)  # type: ignore[arg-type]
        self.load_state_dict(layer.state_dict())
        self.threshold = nn.Parameter(torch.zeros(layer.in_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, out, H', W'] of [N, in, H, W]."""
        above = x - self.threshold.view(1, -1, 1, 1)
        dots = F.conv2d(sign(above), sign(self.weight), None, self.stride, self.padding)
        return self.finish(dots, above, scales(self.weight))

    def finish(self, dots: Tensor, above: Tensor, alpha: Tensor) -> Tensor:
        """Return α K dots + b."""
        size = above.abs().mean(1).unsqueeze(1)  # rows stay rows, which is the pooling that torch does fast
        k = F.avg_pool2d(size, self.kernel_size, self.stride, self.padding)  # type: ignore[arg-type]
        assert self.bias is not None
        return torch.addcmul(self.bias.view(1, -1, 1, 1), dots * k, alpha.view(1, -1, 1, 1))


class BinaryLinear(nn.Linear):
    """y = α K (sign(x − t) · sign(w)) + b, K the mean of |x − t|.

    Args:
        layer: the linear layer in whose place it stands; its weights and biases are the first.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features)
        self.load_state_dict(layer.state_dict())
        self.threshold = nn.Parameter(torch.zeros(layer.in_features))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, out] of [N, in]."""
        above = x - self.threshold
        return self.finish(F.linear(sign(above), sign(self.weight)), above, scales(self.weight))

    def finish(self, dots: Tensor, above: Tensor, alpha: Tensor) -> Tensor:
        """Return α K dots + b."""
        return dots * above.abs().mean(1, keepdim=True) * alpha + self.bias


BinaryLayer = BinaryConv2d | BinaryLinear


def replace(torso: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module in another's place."""
    for parent in list(torso.modules()):
        for name, child in list(parent.named_children()):
            if child is old:
                setattr(parent, name, new)


def binarise(network: AnyNetwork) -> list[BinaryLayer]:
    """Put binary layers in the place of all of a torso's but the first; return them, in order."""
    made: list[BinaryLayer] = []
    for layer in list(weighted(network.torso))[1:]:
        made.append(BinaryConv2d(layer) if isinstance(layer, nn.Conv2d) else BinaryLinear(layer))
        replace(network.torso, layer, made[-1])
    return made


class Binary:
    """A teacher's network with signs in the place of its inner weights and inputs, distilled.

    Args:
        network: of the teacher's shape, binarised already.
        layers: its binary layers.
        distiller: of it.
    """

    def __init__(self, network: AnyNetwork, layers: list[BinaryLayer], distiller: Distiller) -> None:
        self.network, self._layers, self._distiller = network, layers, distiller
        self._begun = False

    def follow(self, teacher: AnyNetwork, states: Tensor) -> int:
        """See `Shape`; it begins with its first teacher's weights, and its inputs' means as thresholds."""
        if not self._begun and len(states):
            self.network.load_state_dict(teacher.state_dict(), strict=False)  # all but the thresholds
            self._wake()
            self._centre_inputs(states)
            self.constrain()
            self._begun = True
        return self._distiller.follow(teacher, states, self.constrain)

    def state(self) -> State:
        """See `Shape`."""
        return {"begun": self._begun, "distiller": self._distiller.state()}

    def restore(self, state: State) -> None:
        """See `Shape`."""
        self._begun = state["begun"]
        self._distiller.restore(state["distiller"])

    def constrain(self) -> None:
        """Keep each filter's weights at mean 0 over its input channels, and within [−1, 1], as XNOR-Net does."""
        with torch.no_grad():
            for layer in self._layers:
                layer.weight.sub_(layer.weight.mean(1, keepdim=True)).clamp_(-1, 1)

    def _wake(self) -> None:
        """Give layers of nothing but zeros, as a residual block that is the identity has one, small weights.

        With α = 0 no gradient would come to their signs, nor through them.
        """
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for layer in self._layers:
                if not layer.weight.any():
                    layer.weight.normal_(0, SMALL / layer.weight[0].numel() ** 0.5, generator=generator)

    def _centre_inputs(self, states: Tensor) -> None:
        """Set the thresholds layer by layer, since each changes what the layers behind it see."""
        for layer in self._layers:

            def centre(module: BinaryLayer, inputs: tuple[Tensor, ...]) -> None:
                with torch.no_grad():
                    module.threshold.copy_(inputs[0].mean([d for d in range(inputs[0].dim()) if d != 1]))

            handle = layer.register_forward_pre_hook(centre)
            answers(self.network, states[:256])
            handle.remove()
