"""The mean return of a group, as its learners see it, and noticing that it has stopped to rise."""

from __future__ import annotations

import numpy as np

from hpcddrl.config import PlateauBeta
from hpcddrl.rl.ensemble import plateaued
from hpcddrl.types import Batch, State


class Returns:
    """The mean returns of one span of frames after the other, from the batches of a learner.

    A learner sees no whole episodes, but it sees every reward and every reset: over a window, rewards divided by resets
    are the mean return, as it is learned from. A window without a reset goes on into the next. What is learned from
    again does not count: it is old, drawn by priority, and in hindsight its rewards are made up.

    Args:
        window_frames: trained frames of the group in each.
    """

    def __init__(self, window_frames: float) -> None:
        self._window_frames = window_frames
        self._rewards = self._resets = 0.0
        self._opened: float | None = None
        self.means: list[float] = []  # oldest first

    def state(self) -> State:
        """See `Stateful`."""
        return {"rewards": self._rewards, "resets": self._resets, "opened": self._opened, "means": self.means}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self._rewards, self._resets, self._opened = state["rewards"], state["resets"], state["opened"]
        self.means = list(state["means"])

    @property
    def newest(self) -> float:
        """Return the last window's mean return, NaN before its end."""
        return self.means[-1] if self.means else np.nan

    def see(self, batch: Batch, frames: float) -> bool:
        """Count a batch that comes after so many of the group's frames; say whether a window has closed with it."""
        if batch.weight is not None:
            return False
        if self._opened is None:
            self._opened = frames
        self._rewards += float((batch.reward * batch.valid).sum())
        self._resets += float((1 - batch.valid).sum())
        if frames - self._opened < self._window_frames or not self._resets:
            return False
        self.means.append(self._rewards / self._resets)
        self._rewards = self._resets = 0.0
        self._opened = frames
        return True


class Plateau:
    """Watches the mean return of a group for a plateau.

    Args:
        config: window, patience, gain.
    """

    def __init__(self, config: PlateauBeta) -> None:
        self._config, self._returns = config, Returns(config.window_frames)
        self.frames: float | None = None  # of the group when the plateau was found

    def state(self) -> State:
        """See `Stateful`."""
        return {"returns": self._returns.state(), "frames": self.frames}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self._returns.restore(state["returns"])
        self.frames = state["frames"]

    def see(self, batch: Batch, frames: float) -> None:
        """Count a batch that comes after so many of the group's frames."""
        closed = self.frames is None and self._returns.see(batch, frames)
        if closed and plateaued(self._returns.means, self._config.patience, self._config.gain):
            self.frames = frames
