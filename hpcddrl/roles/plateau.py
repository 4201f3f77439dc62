"""Noticing that a group's mean return has stopped to rise."""

from __future__ import annotations

from hpcddrl.config import PlateauBeta
from hpcddrl.rl.ensemble import plateaued
from hpcddrl.types import Batch


class Plateau:
    """Watches the batches of a learner for a plateau of their mean return.

    A learner sees no whole episodes, but it sees every reward and every reset: over a window, rewards divided by resets
    are the mean return, as it is learned from. A window without a reset goes on into the next. A resumed run watches
    anew.

    Args:
        config: window, patience, gain.
    """

    def __init__(self, config: PlateauBeta) -> None:
        self._config = config
        self._returns: list[float] = []
        self._rewards = self._resets = 0.0
        self._opened: float | None = None
        self.frames: float | None = None  # of the group when the plateau was found

    def see(self, batch: Batch, frames: float) -> None:
        """Count a batch that comes after so many of the group's frames."""
        if self.frames is not None:
            return
        if self._opened is None:
            self._opened = frames
        self._rewards += float((batch.reward * batch.valid).sum())
        self._resets += float((1 - batch.valid).sum())
        if frames - self._opened < self._config.window_frames or not self._resets:
            return
        self._returns.append(self._rewards / self._resets)
        self._rewards = self._resets = 0.0
        self._opened = frames
        if plateaued(self._returns, self._config.patience, self._config.gain):
            self.frames = frames
