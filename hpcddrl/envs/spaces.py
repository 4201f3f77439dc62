"""What environments show and take, from the spaces that they declare."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import SyncVectorEnv, VectorEnv

from hpcddrl.config import Env
from hpcddrl.types import ActionSpec, Continuous, Discrete, EnvSpec


def spec_of(env: Env, vector: VectorEnv[Any, Any, Any], atari: bool) -> EnvSpec:
    """Return what a network and a message must know of a vector environment; of Atari's, frames come in stacks of one.

    Raises:
        ValueError: spaces that are not supported.
    """
    shape, dtype = _frame(env, vector.single_observation_space, atari)
    goal = None
    if isinstance(vector, SyncVectorEnv) and vector.envs[0].has_wrapper_attr("goal_layout"):
        goal = vector.envs[0].get_wrapper_attr("goal_layout")
    return EnvSpec(
        frame_shape=shape,
        frame_dtype=dtype,
        frame_stack=env.frame_stack or (4 if atari else 1),
        action=_action(env, vector.single_action_space),
        frame_skip=env.frame_skip if atari else 1,
        goal=goal,
    )


def _frame(env: Env, space: gym.Space[Any], atari: bool) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if not isinstance(space, gym.spaces.Box) or not 1 <= len(space.shape) <= 3:
        raise ValueError(
            f"env.id = {env.id!r}: observations {space} are not supported; use a Box vector or image, or a "
            "dictionary of observation, desired_goal and achieved_goal (with compute_reward)"
        )
    shape = tuple(int(n) for n in space.shape)
    if atari:
        shape = shape[1:]  # the stack of one
    elif len(shape) == 3 and shape[-1] < shape[0]:
        shape = (shape[-1], *shape[:-1])
    image = len(shape) > 1 and space.dtype == np.uint8
    return shape, np.dtype(np.uint8 if image else np.float32)


def _action(env: Env, space: gym.Space[Any]) -> ActionSpec:
    if isinstance(space, gym.spaces.Discrete) and space.start == 0:
        return Discrete(int(space.n))
    if isinstance(space, gym.spaces.Box) and len(space.shape) == 1 and space.is_bounded():
        return Continuous(np.asarray(space.low, np.float32), np.asarray(space.high, np.float32))
    raise ValueError(
        f"env.id = {env.id!r}: actions {space} are not supported; use Discrete from 0 or a bounded Box vector"
    )
