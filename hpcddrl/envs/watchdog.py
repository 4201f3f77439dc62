"""Noticing an environment that hangs in this process: it cannot be ended alone, so the rank ends, and says why."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from hpcddrl.types import RunError


class Watchdog:
    """A context around calls that must not take for ever; one that does ends the rank, with a `RunError` in a thread.

    It counts beats of its own, not the clock, so that a process that was stopped for a while has not hung. It cannot
    see code that keeps Python from running any other thread.

    Args:
        limit_s: most seconds of a call.
        what: names what is being called.
    """

    def __init__(self, limit_s: float, what: Callable[[], str]) -> None:
        self._limit_s, self._what = limit_s, what
        self._calls = 0
        self._inside = False
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> None:
        """Begin a call."""
        self._inside = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")
            self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """The call has returned."""
        self._inside = False
        self._calls += 1

    def close(self) -> None:
        """Watch no more."""
        self._closed.set()

    def _watch(self) -> None:
        beat_s, spent_s, seen = min(1.0, self._limit_s / 4), 0.0, -1
        while not self._closed.wait(beat_s):
            same = self._inside and self._calls == seen
            spent_s, seen = spent_s + beat_s if same else 0.0, self._calls
            if spent_s >= self._limit_s:
                raise RunError(
                    f"{self._what()} hangs: a step has taken {spent_s:.3g} s, and env.step_timeout_s = "
                    f"{self._limit_s:g}; it runs in the rank's own process, so it cannot be ended alone "
                    "(--set env.isolated=true gives each a process that can)"
                )
