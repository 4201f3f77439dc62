"""The most that faster predictions can give (Amdahl's law), from where a run without compression spends its time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple


class Row(NamedTuple):
    """One compressor: what the law allows, and what came of it."""

    name: str
    share: float  # of the time, that predictions take without compression
    speed_up: float  # of a prediction
    predicted: float  # factor on predictions/s
    bound: float  # of the factor, if predictions cost nothing
    measured: float  # factor on predictions/s; NaN where nothing was measured

    @property
    def reached(self) -> float:
        """Return the measured gain as a part of the predicted one: +17 % of +20 % is 0.85."""
        return (self.measured - 1) / (self.predicted - 1) if self.predicted != 1 else math.nan


def prediction_share(seconds: Mapping[str, float], phases: tuple[str, ...] = ("act",)) -> float:
    """Return the part of a rank's seconds that its predictions took."""
    total = sum(seconds.values())
    assert total > 0, "a run has taken some time"
    return sum(seconds.get(phase, 0.0) for phase in phases) / total


def gain(share: float, speed_up: float, overhead: float = 0.0) -> float:
    """Return the factor on the pace: 1 / (1 − p + p / s + o).

    Args:
        share: p, of the time that is sped up.
        speed_up: s.
        overhead: o, time that compressing adds to the loop, as a part of the time before.
    """
    left = 1 - share + share / speed_up + overhead
    return 1 / left if left else math.inf


def sheet(
    seconds: Mapping[str, float],
    speed_ups: Mapping[str, float],
    measured: Mapping[str, float],
    phases: tuple[str, ...] = ("act",),
) -> list[Row]:
    """Return a row for each compressor.

    Args:
        seconds: of each phase of the ranks that predict, in a run without compression.
        speed_ups: of a prediction, by the compressors' names.
        measured: factors on predictions/s, of those that were run.
        phases: those that are predictions.
    """
    share = prediction_share(seconds, phases)
    return [
        Row(name, share, speed_up, gain(share, speed_up), gain(share, math.inf), measured.get(name, math.nan))
        for name, speed_up in speed_ups.items()
    ]
