"""Waiting without burning a core: ranks may outnumber cores, so a poll that finds nothing sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable

SHORTEST_S, LONGEST_S = 20e-6, 10e-3
PROMPT_S = 2e-3  # in which a message is taken where it is waited for


class Backoff:
    """Sleep longer after each poll that found nothing: 20 µs doubling to 10 ms (or to ``longest_s``)."""

    def __init__(self, longest_s: float = LONGEST_S) -> None:
        self._longest_s = longest_s
        self._delay_s = SHORTEST_S

    def pause(self) -> None:
        """Sleep, and sleep twice as long next time."""
        time.sleep(self._delay_s)
        self._delay_s = min(2 * self._delay_s, self._longest_s)

    def reset(self) -> None:
        """Something was found: start again from the shortest sleep."""
        self._delay_s = SHORTEST_S


def wait_until(condition: Callable[[], bool], longest_s: float = LONGEST_S) -> None:
    """Poll ``condition`` until it holds, sleeping in between."""
    backoff = Backoff(longest_s)
    while not condition():
        backoff.pause()
