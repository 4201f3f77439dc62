"""Waiting for data inside a role's loop."""

from __future__ import annotations

import time
from collections.abc import Callable

from hpcddrl.comm.wait import Backoff
from hpcddrl.roles.control import Control
from hpcddrl.types import RunError

GRACE_S = 60.0  # without any data after the order to stop, before the run is given up as hung


class Starved(Exception):  # noqa: N818 (an end, and no error)
    """The run ends, and nobody is left who could give data."""


class Waiting:
    """Waits politely for data, doing what is due meanwhile, and gives up when a run that should stop gets none.

    Args:
        control: of this rank.
        meanwhile: what is due.
        longest_s: of a sleep.
        anybody: says whether someone is left who could give data.
    """

    def __init__(
        self,
        control: Control,
        meanwhile: Callable[[], None],
        longest_s: float,
        anybody: Callable[[], bool] = lambda: True,
    ) -> None:
        self._control, self._meanwhile, self._anybody = control, meanwhile, anybody
        self._backoff = Backoff(longest_s)
        self._stop_since: float | None = None

    def pause(self) -> None:
        """Nothing arrived: sleep a little.

        Raises:
            Starved: the run ends, and nobody is left.
            RunError: the run should end, and no data came for long.
        """
        self._meanwhile()
        self._control.tick()
        if self._control.stop:
            if not self._anybody():
                raise Starved
            self._stop_since = self._stop_since or time.monotonic()
            if time.monotonic() - self._stop_since > GRACE_S:
                raise RunError(f"told to stop, but no data came for {GRACE_S:.0f} s: an actor or environment hangs")
        self._backoff.pause()

    def reset(self) -> None:
        """Something arrived."""
        self._backoff.reset()
        self._stop_since = None
