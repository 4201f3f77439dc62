"""Environments that step together; the contract of resets and truncation is settled here, once.

Every environment resets itself during the step *after* its last one (Gymnasium's NEXT_STEP). So the final
observation of an episode is in the stream, a truncated step finds what to bootstrap from right behind it, and the
step that only resets is marked by ``first`` and learned from by nobody.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from hpcddrl.envs.isolated import Isolated, reset
from hpcddrl.envs.rewards import Normalise, RewardTransform
from hpcddrl.envs.watchdog import Watchdog
from hpcddrl.types import Array, Discrete, EnvSpec, State, Step


class Environments:
    """B environments stepped together; resets itself, counts returns, and hides where the pixels' channels stand.

    Args:
        vector: a Gymnasium vector environment in NEXT_STEP mode, or the like.
        spec: what it shows and takes.
        seeds: one for each of the B environments.
        transform: from the environment's rewards to those that are learned from.
        life_loss_terminates: learn from a lost life as from an end (needs ``info["lives"]``).
        watchdog: watches over every step, where the environments cannot be ended alone.
    """

    def __init__(
        self,
        vector: VectorEnv[Any, Any, Any] | Isolated,
        spec: EnvSpec,
        seeds: Sequence[int],
        transform: RewardTransform,
        life_loss_terminates: bool = False,
        watchdog: Watchdog | None = None,
    ) -> None:
        self.spec = spec
        self._watchdog = watchdog
        self.num_envs = vector.num_envs
        self._vector = vector
        self._seeds = list(seeds)
        self._transform = transform
        self._life_loss_terminates = life_loss_terminates
        self._lives: Array | None = None
        self._ended = np.zeros(self.num_envs, bool)
        self._return = np.zeros(self.num_envs)
        self._length = np.zeros(self.num_envs, np.int64)

    def reset(self) -> Array:
        """Start every environment from its seed; return the first frames [B, *frame_shape]."""
        with self._watched():
            frame, info = reset(self._vector, self._seeds)
        self._lives = info.get("lives") if self._life_loss_terminates else None
        if isinstance(self._transform, Normalise):
            self._transform.begin()
        self._ended[:] = False
        self._return[:] = 0
        self._length[:] = 0
        return self._frames(frame)

    def reseed(self, seeds: Sequence[int]) -> None:
        """Take other seeds, one for each environment, for the next reset."""
        self._seeds = list(seeds)

    @property
    def running(self) -> int:
        """Return how many episodes have begun and not ended."""
        return int(np.count_nonzero(self._length))

    def state(self) -> State:
        """See `Stateful`: what rewards are scaled by. Emulators cannot be saved: of episodes there is but a count."""
        scale = self._transform.state() if isinstance(self._transform, Normalise) else {}
        return {"rewards": scale, "running": self.running}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        if isinstance(self._transform, Normalise) and state["rewards"]:
            self._transform.restore(state["rewards"])

    def step(self, action: Array) -> Step:
        """Act in every environment; what the environment raises carries its index and seed as a note."""
        with self._watched():
            frame, reward, terminated, truncated, info = self._vector.step(self._actions(action))
        restarted = info.get("restarted", np.zeros(self.num_envs, bool))
        first = self._ended | restarted
        self._return[restarted] = self._length[restarted] = 0  # of an episode that nobody will see the end of
        reward = np.where(first, 0.0, reward)
        self._return += reward
        self._length += ~first
        ended = terminated | truncated
        ends_here = ended & ~first
        step = Step(
            frame=self._frames(frame),
            first=first,
            reward=self._transform(reward, ends_here | restarted),
            discount=1.0 - (terminated | self._lost_life(info, first)).astype(np.float32),
            episode_return=np.where(ends_here, self._return, np.nan),
            episode_length=np.where(ends_here, self._length, 0),
            restarts=int(np.count_nonzero(restarted)),
        )
        self._return[ended] = 0
        self._length[ended] = 0
        self._ended = ended
        return step

    def close(self) -> None:
        """Close the environments."""
        self._vector.close()
        if self._watchdog is not None:
            self._watchdog.close()

    def _watched(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self._watchdog is None else self._watchdog

    def _lost_life(self, info: dict[str, Any], first: Array) -> Array:
        if self._lives is None:
            return np.zeros(self.num_envs, bool)
        lost = (info["lives"] < self._lives) & ~first
        self._lives = np.array(info["lives"])
        return np.asarray(lost)

    def _frames(self, frame: Array) -> Array:
        shape = self.spec.frame_shape
        if len(shape) == 3 and frame.shape[1:] != shape:  # channels stood last
            frame = np.moveaxis(frame, -1, 1)
        return frame.reshape(self.num_envs, *shape).astype(self.spec.frame_dtype, copy=False)

    def _actions(self, action: Array) -> Array:
        box = self.spec.action
        if isinstance(box, Discrete):
            return action
        unit = np.clip(action, -1.0, 1.0)
        return np.asarray(box.low + (unit + 1.0) * 0.5 * (box.high - box.low), np.float32)
