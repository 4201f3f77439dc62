"""What a replay stores of each frame and of the step taken on seeing it, and the memory that takes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from hpcddrl.types import Array, EnvSpec


class Store(NamedTuple):
    """One row a slot: the frame of time t, and the step that was taken on seeing it."""

    frames: Array  # [slots, *frame_shape]
    first: Array  # [slots] bool: the frame opens an episode, so the step before only reset the environment
    action: Array  # [slots] i64 | [slots, dim] f32
    reward: Array  # [slots] f32
    discount: Array  # [slots] f32: 0 or 1
    value: Array  # [slots] f32
    action_value: Array  # [slots] f32
    version: Array  # [slots] i32


def new_store(spec: EnvSpec, slots: int) -> Store:
    """Return a store of so many slots, all zero."""
    return Store(**{name: np.zeros(shape, dtype) for name, (shape, dtype) in _fields(spec, slots).items()})


def store_bytes(spec: EnvSpec, slots: int) -> int:
    """Return the memory of a store before there is one."""
    return sum(math.prod(shape) * int(np.dtype(dtype).itemsize) for shape, dtype in _fields(spec, slots).values())


def _fields(spec: EnvSpec, slots: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Return shape and dtype of all that is stored."""
    numbers: dict[str, tuple[tuple[int, ...], Any]] = {
        name: ((slots,), np.float32) for name in ("reward", "discount", "value", "action_value")
    }
    return {
        "frames": ((slots, *spec.frame_shape), spec.frame_dtype),
        "first": ((slots,), np.bool_),
        "action": spec.action_field(slots),
        "version": ((slots,), np.int32),
        **numbers,
    }
