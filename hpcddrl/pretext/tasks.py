"""Pretext tasks: what is made of a torso's features, what it should have been, and the loss between the two.

Each task is a module of its own weights alone; the torso's convolutions are given to it with every batch, so its
gradient reaches them while they stay the network's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from torch import Tensor, nn

from hpcddrl.pretext.attention import attention_losses
from hpcddrl.pretext.decoding import Decoder, encoded, feature_shape
from hpcddrl.pretext.keypoints import centres, gaussians, in_pixels, transported
from hpcddrl.pretext.motion import balanced, error_inside, moving, newest, weighted_error

Weighting = Callable[[Tensor, int], Tensor]  # observations [N, C, H, W] u8, channels of a frame -> [N, 1, H, W]


class Views(NamedTuple):
    """N observations and what followed on them."""

    observation: Tensor  # [N, C, H, W] u8
    action: Tensor  # [N] i64
    next_observation: Tensor  # [N, C, H, W] u8, one step or several later


class Solved(NamedTuple):
    """What a task made of a batch."""

    loss: Tensor
    metrics: dict[str, float]
    pictures: dict[str, Tensor]  # [N, c, H, W] each, in [0, 1]; c is 1 or 3
    points: Tensor | None = None  # [N, P, 2] rows and columns


class Task(Protocol):
    """Learns something of images that needs no reward."""

    def __call__(self, body: nn.Sequential, views: Views) -> Solved:
        """Return the loss of a batch; ``body`` is the torso's convolutions."""


def evenly(observation: Tensor, channels: int) -> Tensor:
    """Weigh all pixels alike."""
    return torch.ones_like(observation[:, :1], dtype=torch.float32)


def by_motion(observation: Tensor, channels: int) -> Tensor:
    """Weigh all that moves as much as all that does not."""
    return balanced(moving(observation, channels))


class Autoencoder(nn.Module):
    """Makes the newest frame again from the features of the observation.

    Args:
        body: the torso's convolutions.
        shape: [C, H, W] of observations.
        channels: of one frame.
        weighting: of the pixels' errors.
    """

    def __init__(self, body: nn.Sequential, shape: tuple[int, ...], channels: int, weighting: Weighting) -> None:
        super().__init__()
        require_two_frames(shape, channels)
        self._channels, self._weighting = channels, weighting
        self.decoder = Decoder(body, shape, channels)

    def forward(self, body: nn.Sequential, views: Views) -> Solved:
        """See `Task`."""
        target = newest(views.observation, self._channels)
        made = self.decoder(encoded(body, views.observation))
        loss = weighted_error(made, target, self._weighting(views.observation, self._channels))
        return Solved(loss, _errors(made, target, views.observation, self._channels), _pictures(target, made))


class AttentiveAutoencoder(nn.Module):
    """An autoencoder whose errors are weighed by a mask that learns where they are large.

    Args:
        body: the torso's convolutions.
        shape: [C, H, W] of observations.
        channels: of one frame.
        temperature: of the mask, see `attention_losses`.
    """

    def __init__(self, body: nn.Sequential, shape: tuple[int, ...], channels: int, temperature: float = 0.1) -> None:
        super().__init__()
        require_two_frames(shape, channels)
        self._channels, self._temperature = channels, temperature
        self.decoder, self.attention = Decoder(body, shape, channels), Decoder(body, shape, 1)

    def forward(self, body: nn.Sequential, views: Views) -> Solved:
        """See `Task`; to tell where errors are is learned by the torso too."""
        target, features = newest(views.observation, self._channels), encoded(body, views.observation)
        made, logits = self.decoder(features), self.attention(features)
        error = ((made - target) ** 2).mean(dim=1)
        losses = attention_losses(error, logits[:, 0], self._temperature)
        metrics = _errors(made, target, views.observation, self._channels)
        most = losses.mask.amax(dim=(1, 2), keepdim=True)
        pictures = _pictures(target, made) | {"attention": (losses.mask / most).unsqueeze(1)}
        return Solved(losses.reconstruction + losses.attention, metrics, pictures)


class NextFrame(nn.Module):
    """Foretells how the newest frame changes by the action taken.

    Each action scales and shifts the features' channels, which are then decoded to a change that is added to the frame
    (action-conditional prediction as in Oh et al. 2015, arXiv:1507.08750, with a sum in place of its second factor).

    Args:
        body: the torso's convolutions.
        shape: [C, H, W] of observations.
        channels: of one frame.
        actions: how many there are.
        weighting: of the pixels' errors, by the observation that follows.
    """

    def __init__(
        self, body: nn.Sequential, shape: tuple[int, ...], channels: int, actions: int, weighting: Weighting
    ) -> None:
        super().__init__()
        require_two_frames(shape, channels)
        self._channels, self._weighting = channels, weighting
        features = feature_shape(body, shape)[0]
        self.scale, self.shift = nn.Embedding(actions, features), nn.Embedding(actions, features)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)
        self.decoder = Decoder(body, shape, channels)

    def forward(self, body: nn.Sequential, views: Views) -> Solved:
        """See `Task`; the observations that follow are one step later."""
        target = newest(views.next_observation, self._channels)
        features = encoded(body, views.observation)
        acted = features * self.scale(views.action)[..., None, None] + self.shift(views.action)[..., None, None]
        made = newest(views.observation, self._channels) + self.decoder(acted)
        loss = weighted_error(made, target, self._weighting(views.next_observation, self._channels))
        return Solved(loss, _errors(made, target, views.next_observation, self._channels), _pictures(target, made))


class Segmentation(nn.Module):
    """Tells figure from ground: what has just moved from what has not.

    The loss is the cross-entropy of each pixel, figure and ground weighing the same.

    Args:
        body: the torso's convolutions.
        shape: [C, H, W] of observations.
        channels: of one frame.
    """

    def __init__(self, body: nn.Sequential, shape: tuple[int, ...], channels: int) -> None:
        super().__init__()
        require_two_frames(shape, channels)
        self._channels = channels
        self.decoder = Decoder(body, shape, 1)

    def forward(self, body: nn.Sequential, views: Views) -> Solved:
        """See `Task`."""
        mask = moving(views.observation, self._channels, spread=1)  # things as a whole
        logits = self.decoder(encoded(body, views.observation))
        loss = F.binary_cross_entropy_with_logits(logits, mask.float(), balanced(mask))
        part = mask.float().mean().clamp(1e-6, 1 - 1e-6)
        found = logits > torch.log((1 - part) / part)  # more likely than not, without the balance
        pictures = {
            "frame": newest(views.observation, self._channels),
            "figure": torch.sigmoid(logits.detach()),
            "moved": mask.float(),
        }
        return Solved(loss, {"overlap": overlap(found, mask)}, pictures)


class ObjectProposals(nn.Module):
    """Finds points on things, by making a later frame from an earlier one's features and those at the points alone.

    As in Kulkarni et al. 2019, arXiv:1906.11883. The source's features and points are constants to the gradient, as in
    the authors' released code (from memory, unchecked).

    Args:
        body: the torso's convolutions.
        shape: [C, H, W] of observations.
        channels: of one frame.
        points: P.
        weighting: of the pixels' errors, by the later observation.
        deviation: of the bumps around the points, half an image being 1.
    """

    def __init__(
        self,
        body: nn.Sequential,
        shape: tuple[int, ...],
        channels: int,
        points: int,
        weighting: Weighting,
        deviation: float = 0.1,
    ) -> None:
        super().__init__()
        require_two_frames(shape, channels)
        self._channels, self._weighting, self._deviation = channels, weighting, deviation
        features, *self._size = feature_shape(body, shape)
        self.points = nn.Conv2d(features, points, 1)
        self.decoder = Decoder(body, shape, channels)

    def forward(self, body: nn.Sequential, views: Views) -> Solved:
        """See `Task`; the later observations should be many steps later, so that things stand elsewhere."""
        target = newest(views.next_observation, self._channels)
        with torch.no_grad():
            source_features = encoded(body, views.observation)
            source_bumps = self._bumps(centres(self.points(source_features)))
        features = encoded(body, views.next_observation)
        places = centres(self.points(features))
        bumps = self._bumps(places)
        made = self.decoder(transported(source_features, features, source_bumps, bumps))
        loss = weighted_error(made, target, self._weighting(views.next_observation, self._channels))
        height, width = target.shape[-2:]
        pictures = _pictures(target, made) | {
            "points": F.interpolate(bumps.amax(1, keepdim=True), (height, width)).detach()
        }
        metrics = _errors(made, target, views.next_observation, self._channels)
        return Solved(loss, metrics, pictures, in_pixels(places.detach(), height, width))

    def _bumps(self, places: Tensor) -> Tensor:
        return gaussians(places, (self._size[0], self._size[1]), self._deviation)


def require_two_frames(shape: tuple[int, ...], channels: int) -> None:
    """Check that observations show what moves.

    Raises:
        ValueError: they are no images, or of one frame.
    """
    if len(shape) != 3:
        raise ValueError(
            f"a pretext task needs images, the environment shows vectors of {shape[0]}; name one that shows images, or "
            "leave the task out"
        )
    if shape[0] < 2 * channels:
        raise ValueError(
            "env.frame_stack = 1: a pretext task needs two frames to tell what moves; set env.frame_stack=2 or more"
        )


def overlap(found: Tensor, mask: Tensor) -> float:
    """Return the intersection of two masks over their union; 1 if both are empty."""
    union = int((found | mask).sum())
    return int((found & mask).sum()) / union if union else 1.0


def _errors(made: Tensor, target: Tensor, observation: Tensor, channels: int) -> dict[str, float]:
    with torch.no_grad():
        inside = error_inside(made, target, moving(observation, channels))
        return {"error": float(((made - target) ** 2).mean()), "error_moving": float(inside)}


def _pictures(target: Tensor, made: Tensor) -> dict[str, Tensor]:
    return {"frame": target, "made": made.detach().clamp(0, 1)}
