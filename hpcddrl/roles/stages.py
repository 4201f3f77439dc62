"""Telling which stage a job is in: on rank 0, from the episodes of all ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from hpcddrl.config import NoDetector
from hpcddrl.config.stages import Detector, Telling
from hpcddrl.rl.stages import Decision, State, observe
from hpcddrl.types import Stage

RETURNS = 4096  # that a status carries at most; of more episodes in an interval, the newest


def most_returns(detector: Detector) -> int:
    """Return how many returns a status carries at most: none where nobody asks for them."""
    return 0 if isinstance(detector, NoDetector) else RETURNS


class Watch:
    """Observes episodes in the order in which their returns come in, and says each decision.

    Args:
        detector: how stages are told.
        state: to go on from.
        say: tells people.
        keep: stores the state, for a resumed run to go on from.
    """

    def __init__(
        self, detector: Telling, state: State, say: Callable[[str], None], keep: Callable[[State], None]
    ) -> None:
        self._detector, self._state, self._say, self._keep = detector, state, say, keep
        self.decision: Decision | None = None  # the newest of this segment

    @property
    def stage(self) -> Stage:
        """Return the stage that the job is in, as far as it can be told."""
        return self._state.stage

    def see(self, frames: float, returns: Iterable[float]) -> None:
        """Take episodes into account that have come to be known when the job had so many frames."""
        for episode_return in returns:
            if not math.isfinite(episode_return):
                continue  # what learns from it complains
            self._state, decision = observe(self._state, frames, episode_return, self._detector)
            if decision is not None:
                self.decision = decision
                self._say(f"stage {decision.stage.name.lower()} from {frames:,.0f} frames on: {decision.reason}")
                self.keep()

    def keep(self) -> None:
        """Store the state."""
        self._keep(self._state)

    def why(self, stage: Stage) -> dict[str, float | str]:
        """Return the words and numbers that a stage was entered for, as columns of a table."""
        made = self.decision
        if made is None or made.stage is not stage:
            return {"reason": "the stage of the segment before"}
        return {"reason": made.reason, "frames": made.frames, "episodes": made.episodes, **made.numbers}
