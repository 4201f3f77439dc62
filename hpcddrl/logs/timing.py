"""The breakdown of a rank's time: every instant belongs to exactly one phase, so the phases add up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum


class Phase(StrEnum):
    """What a rank can be doing; time in none of the others is ``other``."""

    ENV = "env"
    ACT = "act"
    COLLECT = "collect"
    SEND = "send"
    WAIT = "wait"
    BATCH = "batch"
    PEERS = "peers"
    GRADIENT = "gradient"
    PRETEXT = "pretext"
    REDUCE = "reduce"
    UPDATE = "update"
    PUBLISH = "publish"
    REFRESH = "refresh"
    EXCHANGE = "exchange"
    COMPRESS = "compress"
    CHECKPOINT = "checkpoint"
    EVALUATE = "evaluate"
    LOG = "log"
    OTHER = "other"


class Timing:
    """Charge every instant to exactly one phase.

    ``with timing(Phase.ENV): …``; a phase inside another pauses the outer one. Processor seconds of waiting are
    counted too, so that busy waiting shows; so are the ``with`` blocks and the squares of their durations, from which
    a block's mean and deviation follow.

    Args:
        ended: told of each ``with`` block that ended: its phase, and when it began and ended (`time.perf_counter`).
    """

    def __init__(self, ended: Callable[[Phase, float, float], None] | None = None) -> None:
        self._ended = ended
        self.seconds = dict.fromkeys(Phase, 0.0)  # since the start
        self.events = dict.fromkeys(Phase, 0)  # blocks that ended
        self.squares = dict.fromkeys(Phase, 0.0)  # s², of their durations without the blocks inside them
        self.wait_cpu_s = 0.0
        self._block_s = 0.0  # of the innermost open block so far
        self._phase = Phase.OTHER
        self._since = time.perf_counter()
        self._cpu_since = time.process_time()

    @contextmanager
    def __call__(self, phase: Phase) -> Iterator[None]:
        """Charge the time inside the ``with`` block to ``phase``."""
        outer = self._enter(phase)
        began = self._since
        outer_s, self._block_s = self._block_s, 0.0
        try:
            yield
        finally:
            self._enter(outer)
            self.events[phase] += 1
            self.squares[phase] += self._block_s**2
            self._block_s = outer_s
            if self._ended is not None:
                self._ended(phase, began, self._since)

    def totals(self) -> dict[Phase, float]:
        """Return the seconds of each phase up to now; their sum is the time since the start."""
        self._enter(self._phase)
        return dict(self.seconds)

    def _enter(self, phase: Phase) -> Phase:
        now = time.perf_counter()
        outer, self._phase = self._phase, phase
        self.seconds[outer] += now - self._since
        self._block_s += now - self._since
        self._since = now
        if Phase.WAIT in (outer, phase):
            cpu = time.process_time()
            if outer is Phase.WAIT:
                self.wait_cpu_s += cpu - self._cpu_since
            self._cpu_since = cpu
        return outer
