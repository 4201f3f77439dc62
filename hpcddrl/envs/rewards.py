"""From an environment's rewards to those that are learned from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from hpcddrl.types import Array, State

RewardTransform = Callable[[Array, Array], Array]  # rewards [B] f64, ends [B] bool -> rewards [B] f32


def raw(reward: Array, ends: Array) -> Array:
    """Leave rewards as they are."""
    return reward.astype(np.float32)


def clip(reward: Array, ends: Array) -> Array:
    """Clip rewards to [-1, 1], as DQN does on Atari."""
    return np.asarray(np.clip(reward, -1.0, 1.0), np.float32)


class Normalise:
    """Divide rewards by the running standard deviation of their discounted returns, bounded at ±10.

    The deviation is over all B environments of one rank since its start (Welford's update, by batches); the mean is
    not subtracted, so that the sign of a reward stays.
    """

    def __init__(self, num_envs: int, discount: float) -> None:
        self._discount = discount
        self._return = np.zeros(num_envs)
        self._count, self._mean, self._m2 = 1e-4, 0.0, 1e-4

    def begin(self) -> None:
        """Note that every environment has been reset."""
        self._return[:] = 0.0

    def state(self) -> State:
        """See `Stateful`: the deviation, and nothing of running episodes."""
        return {"count": self._count, "mean": self._mean, "m2": self._m2}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self._count, self._mean, self._m2 = float(state["count"]), float(state["mean"]), float(state["m2"])

    def __call__(self, reward: Array, ends: Array) -> Array:
        """Take rewards [B] and episode ends [B] into account; return the rewards [B] scaled."""
        self._return = self._return * self._discount + reward.astype(np.float64)
        count, mean = len(self._return), self._return.mean()
        total, delta = self._count + count, mean - self._mean
        self._m2 += ((self._return - mean) ** 2).sum() + delta**2 * self._count * count / total
        self._mean += delta * count / total
        self._count = total
        self._return[ends.astype(bool)] = 0.0
        deviation = np.sqrt(self._m2 / self._count + 1e-8)
        return np.asarray(np.clip(reward / deviation, -10.0, 10.0), np.float32)


def reward_transform(
    wanted: Literal["auto", "raw", "clip", "normalise"], atari: bool, num_envs: int, discount: float
) -> RewardTransform:
    """Return the transform that `config.Env.reward` names."""
    match wanted:
        case "raw":
            return raw
        case "clip":
            return clip
        case "auto" if atari:
            return clip
        case _:
            return Normalise(num_envs, discount)
