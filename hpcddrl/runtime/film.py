"""Games as moving pictures, of what the policy saw."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from hpcddrl.types import Array, EnvSpec

LEAST_PIXELS = 240  # of the shorter side; smaller pictures are shown enlarged
LONGEST = 20_000  # steps that are kept: a game that is longer is cut off


def check_filmable(spec: EnvSpec, env: str) -> None:
    """Complain of observations that are no pictures.

    Raises:
        ValueError: they are vectors.
    """
    if len(spec.frame_shape) == 1:
        raise ValueError(f"--video: {env} shows vectors and no pictures, so there is nothing to film; leave it away")


def picture(observation: Array, spec: EnvSpec) -> Array:
    """Return the newest frame of an observation as an image [H, W] or [H, W, 3] u8.

    Of planes that are no colours the brightest counts at each place.
    """
    planes = 1 if len(spec.frame_shape) == 2 else spec.frame_shape[0]
    newest = observation[-planes:]
    if newest.dtype != np.uint8:
        newest = (255 * np.clip(newest, 0, 1)).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(newest, 0, -1) if planes == 3 else newest.max(0))


def write_gif(path: Path, observations: Iterable[Array], spec: EnvSpec, frames_per_s: float) -> int:
    """Write a game as a GIF that plays at its own pace, and return its steps.

    Args:
        path: of the file.
        observations: [*observation_shape] of each step.
        spec: of the environment.
        frames_per_s: environment steps a second.

    Raises:
        OSError: the file cannot be written.
    """
    pictures = []
    for observation, _ in zip(observations, range(LONGEST), strict=False):
        image = Image.fromarray(picture(observation, spec))
        times = -(-LEAST_PIXELS // min(image.size))
        pictures.append(image.resize((times * image.width, times * image.height), Image.Resampling.NEAREST))
    first, *others = pictures
    first.save(path, save_all=True, append_images=others, duration=round(1000 / frames_per_s), loop=0, optimize=False)
    return len(pictures)
