"""A torso's convolutions, and the deconvolutions that lead from their features back to an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def convolutions(torso: nn.Module) -> nn.Sequential:
    """Return the part of a torso that keeps places: all before it is flattened. Its weights are the torso's own.

    Raises:
        ValueError: a torso without convolutions.
    """
    layers = list(torso.children())
    flat = next(i for i, layer in enumerate(layers) if isinstance(layer, nn.Flatten))
    if not flat:
        raise ValueError(
            "network.torso = 'mlp': a pretext task needs features that have a place in the image; use nips, nature or "
            "resnet"
        )
    return nn.Sequential(*layers[:flat])


def encoded(body: nn.Module, observation: Tensor) -> Tensor:
    """Return the features [N, F, h, w] of observations [N, C, H, W] u8."""
    features: Tensor = body(observation.float() / 255)
    return features


class Decoder(nn.Module):
    """Deconvolutions that mirror a torso's convolutions layer by layer, so that sizes fit exactly.

    A pooling layer is mirrored by repeating pixels, a residual block by nothing.

    Args:
        body: the convolutions.
        shape: [C, H, W] of the observations.
        channels: of the images made.
    """

    def __init__(self, body: nn.Sequential, shape: tuple[int, ...], channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        first = True
        for layer, size in reversed(_with_sizes(body, shape)):
            if isinstance(layer, nn.Conv2d):
                out = channels if layer is body[0] else layer.in_channels
                layers += [nn.ReLU()] if not first else []
                layers.append(_mirrored(layer, size, out))
                first = False
            elif isinstance(layer, nn.MaxPool2d):
                layers.append(nn.Upsample(size=size))
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Return images [N, channels, H, W] of features [N, F, h, w]."""
        images: Tensor = self.layers(features)
        return images


def feature_shape(body: nn.Module, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return [F, h, w] of the features of observations [C, H, W]."""
    with torch.no_grad():
        _, features, height, width = body(_blank(body, shape)).shape
    return features, height, width


def _blank(body: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Return an empty observation where a torso computes."""
    return torch.zeros(1, *shape, device=next(body.parameters()).device)


def _with_sizes(body: nn.Sequential, shape: tuple[int, ...]) -> list[tuple[nn.Module, tuple[int, int]]]:
    """Return each layer with the height and width of what goes into it."""
    x, found = _blank(body, shape), []
    with torch.no_grad():
        for layer in body:
            found.append((layer, (x.shape[-2], x.shape[-1])))
            x = layer(x)
    return found


def _mirrored(layer: nn.Conv2d, size: tuple[int, int], channels: int) -> nn.ConvTranspose2d:
    """Return the transposed convolution that leads back to ``size``, whatever the stride left over."""
    kernel, stride, padding = _pair(layer.kernel_size), _pair(layer.stride), _pair(layer.padding)
    left_over = _pair([(size[i] + 2 * padding[i] - kernel[i]) % stride[i] for i in (0, 1)])
    return nn.ConvTranspose2d(layer.out_channels, channels, kernel, stride, padding, left_over)


def _pair(numbers: Sequence[int] | str) -> tuple[int, int]:
    assert not isinstance(numbers, str), "torsos pad by numbers"
    height, width = numbers
    return height, width
