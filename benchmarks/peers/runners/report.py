"""What a peer's run tells the benchmark: how much was trained between its first update and its last."""

import json
import time
from pathlib import Path


class Trained:
    """Follows a run's counter of trained samples; the clock starts when the first update is done."""

    def __init__(self, seconds):
        self._seconds = seconds
        self._first = self._last = None
        self._updates = 0

    def note(self, samples):
        """Take the counter's value after an update; tell whether the time is over."""
        self._last = (time.monotonic(), samples)
        if self._first is None:
            self._first = self._last
        elif samples > self._first[1]:
            self._updates += 1
        return self.elapsed() >= self._seconds

    def elapsed(self):
        """Return the seconds from the first update to the one noted last."""
        return self._last[0] - self._first[0] if self._first else 0.0

    def write(self, path):
        """Write samples, seconds and updates, those after the first update."""
        if not self._updates:
            raise SystemExit("not one update after the first: give it more seconds")
        samples = self._last[1] - self._first[1]
        told = {"trained": samples, "seconds": self.elapsed(), "updates": self._updates}
        Path(path).write_text(json.dumps(told))
