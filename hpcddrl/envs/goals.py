"""Built-in environments with goals: bits to flip, and a maze with dead ends.

Both show what Gymnasium-Robotics' environments do: a dictionary of ``observation``, ``achieved_goal`` and
``desired_goal``. ``compute_reward`` says what a transition would have earned under any goal, ``compute_terminated``
whether it would have ended the episode; both take batches.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from hpcddrl.envs.goal_frames import PARTS
from hpcddrl.types import Array

Goals = dict[str, Any]  # of arrays


class BitFlip(gym.Env[Goals, np.int64]):
    """Turn bits into given ones, one an env step; reward −1 until they are the same (Andrychowicz et al. 2017).

    Both are drawn at random, and an episode has as many steps as there are bits. Beyond 40 bits, says the paper, an
    agent without hindsight never sees another reward than −1.

    Args:
        bits: how many.
    """

    def __init__(self, bits: int = 15) -> None:
        if bits < 2:
            raise ValueError(f"env.options.bits = {bits}: must be at least 2")
        box = gym.spaces.Box(0.0, 1.0, (bits,), np.float32)
        self.observation_space = gym.spaces.Dict(dict.fromkeys(PARTS, box))
        self.action_space = gym.spaces.Discrete(bits)
        self._bits = bits
        self._state, self._goal = np.zeros((2, bits), np.float32)
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Goals, dict[str, Any]]:
        """Draw the bits and others to reach."""
        super().reset(seed=seed)
        self._steps = 0
        self._state = self.np_random.integers(2, size=self._bits).astype(np.float32)
        self._goal = self._state
        while (self._goal == self._state).all():
            self._goal = self.np_random.integers(2, size=self._bits).astype(np.float32)
        return self._show(), {}

    def step(self, action: np.int64) -> tuple[Goals, float, bool, bool, dict[str, Any]]:
        """Turn one bit."""
        self._state = self._state.copy()
        self._state[action] = 1 - self._state[action]
        self._steps += 1
        reward, terminated = _outcome(self, self._state, self._goal)
        return self._show(), reward, terminated, not terminated and self._steps >= self._bits, {}

    def compute_reward(self, achieved_goal: Array, desired_goal: Array, info: Any) -> Any:
        """Return 0 where goals [..., bits] are reached, else −1."""
        return self.compute_terminated(achieved_goal, desired_goal, info) - 1.0

    def compute_terminated(self, achieved_goal: Array, desired_goal: Array, info: Any) -> Any:
        """Say where goals [..., bits] are reached."""
        return (achieved_goal == desired_goal).all(axis=-1)

    def _show(self) -> Goals:
        return {"observation": self._state, "achieved_goal": self._state, "desired_goal": self._goal}


class Maze(gym.Env[Goals, np.int64]):
    """Find the end of a dead end, seen from above; reward −1 until it is reached, in a perfect maze.

    Any two cells are joined by one way only. An episode starts in a corner, its goal is one of the dead ends at the
    end of a way of at least half the longest, and it has four times as many steps as the longest way. Most random walks
    end in nearer dead ends, so their returns are all the same. Walls are grey (128) and the agent white; a goal is an
    image in which only its cell is white.

    Args:
        cells: along each side.
        maze: seed of the walls, which are the same in all episodes.
    """

    PIXELS = 2
    MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))

    def __init__(self, cells: int = 6, maze: int = 0) -> None:
        if cells < 3:
            raise ValueError(f"env.options.cells = {cells}: must be at least 3")
        self._open = carved(cells, np.random.default_rng(maze))
        self._distance = distances(self._open, (1, 1))
        longest = int(self._distance.max())
        walls = [np.roll(~self._open, (-dy, -dx), (0, 1)) for dy, dx in self.MOVES]
        far = (np.sum(walls, axis=0) == 3) & self._open & (self._distance >= longest / 2)
        self._goals = [(int(y), int(x)) for y, x in np.argwhere(far)]
        side = len(self._open) * self.PIXELS
        box = gym.spaces.Box(0, 255, (side, side), np.uint8)
        self.observation_space = gym.spaces.Dict(dict.fromkeys(PARTS, box))
        self.action_space = gym.spaces.Discrete(len(self.MOVES))
        self._limit, self._steps = 4 * longest, 0
        self._at = self._goal = (1, 1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Goals, dict[str, Any]]:
        """Go back to the corner and draw a dead end."""
        super().reset(seed=seed)
        self._at, self._steps = (1, 1), 0
        self._goal = self._goals[self.np_random.integers(len(self._goals))]
        return self._show(), {}

    def step(self, action: np.int64) -> tuple[Goals, float, bool, bool, dict[str, Any]]:
        """Go up, down, left or right to the next cell, if no wall is between."""
        (y, x), (dy, dx) = self._at, self.MOVES[action]
        if self._open[y + dy, x + dx]:
            self._at = y + 2 * dy, x + 2 * dx
        self._steps += 1
        shown = self._show()
        reward, terminated = _outcome(self, shown["achieved_goal"], shown["desired_goal"])
        return shown, reward, terminated, not terminated and self._steps >= self._limit, {}

    def compute_reward(self, achieved_goal: Array, desired_goal: Array, info: Any) -> Any:
        """Return 0 where goals [..., side, side] are reached, else −1."""
        return self.compute_terminated(achieved_goal, desired_goal, info) - 1.0

    def compute_terminated(self, achieved_goal: Array, desired_goal: Array, info: Any) -> Any:
        """Say where goals [..., side, side] are reached."""
        return (achieved_goal == desired_goal).all(axis=(-2, -1))

    def _show(self) -> Goals:
        agent, goal = self._spot(self._at), self._spot(self._goal)
        walls = np.where(self._open, np.uint8(0), np.uint8(128)).repeat(self.PIXELS, 0).repeat(self.PIXELS, 1)
        return {"observation": np.maximum(walls, agent), "achieved_goal": agent, "desired_goal": goal}

    def _spot(self, cell: tuple[int, int]) -> NDArray[np.uint8]:
        board = np.zeros(self._open.shape, np.uint8)
        board[cell] = 255
        return board.repeat(self.PIXELS, 0).repeat(self.PIXELS, 1)


def carved(cells: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return a perfect maze [2·cells + 1, 2·cells + 1], True where it is open, by depth-first search.

    Cells stand at odd places, what joins them or keeps them apart between.
    """
    maze = np.zeros((2 * cells + 1, 2 * cells + 1), bool)
    maze[1, 1] = True
    path = [(1, 1)]
    while path:
        y, x = path[-1]
        ways = [(dy, dx) for dy, dx in Maze.MOVES if 0 < y + 2 * dy < len(maze) and 0 < x + 2 * dx < len(maze)]
        ways = [(dy, dx) for dy, dx in ways if not maze[y + 2 * dy, x + 2 * dx]]
        if not ways:
            path.pop()
            continue
        dy, dx = ways[rng.integers(len(ways))]
        maze[y + dy, x + dx] = maze[y + 2 * dy, x + 2 * dx] = True
        path.append((y + 2 * dy, x + 2 * dx))
    return maze


def distances(maze: NDArray[np.bool_], start: tuple[int, int]) -> NDArray[np.int64]:
    """Return how many moves each cell of a maze is from one of them, −1 for what is no cell."""
    found = np.full(maze.shape, -1)
    found[start], edge = 0, [start]
    while edge:
        y, x = edge.pop()
        for dy, dx in Maze.MOVES:
            if maze[y + dy, x + dx] and found[y + 2 * dy, x + 2 * dx] < 0:
                found[y + 2 * dy, x + 2 * dx] = found[y, x] + 1
                edge.append((y + 2 * dy, x + 2 * dx))
    return found


def _outcome(env: BitFlip | Maze, achieved: Array, desired: Array) -> tuple[float, bool]:
    return float(env.compute_reward(achieved, desired, {})), bool(env.compute_terminated(achieved, desired, {}))


BUILT_IN = {"hpcddrl/BitFlip-v0": BitFlip, "hpcddrl/Maze-v0": Maze}
