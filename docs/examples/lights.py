"""An environment of one's own: a row of lamps that are to be put out, with a budget of presses.

    PYTHONPATH=docs/examples python -m hpcddrl run paac --env lights:Lights --set env.options.lamps=5 --seconds 60

Any class with Gymnasium's interface does, named module:Class. What the suite asks of it:

- observations are a Box: a vector [D], or an image [H, W] or [H, W, C] (of uint8, which networks scale to 0 … 1);
- actions are Discrete from 0, or a bounded Box vector;
- `terminated` means that nothing can follow, `truncated` that one only stopped looking: the value of what would have
  followed is learned from then;
- all randomness comes from `self.np_random`, which `reset(seed=…)` makes, so that a seed repeats a run.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

Observation = NDArray[np.float32]


class Lights(gym.Env[Observation, np.int64]):
    """Pressing a lamp switches it and its neighbours; each press costs 0.1, darkness gives 1 and ends the episode.

    Args:
        lamps: in the row.
        presses: after which the episode is cut off.
    """

    def __init__(self, lamps: int = 5, presses: int = 20) -> None:
        self.observation_space = gym.spaces.Box(0.0, 1.0, (lamps,), np.float32)
        self.action_space = gym.spaces.Discrete(lamps)
        self._lit = np.zeros(lamps, bool)
        self._presses, self._left = presses, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Press some lamps of a dark row, so that it can be made dark again."""
        super().reset(seed=seed)
        self._left = self._presses
        self._lit[:] = False
        while not self._lit.any():
            for lamp in np.flatnonzero(self.np_random.random(len(self._lit)) < 0.5):
                self._press(int(lamp))
        return self._lit.astype(np.float32), {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Press a lamp."""
        self._press(int(action))
        self._left -= 1
        dark = not self._lit.any()
        return self._lit.astype(np.float32), float(dark) - 0.1, dark, self._left == 0 and not dark, {}

    def _press(self, lamp: int) -> None:
        self._lit[max(0, lamp - 1) : lamp + 2] ^= True
