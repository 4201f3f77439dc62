"""Which gradients a server applies: none that is too old, none whose loss stands out."""

from __future__ import annotations

import math

from hpcddrl.types import Metrics, State

LOSSES = 100  # over about so many the statistic runs; nothing is refused before it has seen them
LEAST_BOUND = 3.0  # deviations that a loss may have in the statistic, however strict the rule is
LEAST_DEVIATION = 1e-6  # so that a statistic of equal losses can move


class LossStatistic:
    """Exponential running mean and variance of losses.

    Every loss enters, refused or not, or a lasting change of the losses would never be learned of; but no further from
    the mean than ``bound`` deviations (or `LEAST_BOUND`, if that is more), or one outlier would open the gate for all
    that follow. A loss clipped at b deviations multiplies the variance by (1 − a)(1 + a b²), a = 1 / LOSSES: by 1.08
    for b = 3, so that a statistic left behind reaches any level soon.

    Args:
        bound: deviations above the mean from which a loss stands out.
    """

    def __init__(self, bound: float) -> None:
        self._bound = bound
        self._seen, self._mean, self._variance = 0, 0.0, 0.0

    def state(self) -> State:
        """See `Stateful`."""
        return {"seen": self._seen, "mean": self._mean, "variance": self._variance}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self._seen, self._mean, self._variance = state["seen"], state["mean"], state["variance"]

    def stands_out(self, loss: float) -> bool:
        """Say whether a loss is above the bound that the losses before it set, then take it in."""
        deviation = max(math.sqrt(self._variance), LEAST_DEVIATION)
        ready = self._seen >= LOSSES
        if ready:
            most = max(self._bound, LEAST_BOUND) * deviation
            entered = min(max(loss, self._mean - most), self._mean + most)
        else:
            entered = loss
        outlier = ready and not loss <= self._mean + self._bound * deviation
        self._seen += 1
        share = max(1 / self._seen, 1 / LOSSES)  # the plain mean and variance of the first ones
        difference = entered - self._mean
        self._mean += share * difference
        self._variance = (1 - share) * (self._variance + share * difference * difference)
        return outlier


class Admission:
    """Decides about each gradient and counts what it refused; the counts are of a segment.

    Args:
        max_staleness: greatest number of updates since the weights that a gradient is of (None: any).
        max_loss_deviations: see `LossStatistic` (None: any loss).
    """

    def __init__(self, max_staleness: int | None, max_loss_deviations: float | None) -> None:
        self._max_staleness = max_staleness
        self._losses = None if max_loss_deviations is None else LossStatistic(max_loss_deviations)
        self._refused_stale = self._refused_loss = 0

    def state(self) -> State:
        """See `Stateful`."""
        return {} if self._losses is None else self._losses.state()

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        if self._losses is not None and state:
            self._losses.restore(state)

    def __call__(self, staleness: int, loss: float) -> bool:
        """Say whether a gradient is to be applied."""
        outlier = self._losses is not None and self._losses.stands_out(loss)
        if self._max_staleness is not None and staleness > self._max_staleness:
            self._refused_stale += 1
            return False
        self._refused_loss += outlier
        return not outlier

    @property
    def metrics(self) -> Metrics:
        """Return how many were refused so far, for each rule that is on."""
        metrics = {}
        if self._max_staleness is not None:
            metrics["refused_stale"] = float(self._refused_stale)
        if self._losses is not None:
            metrics["refused_loss"] = float(self._refused_loss)
        return metrics
