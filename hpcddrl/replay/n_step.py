"""Sums of up to n rewards, no further than to an episode's end."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hpcddrl.types import Array


class Steps(NamedTuple):
    """N times n steps that follow on each other; whatever stands behind an episode's end has no meaning."""

    reset: Array  # [N, n] bool: the step only reset the environment
    reward: Array  # [N, n]
    discount: Array  # [N, n]: 0 where the episode terminated


class Returns(NamedTuple):
    """What N transitions of up to n steps each earn on their way."""

    steps: Array  # [N] i64: m, n unless the episode ended before
    reward: Array  # [N] f64: Σ γᵏ r over these steps
    discount: Array  # [N] f64: γᵐ, or 0 after termination


def returns(steps: Steps, gamma: float) -> Returns:
    """Sum the rewards of each row."""
    n = steps.reward.shape[1]
    alive = ~np.logical_or.accumulate(steps.reset, axis=1)  # [N, n]: step k still belongs to the episode
    alive[:, 1:] &= np.logical_and.accumulate(steps.discount[:, :-1] != 0, axis=1)
    count = np.count_nonzero(alive, axis=1)
    reward = np.where(alive, steps.reward, 0.0) @ gamma ** np.arange(n)
    terminated = np.any(alive & (steps.discount == 0), axis=1)
    return Returns(count, reward, np.where(terminated, 0.0, gamma**count))
