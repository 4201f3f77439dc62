"""Built-in environments: Catch to learn on in a minute, and two that misbehave on purpose, for tests."""

from __future__ import annotations

import os
import time
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]


class Catch(gym.Env[Frame, np.int64]):
    """A ball falls; move the paddle under it. Reward ±1 when it lands, 13 steps an episode, 42×42 pixels.

    Random play returns about -0.85, perfect play 1 (after the task in Mnih et al. 2014 and bsuite).

    Args:
        pixels: of each of the 14 cells along a side. With 2, nips sees all cells; with 6, as many pixels as Atari has.
    """

    CELLS = 14

    def __init__(self, pixels: int = 3) -> None:
        if pixels < 1:
            raise ValueError(f"env.options.pixels = {pixels}: a cell has 1 or more")
        self._pixels = pixels
        side = self.CELLS * pixels
        self.observation_space = gym.spaces.Box(0, 255, (side, side), np.uint8)
        self.action_space = gym.spaces.Discrete(3)
        self._ball = [0, 0]
        self._paddle = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        """Start a ball in a random column of the top row."""
        super().reset(seed=seed)
        self._ball = [0, int(self.np_random.integers(self.CELLS))]
        self._paddle = self.CELLS // 2
        return self._draw(), {}

    def step(self, action: np.int64) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Move the paddle by action − 1 cells and let the ball fall by one."""
        self._paddle = min(max(self._paddle + int(action) - 1, 0), self.CELLS - 1)
        self._ball[0] += 1
        landed = self._ball[0] == self.CELLS - 1
        reward = (1.0 if self._ball[1] == self._paddle else -1.0) if landed else 0.0
        return self._draw(), reward, landed, False, {}

    def _draw(self) -> Frame:
        board = np.zeros((self.CELLS, self.CELLS), np.uint8)
        board[-1, self._paddle] = 128
        board[self._ball[0], self._ball[1]] = 255
        return board.repeat(self._pixels, 0).repeat(self._pixels, 1)


class Sleep(gym.Env[Frame, np.int64]):
    """An environment that costs time and no processor: each step sleeps.

    Args:
        sleep_s: seconds a step.
        episode_length: env steps.
        shape: of the uint8 frames.
    """

    def __init__(self, sleep_s: float = 0.005, episode_length: int = 1000, shape: tuple[int, ...] = (84, 84)) -> None:
        if sleep_s < 0:
            raise ValueError(f"env.options.sleep_s = {sleep_s}: must be 0 or more")
        self.observation_space = gym.spaces.Box(0, 255, tuple(shape), np.uint8)
        self.action_space = gym.spaces.Discrete(4)
        self._sleep_s, self._length, self._step = sleep_s, episode_length, 0
        self._frame = np.zeros(tuple(shape), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        """Start to count."""
        super().reset(seed=seed)
        self._step = 0
        return self._frame, {}

    def step(self, action: np.int64) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Sleep; truncated at the episode's length."""
        time.sleep(self._sleep_s)
        self._step += 1
        return self._frame, 0.0, False, self._step >= self._length, {}


class Faulty(Catch):
    """Catch, but one environment fails after some steps.

    Args:
        how: raise an exception, hang for ever, exit the process at once, or return NaN as reward.
        at: env steps until then.
        only_seed: the seed of the environment that fails (unset: all).
    """

    def __init__(
        self,
        how: Literal["raise", "hang", "exit", "nan"] = "raise",
        at: int = 100,
        only_seed: int | None = None,
    ) -> None:
        super().__init__()
        if how not in ("raise", "hang", "exit", "nan"):
            raise ValueError(f"env.options.how = {how!r}: must be raise, hang, exit or nan")
        self._how, self._at, self._only_seed, self._steps = how, at, only_seed, 0
        self._fails = only_seed is None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        """Reset, and learn from the first seed whether this is the one to fail."""
        if seed is not None:
            self._fails = self._only_seed in (None, seed)
        return super().reset(seed=seed, options=options)

    def step(self, action: np.int64) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Step Catch, then perhaps fail."""
        self._steps += 1
        frame, reward, terminated, truncated, info = super().step(action)
        if self._fails and self._steps >= self._at:
            match self._how:
                case "raise":
                    raise RuntimeError(f"Faulty: raised on demand at step {self._steps}")
                case "exit":
                    os._exit(3)
                case "nan":
                    reward = float("nan")
                case "hang":
                    time.sleep(1e9)
        return frame, reward, terminated, truncated, info


BUILT_IN = {"hpcddrl/Catch-v0": Catch, "hpcddrl/Sleep-v0": Sleep, "hpcddrl/Faulty-v0": Faulty}
