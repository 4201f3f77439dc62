"""Telling which stage a job is in: on rank 0, from the episodes of all ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from pydantic import ConfigDict, TypeAdapter

from hpcddrl.config import NoDetector
from hpcddrl.config.stages import Detector, Telling
from hpcddrl.rl.stages import Decision, observe
from hpcddrl.rl.stages import State as Known
from hpcddrl.types import Stage, State

_known: TypeAdapter[Known] = TypeAdapter(Known, config=ConfigDict(ser_json_inf_nan="constants"))
RETURNS = 4096  # that a status carries at most; of more episodes in an interval, the newest


def most_returns(detector: Detector) -> int:
    """Return how many returns a status carries at most: none where nobody asks for them."""
    return 0 if isinstance(detector, NoDetector) else RETURNS


class Watch:
    """Observes episodes in the order in which their returns come in, and says each decision.

    Args:
        detector: how stages are told.
        say: tells people.
    """

    def __init__(self, detector: Telling, say: Callable[[str], None]) -> None:
        self._detector, self._known, self._say = detector, Known(), say
        self.decision: Decision | None = None  # the newest of this segment

    def state(self) -> State:
        """See `Stateful`."""
        return {"known": _known.dump_json(self._known).decode()}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self._known = _known.validate_json(state["known"])

    @property
    def stage(self) -> Stage:
        """Return the stage that the job is in, as far as it can be told."""
        return self._known.stage

    def see(self, frames: float, returns: Iterable[float]) -> None:
        """Take episodes into account that have come to be known when the job had so many frames."""
        for episode_return in returns:
            if not math.isfinite(episode_return):
                continue  # what learns from it complains
            self._known, decision = observe(self._known, frames, episode_return, self._detector)
            if decision is not None:
                self.decision = decision
                self._say(f"stage {decision.stage.name.lower()} from {frames:,.0f} frames on: {decision.reason}")

    def why(self, stage: Stage) -> dict[str, float | str]:
        """Return the words and numbers that a stage was entered for, as columns of a table."""
        made = self.decision
        if made is None or made.stage is not stage:
            return {"reason": "the stage of the segment before"}
        return {"reason": made.reason, "frames": made.frames, "episodes": made.episodes, **made.numbers}
