"""Observations from frames: each frame is stored once and stacked where it is needed."""

from __future__ import annotations

import numpy as np

from hpcddrl.types import Array


def stack(frames: Array, first: Array, depth: int, out: Array | None = None) -> Array:
    """Return every observation that ``depth`` consecutive frames make.

    Frames from before an episode's first are replaced by that first one.

    Args:
        frames: [K + T, B, *frame_shape].
        first: [K + T, B] bool: the frame opens an episode.
        depth: K.
        out: [T + 1, B, K, *frame_shape] to write to, or None.

    Returns:
        [T + 1, B, K, *frame_shape]: observation t is made of frames t to t + K − 1.
    """
    length, envs = first.shape
    if depth == 1:
        observation = frames[:, :, None]
        if out is None:
            return observation
        np.copyto(out, observation)
        return out
    position = np.arange(length)[:, None]
    start = np.maximum.accumulate(np.where(first, position, 0), axis=0)  # of the episode, for every frame
    newest = position[depth - 1 :, :, None]  # [T + 1, 1, 1]
    index = np.maximum(newest - np.arange(depth)[::-1], start[depth - 1 :, :, None])  # [T + 1, B, K]
    rows = index * envs + np.arange(envs)[None, :, None]
    flat = frames.reshape(length * envs, -1)
    if out is None:
        out = np.empty((*index.shape, *frames.shape[2:]), frames.dtype)
    np.take(flat, rows, axis=0, out=out.reshape(*index.shape, -1), mode="clip")
    return out


def as_observation(stacked: Array) -> Array:
    """Merge the K frames of stacked arrays [..., K, *frame_shape] into observations: [K·D] | [K·C, H, W].

    Leading axes are those before K; a view.
    """
    shape = stacked.shape
    match len(shape):
        case 4:  # [T, B, K, D]
            return stacked.reshape(*shape[:2], shape[2] * shape[3])
        case 5:  # [T, B, K, H, W]
            return stacked
        case _:  # [T, B, K, C, H, W]
            return stacked.reshape(*shape[:2], shape[2] * shape[3], *shape[4:])
