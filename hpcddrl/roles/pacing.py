"""What learning from a replay follows: how much was gathered, and what became of it."""

from __future__ import annotations

from hpcddrl.config import Replay as ReplayConfig
from hpcddrl.replay.replay import Replay
from hpcddrl.roles.counters import Counters
from hpcddrl.types import State


class Account:
    """Tells a rank's counters what became of the transitions of a replay in this segment, beside what never got there.

    Args:
        replay: that the rank holds.
        counters: of the rank.
    """

    def __init__(self, replay: Replay, counters: Counters) -> None:
        self._replay, self._counters, self._dropped = replay, counters, 0

    def __call__(self) -> None:
        """Bring the counters up to date."""
        counters, replay = self._counters, self._replay
        counters.used, counters.pending = replay.used, replay.pending
        counters.dropped += replay.dropped - self._dropped
        self._dropped = replay.dropped


class Pace:
    """Says whether more may be learned from a replay now, so that it follows what is gathered."""

    def __init__(self, config: ReplayConfig) -> None:
        self._config = config
        self._allowed = 0.0  # transitions that may be drawn now

    def state(self) -> State:
        """See `Stateful`."""
        return {"allowed": self._allowed}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self._allowed = float(state["allowed"])

    def gathered(self, replay: Replay, steps: int) -> None:
        """Note that so many env steps came."""
        if replay.inserted >= self._config.learning_starts:
            self._allowed += steps * self._config.replay_ratio

    def may_draw(self, replay: Replay) -> bool:
        """Say whether a batch may be drawn."""
        return self._allowed >= self._config.batch_size and len(replay) > 0

    def drawn(self, transitions: int) -> None:
        """Note that so many were."""
        self._allowed -= transitions


class Holder:
    """Who holds a replay and keeps its pace and account; the replay's contents and the pace go into checkpoints.

    Args:
        replay: what is held.
        config: how fast it may be learned from.
        counters: of this rank.
    """

    def __init__(self, replay: Replay, config: ReplayConfig, counters: Counters) -> None:
        self._replay, self._pace, self._count = replay, Pace(config), Account(replay, counters)

    def state(self) -> State:
        """See `Stateful`."""
        return {"replay": self._replay.state(), "pace": self._pace.state()}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self._replay.restore(state["replay"])
        self._pace.restore(state["pace"])
        self._count()
