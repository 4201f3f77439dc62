"""What things take: times of events as distributions, of each role's work, and of the machine between the ranks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

ROUNDING = 1e-12  # of a mean squared: variances below it are none


@dataclass(frozen=True)
class Cost:
    """Seconds that an event takes: a gamma distribution by its mean and variance, so that sums stay of the kind."""

    mean: float = 0.0
    variance: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """Return the cost of both, one after the other."""
        return Cost(self.mean + other.mean, self.variance + other.variance)

    def times(self, events: float) -> Cost:
        """Return the cost of so many independent events."""
        return Cost(self.mean * events, self.variance * events)

    def scaled(self, factor: float) -> Cost:
        """Return the cost of an event so much longer."""
        return Cost(self.mean * factor, self.variance * factor**2)

    def draw(self, rng: np.random.Generator) -> float:
        """Return the seconds of one event."""
        if self.mean <= 0 or self.variance <= ROUNDING * self.mean**2:
            return self.mean
        return float(rng.gamma(self.mean**2 / self.variance, self.variance / self.mean))


FREE = Cost()


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one rank's work takes, each by its own event; what a role doesn't do is free.

    A *frame* here is one message of an actor that a learner acts for: its B observations. ``gradient`` contains what
    the peers' networks take.
    """

    env: Cost = FREE  # a step of B environments
    act: Cost = FREE  # on B observations: a step; of a learner that acts for actors, a frame
    collect: Cost = FREE  # a rollout written; a frame taken and answered; a rollout put into a replay
    send: Cost = FREE  # a rollout, frame, answer, sample or its errors
    refresh: Cost = FREE  # of an actor, a rollout
    batch: Cost = FREE  # an update; of a replay rank, a sample drawn
    gradient: Cost = FREE  # an update
    reduce: Cost = FREE  # an update: beside the network and the wait for others
    update: Cost = FREE  # an update; of a replay rank, a sample's errors
    publish: Cost = FREE  # an update; of a server, an answer
    exchange: Cost = FREE  # an exchange
    rest: Cost = FREE  # an update, rollout, frame, answer or sample: logs, checkpoints and what has no phase
    cpu: float = 1.0  # share of the work, environments left out, that was processor time
    env_cpu: float = 1.0  # share of a step of the environments that was

    def with_costs(self, **costs: Cost) -> Work:
        """Return the same with some events' times replaced."""
        return replace(self, **costs)  # type: ignore[arg-type]


class Machine(NamedTuple):
    """What is between the ranks, and under them."""

    latency_s: float = 2e-6  # of a message
    bandwidth: float = 5e9  # bytes/s into one rank, and out of it
    test_s: float = 0.5e-6  # one look at one posted buffer
    sleep_s: float = 60e-6  # what a sleep takes beyond its length
    report_s: float = 0.2e-6  # of rank 0, for each rank whose reports it sums up, each time
    cores: int | None = None  # of a host; unset: every rank has one of its own
    ranks_per_host: int = 1  # that share them

    def ring_s(self, ranks: int, nbytes: float) -> float:
        """Return what it takes to sum a vector around a ring of ranks: each part of it goes around nearly twice."""
        return 2 * (ranks - 1) * (self.latency_s + nbytes / ranks / self.bandwidth)
