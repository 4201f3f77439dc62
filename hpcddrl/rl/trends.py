"""Whether a noisy, autocorrelated series rises, and whether two differ: estimates that know how little they know."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from hpcddrl.types import Array


class Estimate(NamedTuple):
    """A number with its uncertainty."""

    value: float
    error: float  # standard error
    freedom: float  # degrees of, of Student's distribution that the error belongs to; below 1: nothing is known

    def bounds(self, confidence: float) -> tuple[float, float]:
        """Return a lower and an upper bound, each of which holds with this confidence."""
        if self.error == 0:
            return self.value, self.value
        reach = self.error * float(stdtrit(self.freedom, confidence)) if self.freedom >= 1 else math.inf
        return self.value - reach, self.value + reach


class Line(NamedTuple):
    """A straight line through a series."""

    middle: Estimate  # its height there
    change: Estimate  # from the first value to the last


def block_mean(blocks: Sequence[float]) -> Estimate:
    """Return the mean of a stationary series from the means of its blocks, longer than what ties neighbours together.

    The method of batch means: the spread of the blocks holds whatever correlation there is inside them.
    """
    n, mean = len(blocks), math.fsum(blocks) / len(blocks)
    squares = math.fsum((block - mean) ** 2 for block in blocks)
    return Estimate(mean, math.sqrt(squares / (n - 1) / n), n - 1.0)


def difference(one: Estimate, other: Estimate) -> Estimate:
    """Return how far one estimate lies above another, independent of it (Welch 1947, for unequal variances)."""
    value, error = one.value - other.value, math.hypot(one.error, other.error)
    if error == 0:
        return Estimate(value, 0.0, math.inf)
    parts = (one.error / error) ** 4 / one.freedom + (other.error / error) ** 4 / other.freedom
    return Estimate(value, error, 1 / parts)


def line(series: Sequence[float]) -> Line:
    """Fit a line to a series [N], N > 4, by least squares.

    The residuals' lag-1 autocorrelation r makes N values worth no more than N (1 − r) / (1 + r) independent ones, in
    the standard errors and in the degrees of freedom alike (Santer et al. 2000, doi:10.1029/1999JD901105, section 4).
    """
    y = np.asarray(series, np.float64)
    n = len(y)
    x = np.arange(n) - (n - 1) / 2
    height, slope = float(y.mean()), float(x @ y / (x @ x))
    residual = y - height - slope * x
    left = float(residual @ residual)
    if left <= 1e-24 * float(y @ y):  # on the line, up to rounding
        return Line(Estimate(height, 0.0, n - 2.0), Estimate(slope * (n - 1), 0.0, n - 2.0))
    worth = effective(n, autocorrelation(residual))
    deviation = math.sqrt(left / max(worth - 2, 1.0))
    return Line(
        Estimate(height, deviation / math.sqrt(n), worth - 2),
        Estimate(slope * (n - 1), deviation / math.sqrt(float(x @ x)) * (n - 1), worth - 2),
    )


def autocorrelation(residual: Array) -> float:
    """Return the lag-1 autocorrelation of a line's residuals [N], within [0, 0.99].

    It is freed of its bias on short series, −(2 + 4 ρ) / N for residuals of a line. Negative ones count as none, so
    that chance never makes a test bolder than independent values would.
    """
    n = len(residual)
    r = float(residual[1:] @ residual[:-1] / (residual @ residual))
    return min(max((n * r + 2) / (n - 4), 0.0), 0.99)


def effective(n: int, r: float) -> float:
    """Return how many independent values N with lag-1 autocorrelation r are worth."""
    return n * (1 - r) / (1 + r)
