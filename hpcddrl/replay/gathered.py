"""Transitions as they are drawn from a replay."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hpcddrl.types import Array, EnvSpec


class Gathered(NamedTuple):
    """N transitions of up to n steps each."""

    observation: Array  # [N, *observation_shape]
    next_observation: Array  # [N, *observation_shape]: n steps later, or the episode's last
    action: Array  # [N] i64 | [N, dim] f32
    reward: Array  # [N] f32: Σ γᵏ r over the steps
    discount: Array  # [N] f32: of the value of the next observation; 0 if the episode terminated before it
    version: Array  # [N] i64: of the weights that acted


def empty(spec: EnvSpec, n: int) -> Gathered:
    """Return uninitialised arrays for ``n`` transitions."""
    observation = (n, *spec.observation_shape)
    return Gathered(
        observation=np.empty(observation, spec.frame_dtype),
        next_observation=np.empty(observation, spec.frame_dtype),
        action=np.empty(*spec.action_field(n)),
        reward=np.empty(n, np.float32),
        discount=np.empty(n, np.float32),
        version=np.empty(n, np.int64),
    )
