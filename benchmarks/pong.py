"""Pong as networks see it, with what the machine's RAM says about where its things are."""

from __future__ import annotations

from typing import NamedTuple

import ale_py
import numpy as np
import torch
from ale_py import roms
from PIL import Image
from torch import Tensor

from hpcddrl.config import Env
from hpcddrl.envs.make import make
from hpcddrl.types import Array

THINGS = ("ball", "left paddle", "right paddle")
HEIGHT, WIDTH, SIDE = 210, 160, 84
STACK, SKIP = 4, 4
COURT = (34, 194)  # rows between the walls
# RAM cells, as the Atari Annotated RAM Interface names them (Anand et al. 2019, arXiv:1906.08226), and what they mean
# on the screen: the top left corner, each coordinate (cell, offset) or a number, then height and width.
BALL, LEFT, RIGHT = ((54, -14), (49, -49), 4, 2), ((50, -15), 16, 16, 4), ((51, -14), 140, 17, 4)


class Seen(NamedTuple):
    """N moments of Pong, each with the one a few env steps later."""

    observation: Tensor  # [N, STACK, SIDE, SIDE] u8
    action: Tensor  # [N] i64: taken there
    later: Tensor  # [N, STACK, SIDE, SIDE] u8
    boxes: Tensor  # [N, THINGS, SIDE, SIDE] bool: pixels of the newest frame that each thing touches
    later_boxes: Tensor  # [N, THINGS, SIDE, SIDE] bool


def corner(ram: Array, part: tuple[int, int] | int) -> int:
    """Return a coordinate on the screen."""
    return part if isinstance(part, int) else int(ram[part[0]]) + part[1]


def boxes_of(ram: Array) -> Array:
    """Return where on the emulator's screen the things are, [THINGS, HEIGHT, WIDTH] bool; nowhere if out of court."""
    found = np.zeros((len(THINGS), HEIGHT, WIDTH), bool)
    for box, (row, column, height, width) in zip(found, (BALL, LEFT, RIGHT), strict=True):
        top, left = corner(ram, row), corner(ram, column)
        rows = slice(max(top, COURT[0]), min(top + height, COURT[1]))
        if rows.start < rows.stop and left >= 0:
            box[rows, left : left + width] = True
    return found


def shrunk(box: Array) -> Array:
    """Return the pixels [SIDE, SIDE] of a small image that a region [HEIGHT, WIDTH] of the screen touches."""
    small = np.zeros((SIDE, SIDE), bool)
    rows, columns = np.nonzero(box)
    for row, column in set(zip((rows * SIDE) // HEIGHT, (columns * SIDE) // WIDTH, strict=True)):
        small[row, column] = True
    return small


class Mirror:
    """A single emulator that is stepped as an environment of ours is, whose RAM can be read."""

    def __init__(self, seed: int) -> None:
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale = ale_py.ALEInterface()
        self._ale.setInt("random_seed", seed)
        self._ale.setFloat("repeat_action_probability", 0.0)
        self._ale.loadROM(roms.get_rom_path("pong"))
        self._actions = self._ale.getMinimalActionSet()
        self._ale.reset_game()

    def step(self, action: int) -> tuple[Array, Array]:
        """Step as often as frames are skipped; return what the last two frames show as one, shrunk, and their boxes."""
        shown, boxes = np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros((len(THINGS), HEIGHT, WIDTH), bool)
        screen = np.empty((HEIGHT, WIDTH), np.uint8)
        for frame in range(SKIP):
            self._ale.act(self._actions[action])
            if frame >= SKIP - 2:
                self._ale.getScreenGrayscale(screen)
                shown, boxes = np.maximum(shown, screen), boxes | boxes_of(self._ale.getRAM())
        small = np.asarray(Image.fromarray(shown).resize((SIDE, SIDE), Image.Resampling.BOX))
        return small, np.stack([shrunk(box) for box in boxes])


def seen(count: int, seed: int, ahead: int = 4) -> Seen:
    """Play at random, within one game; return so many moments with the ball in court then and ``ahead`` steps later.

    Raises:
        RuntimeError: the emulator whose RAM is read does not show what the environment shows.
    """
    env = Env(id="ALE/Pong-v5", num_envs=1, frame_skip=SKIP, noop_max=0, fire_reset=False)
    vector, mirror, rng = make(env, 1, [seed], 1.0, 1), Mirror(seed), np.random.default_rng(seed)
    frames, boxes, actions, moments = [vector.reset()[0]], [np.zeros((len(THINGS), SIDE, SIDE), bool)], [0], []
    same, other = 0.0, 0.0
    while len(moments) < count:
        action = int(rng.integers(6))
        step = vector.step(np.array([action]))
        if step.first[0]:
            raise RuntimeError(f"a game ended after {len(frames)} steps with {len(moments)} of {count} moments seen")
        shown, there = mirror.step(action)
        same += float(np.abs(shown.astype(int) - step.frame[0]).mean())
        other += float(np.abs(shown.astype(int) - frames[-1]).mean())
        frames.append(step.frame[0].copy())
        boxes.append(there)
        actions.append(action)
        now = len(frames) - 1 - ahead
        if now >= STACK and boxes[now][0].any() and boxes[now + ahead][0].any():
            moments.append(now)
    vector.close()
    if same >= other:
        raise RuntimeError("the emulator and the environment do not show the same: boxes would be of other frames")
    stacked = np.stack(frames)

    def at(times: list[int]) -> Tensor:
        return torch.from_numpy(np.stack([stacked[t - STACK + 1 : t + 1] for t in times]))

    late = [t + ahead for t in moments]
    return Seen(
        at(moments),
        torch.tensor([actions[t + 1] for t in moments]),
        at(late),
        torch.from_numpy(np.stack([boxes[t] for t in moments])),
        torch.from_numpy(np.stack([boxes[t] for t in late])),
    )
