"""What a run did once it was going, for tables: rates, and shares of wall time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpcddrl.logs.measured import Measured
from hpcddrl.logs.timing import Phase
from hpcddrl.types import Array

LEAST = 0.005  # of wall time, to be shown


def rate(measured: Sequence[Measured], column: str) -> float:
    """Return how fast a count of /progress rose, per second, on all ranks together."""
    return sum(m.counts[column] / m.wall_s for m in measured)


def shares(measured: Sequence[Measured], role: str) -> dict[Phase, Array]:
    """Return the shares of wall time [ranks of the role] by phase, the largest first."""
    mine = [m for m in measured if m.role == role]
    found = {phase: np.array([m.seconds[phase] / m.wall_s for m in mine]) for phase in Phase}
    return dict(sorted(found.items(), key=lambda item: -item[1].mean()))


def phases(measured: Sequence[Measured], role: str) -> str:
    """Write the shares of a role's phases, with their range over its ranks; nothing if it has none."""
    texts = []
    found = shares(measured, role) if any(m.role == role for m in measured) else {}
    for phase, share in found.items():
        if share.mean() >= LEAST:
            ranged = f" ({share.min():.0%}–{share.max():.0%})" if len(share) > 1 else ""
            texts.append(f"{phase} {share.mean():.0%}{ranged}")
    return ", ".join(texts)
