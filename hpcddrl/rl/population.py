"""Population-based training: who takes over whose weights, and how hyper-parameters are varied."""

from __future__ import annotations

import random


def lags_behind(own: float, other: float, margin: float) -> bool:
    """Say whether another's score is better by more than a share of this one's size.

    Unknown scores (NaN) are neither better nor worse.
    """
    return other > own + margin * abs(own)


def explored(factors: tuple[float, ...], step: float, chance: float, dice: random.Random) -> tuple[float, ...]:
    """Return factors on hyper-parameters, each multiplied or divided by ``step`` with this chance.

    Either way is as likely, so that the mean of their logarithms stays. Source: Espeholt et al. 2018, appendix F.
    """
    varied = []
    for factor in factors:
        moves, up = dice.random() < chance, dice.random() < 0.5
        varied.append(factor * (step if up else 1 / step) if moves else factor)
    return tuple(varied)
