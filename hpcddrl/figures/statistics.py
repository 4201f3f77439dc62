"""What is drawn of several seeds: interquartile means with bootstrap intervals (Agarwal et al. 2021), running means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from hpcddrl.types import Array

LEVEL = 0.95  # of an interval
RESAMPLES = 2000
TRIMMED = 0.25  # of the runs at either end, whole runs only: of fewer than four none


def interquartile_mean(*strata: Array, axis: int = 0) -> Array:
    """Return the mean of the middle half of the runs of all strata together.

    Args:
        strata: [runs, …] each, for example an environment's. A quarter of all runs is cut off at either end, rounded
            down, so that of fewer than four it is the mean.
        axis: of the runs.
    """
    return np.asarray(stats.trim_mean(np.concatenate(strata, axis=axis), TRIMMED, axis=axis))


def interval(*strata: Array, level: float = LEVEL, resamples: int = RESAMPLES) -> tuple[Array, Array]:
    """Return the percentile bootstrap interval of the interquartile mean, low and high.

    Runs are drawn anew within each stratum, so that each keeps its weight. The draws are the same each time.

    Args:
        strata: [runs, …] each, all with at least two runs.
        level: chance that an interval holds the true value.
        resamples: of the runs.

    Raises:
        ValueError: a stratum has less than two runs, which say nothing about spread.
    """
    return _bootstrapped(interquartile_mean, strata, level, resamples)


class Estimate(NamedTuple):
    """A number and its interval, which is NaN where nothing tells how it scatters."""

    value: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Tell whether the interval is known and does not hold this value."""
        return self.high < value or self.low > value


def estimated(*strata: Array) -> Estimate:
    """Return the interquartile mean of the runs of all strata together, with its interval (see `interval`)."""
    value = float(interquartile_mean(*strata))
    if any(len(runs) < 2 for runs in strata):
        return Estimate(value, np.nan, np.nan)
    low, high = interval(*strata)
    return Estimate(value, float(low), float(high))


def compared(ours: Sequence[Array], theirs: Sequence[Array], how: Callable[[Array, Array], Array]) -> Estimate:
    """Return how two interquartile means compare, with the interval when runs of both are drawn anew.

    Args:
        ours: [runs] each, a stratum each.
        theirs: the same, of the same or of other numbers.
        how: `np.subtract` for a difference, `np.divide` for a ratio.
    """

    def statistic(*strata: Array, axis: int = 0) -> Array:
        own, others = strata[: len(ours)], strata[len(ours) :]
        return np.asarray(how(interquartile_mean(*own, axis=axis), interquartile_mean(*others, axis=axis)))

    value = float(statistic(*ours, *theirs))
    if any(len(runs) < 2 for runs in (*ours, *theirs)):
        return Estimate(value, np.nan, np.nan)
    low, high = _bootstrapped(statistic, (*ours, *theirs), LEVEL, RESAMPLES)
    return Estimate(value, float(low), float(high))


def _bootstrapped(
    statistic: Callable[..., Array], strata: Sequence[Array], level: float, resamples: int
) -> tuple[Array, Array]:
    """Return the percentile bootstrap interval of a statistic, runs drawn anew within each stratum."""
    if any(len(runs) < 2 for runs in strata):
        raise ValueError("an interval needs at least two runs of each stratum; make a run with another --seed")
    done = stats.bootstrap(
        strata,
        statistic,
        confidence_level=level,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return np.asarray(done.confidence_interval.low), np.asarray(done.confidence_interval.high)


def running_mean(x: Array, values: Array, at: Array, window: int) -> Array:
    """Return the mean [points] of the last ``window`` values up to each of ``at``, NaN before the first.

    Args:
        x: [n] where each value came, in any order.
        values: [n].
        at: [points].
        window: most values in a mean.
    """
    order = np.argsort(x, kind="stable")
    seen = np.searchsorted(x[order], at, side="right")
    sums = np.r_[0.0, np.cumsum(values[order])]
    first = np.maximum(0, seen - window)
    means = np.full(len(at), np.nan)
    np.divide(sums[seen] - sums[first], seen - first, out=means, where=seen > 0)
    return means


def binned(table: pd.DataFrame, over: str, columns: Sequence[str], bins: int) -> pd.DataFrame:
    """Return the mean of some columns in bins of another, at the bins' mean places; empty bins are left out."""
    known = table[[over, *columns]].dropna(subset=[over])
    if known[over].nunique() <= bins:
        return known.groupby(over, as_index=False).mean()
    groups = pd.cut(known[over], bins, labels=False)
    return known.groupby(groups).mean().reset_index(drop=True)
