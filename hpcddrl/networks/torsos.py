"""Torsos: observations [N, *shape] in, features [N, units] out. ``width`` scales channels and units."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

CONVOLUTIONS = {  # channels, kernel, stride; without padding
    "nips": ((16, 8, 4), (32, 4, 2)),
    "nature": ((32, 8, 4), (64, 4, 2), (64, 3, 1)),
}


def _scaled(count: int, width: float) -> int:
    return max(1, round(count * width))


def _features(body: nn.Module, shape: tuple[int, ...]) -> int:
    with torch.no_grad():
        return int(body(torch.zeros(1, *shape)).numel())


def _convolutions(shape: tuple[int, ...], name: str, units: int, width: float) -> nn.Module:
    """Build a torso's convolutions, then one linear layer, each with ReLU."""
    body: list[nn.Module] = []
    channels = shape[0]
    for out, kernel, stride in CONVOLUTIONS[name]:
        body += [nn.Conv2d(channels, _scaled(out, width), kernel, stride), nn.ReLU()]
        channels = _scaled(out, width)
    body.append(nn.Flatten())
    features = _features(nn.Sequential(*body), shape)
    return nn.Sequential(*body, nn.Linear(features, _scaled(units, width)), nn.ReLU())


def mlp(shape: tuple[int, ...], width: float) -> nn.Module:
    """Two layers of 128 tanh units; images are flattened."""
    units = _scaled(128, width)
    size = 1
    for side in shape:
        size *= side
    return nn.Sequential(nn.Flatten(), nn.Linear(size, units), nn.Tanh(), nn.Linear(units, units), nn.Tanh())


def nips(shape: tuple[int, ...], width: float) -> nn.Module:
    """The network of DQN's first version and of A3C (Mnih et al. 2013, 2016): 16@8/4, 32@4/2, 256 units."""
    return _convolutions(shape, "nips", 256, width)


def nature(shape: tuple[int, ...], width: float) -> nn.Module:
    """The network of DQN in Nature (Mnih et al. 2015): 32@8/4, 64@4/2, 64@3/1, 512 units."""
    return _convolutions(shape, "nature", 512, width)


class Residual(nn.Module):
    """x + conv(relu(conv(relu(x)))), 3×3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of the input [N, C, H, W] and the block's answer to it."""
        y: Tensor = self.second(torch.relu(self.first(torch.relu(x))))
        return x + y


def resnet(shape: tuple[int, ...], width: float) -> nn.Module:
    """IMPALA's deep network (Espeholt et al. 2018, figure 3): 16, 32, 32 channels, two residual blocks each."""
    body: list[nn.Module] = []
    channels = shape[0]
    for out in (16, 32, 32):
        scaled = _scaled(out, width)
        body += [nn.Conv2d(channels, scaled, 3, padding=1), nn.MaxPool2d(3, 2, padding=1)]
        body += [Residual(scaled), Residual(scaled)]
        channels = scaled
    body += [nn.ReLU(), nn.Flatten()]
    features = _features(nn.Sequential(*body), shape)
    return nn.Sequential(*body, nn.Linear(features, _scaled(256, width)), nn.ReLU())


TORSOS: dict[str, Callable[[tuple[int, ...], float], nn.Module]] = {f.__name__: f for f in (mlp, nips, nature, resnet)}
SMALLEST_SIDE = {"mlp": 1, "nips": 20, "nature": 36, "resnet": 1}


def resolved(name: str, shape: tuple[int, ...]) -> str:
    """Return the torso that a name stands for: ``auto`` takes nips for images of 64 pixels and more, else mlp."""
    if name != "auto":
        return name
    return "nips" if len(shape) == 3 and min(shape[1:]) >= 64 else "mlp"


def unseen(name: str, side: int) -> int:
    """Return how many of an image's last pixels along a side a torso does not look at.

    Strides that don't fit leave them out: of Atari's 84 pixels none, of 42 pixels nips and nature leave out 6.
    """
    counts, layers = [side], CONVOLUTIONS.get(name, ())
    for _, kernel, stride in layers:
        counts.append((counts[-1] - kernel) // stride + 1)
    reached = counts[-1]
    for _, kernel, stride in reversed(layers):
        reached = (reached - 1) * stride + kernel
    return side - reached


def blind_spot(name: str, shape: tuple[int, ...]) -> str | None:
    """Return a line about what a torso does not see of observations of this shape; None if it sees all."""
    name = resolved(name, shape)
    rows, columns = (unseen(name, side) for side in shape[1:]) if len(shape) == 3 else (0, 0)
    if not rows and not columns:
        return None
    return (
        f"network.torso = {name!r} does not see the last {rows} rows and {columns} columns of images of "
        f"{shape[1]}×{shape[2]}, where its strides don't fit; show it 84×84, or set network.torso=resnet or mlp"
    )


def torso(name: str, shape: tuple[int, ...], width: float) -> nn.Module:
    """Build a torso by name.

    Raises:
        ValueError: a torso that the observations are too small for, or convolutions over vectors.
    """
    side = min(shape[1:]) if len(shape) == 3 else 0
    name = resolved(name, shape)
    if name != "mlp" and side < SMALLEST_SIDE[name]:
        what = f"images of {shape[1]}×{shape[2]}" if side else f"vectors of {shape[0]}"
        needs = f"images of at least {SMALLEST_SIDE[name]}×{SMALLEST_SIDE[name]} pixels"
        raise ValueError(f"network.torso = {name!r}: needs {needs}, the environment shows {what}; use mlp")
    return TORSOS[name](shape, width)
