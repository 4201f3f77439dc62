"""What one rank did, instant by instant: its newest spans and messages, so many at most."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from enum import IntEnum

import numpy as np

from hpcddrl.logs.timing import Phase
from hpcddrl.types import Array


class Kind(IntEnum):
    """What an event is."""

    SPAN = 0
    SENT = 1
    RECEIVED = 2


PHASES = tuple(Phase)  # by the number that stands in `EVENT`
EVENT = np.dtype(
    [
        ("kind", "u1"),
        ("what", "u1"),  # of a span, its phase's place in `PHASES`; of a message, its tag
        ("began", "f8"),  # s, on this rank's clock
        ("ended", "f8"),  # of a message, as it began
        ("peer", "i4"),  # the rank that a message went to or came from
        ("number", "i8"),  # messages of this tag between the two, in this direction, before it
        ("nbytes", "i8"),  # of a message that was sent
    ]
)
_NUMBERS = {phase: number for number, phase in enumerate(PHASES)}


class Recorder:
    """Keeps a rank's newest events; what it is told costs about a microsecond each.

    Spans come from `logs.timing.Timing`, messages from `comm.tracing`. A message is known on both sides by its number,
    for those of one tag between two ranks arrive in the order in which they were sent.

    Args:
        most: events kept.
    """

    def __init__(self, most: int) -> None:
        self._events: deque[tuple[int, int, float, float, int, int, int]] = deque(maxlen=most)
        self._numbers: defaultdict[tuple[Kind, int, int], int] = defaultdict(int)
        self.seen = 0

    def span(self, phase: Phase, began: float, ended: float) -> None:
        """Note that a phase began and ended at these seconds of `time.perf_counter`."""
        self._note((Kind.SPAN, _NUMBERS[phase], began, ended, -1, 0, 0))

    def sent(self, peer: int, tag: int, nbytes: int) -> None:
        """Note that a message is sent now."""
        self._message(Kind.SENT, peer, tag, nbytes)

    def received(self, peer: int, tag: int) -> None:
        """Note that a message was found to have come now."""
        self._message(Kind.RECEIVED, peer, tag, 0)

    def events(self) -> Array:
        """Return what is kept, as `EVENT`, in the order in which it ended."""
        return np.array(list(self._events), EVENT)

    def _message(self, kind: Kind, peer: int, tag: int, nbytes: int) -> None:
        now, key = time.perf_counter(), (kind, peer, tag)
        self._note((kind, tag, now, now, peer, self._numbers[key], nbytes))
        self._numbers[key] += 1

    def _note(self, event: tuple[int, int, float, float, int, int, int]) -> None:
        self._events.append(event)
        self.seen += 1
