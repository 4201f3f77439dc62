"""Goal environments as frames: observation, desired and achieved goal side by side in one array, and back.

Vectors are concatenated, images are planes of one image. So a goal travels, is stored and is seen like everything else,
and a transition's reward can be computed again from two frames, under another goal too. The achieved goal is seen as
well: it need not be a part of the observation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from hpcddrl.envs.rewards import RewardTransform
from hpcddrl.types import Array, GoalLayout, GoalOutcome

PARTS = ("observation", "desired_goal", "achieved_goal")  # in the order of `GoalLayout`


class AsOneArray(gym.ObservationWrapper[NDArray[Any], Any, dict[str, NDArray[Any]]]):
    """Shows a goal environment's three arrays as one.

    Raises:
        ValueError: they are neither all vectors nor all images of one size, or the goals differ in shape.
    """

    def __init__(self, env: gym.Env[dict[str, NDArray[Any]], Any]) -> None:
        super().__init__(env)
        spaces = _parts(env)
        shapes = [_planes(space.shape) for space in spaces.values()]
        image = len(shapes[0]) == 3
        dtypes = {space.dtype for space in spaces.values()}
        if shapes[1] != shapes[2] or len({shape[1:] for shape in shapes}) > 1 or (image and dtypes != {np.dtype("u1")}):
            shown = ", ".join(f"{name} {space.shape} {space.dtype}" for name, space in spaces.items())
            raise ValueError(
                f"goals that do not fit beside the observation ({shown}): use three vectors or three images of uint8 "
                "and one size, and goals of one shape"
            )
        self.goal_layout = GoalLayout(shapes[0][0], shapes[1][0])
        shape, dtype = (sum(s[0] for s in shapes), *shapes[0][1:]), np.uint8 if image else np.float32
        low, high = (0, 255) if image else (-np.inf, np.inf)
        self.observation_space = gym.spaces.Box(low, high, shape, dtype)

    def observation(self, observation: dict[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the parts side by side, [D] f32 or [C, H, W] u8."""
        parts = [_as_planes(np.asarray(observation[name])) for name in PARTS]
        return np.concatenate(parts, dtype=self.observation_space.dtype)


def has_goal(env: gym.Env[Any, Any]) -> bool:
    """Say whether an environment shows what goal environments show."""
    space = env.observation_space
    return isinstance(space, gym.spaces.Dict) and set(PARTS) <= set(space) and hasattr(env.unwrapped, "compute_reward")


def outcome(env: gym.Env[Any, Any], transform: RewardTransform) -> GoalOutcome:
    """Return what transitions of a goal environment are worth under any goal.

    Args:
        env: with a goal; not wrapped by `AsOneArray`.
        transform: from its rewards to those that are learned from.
    """
    space, unwrapped = _parts(env)["desired_goal"], env.unwrapped
    rewards = _by_rows(unwrapped.compute_reward, space)  # type: ignore[attr-defined]  # `has_goal` says so
    ending = _by_rows(unwrapped.compute_terminated, space) if hasattr(unwrapped, "compute_terminated") else None

    def worth(achieved: Array, desired: Array) -> tuple[Array, Array]:
        goals = _from_planes(achieved, space), _from_planes(desired, space)
        ends = ending(*goals).astype(bool) if ending is not None else np.zeros(len(achieved), bool)
        return transform(rewards(*goals), ends), ends

    return worth


def _parts(env: gym.Env[Any, Any]) -> dict[str, gym.spaces.Box]:
    space = env.observation_space
    assert isinstance(space, gym.spaces.Dict), "a goal environment"
    parts = {name: space[name] for name in PARTS}
    for name, part in parts.items():
        if not isinstance(part, gym.spaces.Box) or not 1 <= len(part.shape) <= 3:
            raise ValueError(f"{name} {part} is not supported; use a Box vector or image")
    return parts  # type: ignore[return-value]  # checked just now


def _planes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that `_as_planes` gives: [D] or [C, H, W]."""
    return _as_planes(np.empty(shape, np.uint8)).shape


def _channels_last(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[-1] < shape[0]


def _as_planes(part: NDArray[Any]) -> NDArray[Any]:
    if part.ndim == 2:
        return part[None]
    return np.moveaxis(part, -1, 0) if _channels_last(part.shape) else part


def _from_planes(parts: Array, space: gym.spaces.Box) -> Array:
    """Return goals [N, ...] as frames show them in the environment's own shape and dtype."""
    if _channels_last(space.shape):
        parts = np.moveaxis(parts, 1, -1)
    return parts.reshape(len(parts), *space.shape).astype(space.dtype, copy=False)


def _by_rows(function: Callable[[Array, Array, Any], Any], space: gym.spaces.Box) -> Callable[[Array, Array], Array]:
    """Return what answers [N] to achieved and desired goals [N, *goal], at once if the function takes batches."""
    two = np.zeros((2, *space.shape), space.dtype)
    try:
        batches = np.shape(function(two, two, {})) == (2,)
    except Exception:  # it was written for one pair of goals; what else is wrong shows when it gets one
        batches = False
    if batches:
        return lambda achieved, desired: np.asarray(function(achieved, desired, {}))
    return lambda achieved, desired: np.array([function(a, d, {}) for a, d in zip(achieved, desired, strict=True)])
