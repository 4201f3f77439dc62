"""What each rank counts, and what rank 0 makes of all ranks' counters."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import numpy as np

from hpcddrl.comm.placement import Place, Role, leaders, ranks_of
from hpcddrl.types import Array, Stage, State, Step

EPISODES = 100  # over which returns are averaged, all ranks together
POLL_S = 0.05  # between two looks of a rank at statuses and the order to stop
ACCOUNT = (
    "frames",
    "env_steps",
    "episodes",
    "interrupted",
    "predictions",
    "produced",
    "trained",
    "used",
    "dropped",
    "pending",
    "lost",
)
REPORTS_PER_ROW = 4  # statuses to rank 0 for each row, so that what it shows is fresh


@dataclass(kw_only=True)
class Counters:
    """What a rank has done; every number here goes to rank 0 with each status."""

    frames: float = 0.0  # stepped here, environment frames
    env_steps: float = 0.0
    episodes: float = 0.0
    predictions: float = 0.0
    produced: float = 0.0
    trained: float = 0.0  # transitions learned from, each as often as it was
    used: float = 0.0  # of those produced: learned from at least once
    dropped: float = 0.0  # … never learned from, and gone
    pending: float = 0.0  # … not learned from yet
    replayed: float = 0.0  # of those trained: drawn again from a replay of rollouts
    inherited: float = 0.0  # transitions that came here from ranks that are gone since
    restarts: float = 0.0  # of environments that hung or crashed
    interrupted: float = 0.0  # episodes that a checkpoint or a resume cut short
    updates: float = 0.0
    return_mean: float = math.nan  # over this rank's share of the last 100 episodes
    return_count: float = 0.0
    return_best: float = -math.inf
    lag_min: float = math.nan  # over the last interval
    lag_mean: float = math.nan
    lag_max: float = math.nan
    idle: float = 0.0  # share of the last interval spent waiting
    evaluated: float = math.nan  # mean return of this rank's newest evaluation
    _skip: int = field(default=1, repr=False)
    _window: deque[float] = field(default_factory=deque, repr=False)
    _finished: list[dict[str, float]] = field(default_factory=list, repr=False)
    _returns: deque[float] = field(default_factory=lambda: deque(maxlen=0), repr=False)
    _inherited: Callable[[], float] = field(default=lambda: 0.0, repr=False)
    _predicted_before: float = field(default=0.0, repr=False)  # in earlier segments

    @property
    def all_predictions(self) -> float:
        """Return the predictions since the run's start, over segments."""
        return self._predicted_before + self.predictions

    def state(self) -> State:
        """See `Stateful`: counts are of a segment, so that most begin anew; what is remembered outlasts it."""
        return {"predictions": self.all_predictions, "window": list(self._window), "best": self.return_best}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self._predicted_before, self.return_best = float(state["predictions"]), float(state["best"])
        self._window.extend(state["window"])

    def inherit(self, now: Callable[[], float]) -> None:
        """Let this tell what has come from ranks that are gone by now."""
        self._inherited = now

    def vector(self) -> Array:
        """Return the public numbers, up to now, in the order of `COUNTERS`."""
        self.inherited = self._inherited()
        if self._window:
            self.return_mean, self.return_count = float(np.mean(self._window)), float(len(self._window))
        return np.array([getattr(self, name) for name in COUNTERS])

    def stepped(self, step: Step) -> None:
        """Count one step of all environments and the episodes that it ended."""
        steps = int(np.count_nonzero(~step.first))
        self.restarts += step.restarts
        self.env_steps += steps
        self.frames += steps * self._skip
        for i in np.flatnonzero(step.episode_length):
            value = float(step.episode_return[i])
            self.episodes += 1
            self._window.append(value)
            self._returns.append(value)
            self.return_best = max(self.return_best, value)
            row = {"frames": self.frames, "return": value, "length": float(step.episode_length[i])}
            self._finished.append(row)

    def finished(self) -> list[dict[str, float]]:
        """Return the episodes that ended since the last call, as rows."""
        rows, self._finished = self._finished, []
        return rows

    def returns(self) -> list[float]:
        """Return the returns of the episodes that ended since the last call, as many of the newest as are kept."""
        returns = list(self._returns)
        self._returns.clear()
        return returns


COUNTERS = tuple(f.name for f in fields(Counters) if not f.name.startswith("_"))


def counters_for(skip: int, steppers: int, returns: int = 0) -> Counters:
    """Return a rank's counters, when ``steppers`` ranks share the window of the last 100 episodes.

    So many returns are kept for whoever asks for them.
    """
    window = deque[float](maxlen=math.ceil(EPISODES / max(1, steppers)))
    return Counters(_skip=skip, _window=window, _returns=deque(maxlen=returns))


class View(NamedTuple):
    """What rank 0 knows of the whole job: one row of counters a rank."""

    places: tuple[Place, ...]
    seconds: float
    counters: Array  # [ranks, len(COUNTERS)]
    stage: Stage | None = None  # None where nobody tells it
    lost: frozenset[int] = frozenset()  # ranks that have died
    silent: frozenset[int] = frozenset()  # ranks that have said nothing for long

    def column(self, name: str, role: Role | None = None) -> Array:
        """Return one counter of every rank (of a role)."""
        rows = [i for i, p in enumerate(self.places) if role is None or p.role is role]
        return self.counters[rows, COUNTERS.index(name)]

    def total(self, name: str) -> float:
        """Return the sum of a counter over the ranks."""
        return float(np.nansum(self.column(name)))

    @property
    def updates(self) -> float:
        """Return the optimizer's steps: the first server's, else the groups', each taken by all its learners."""
        owners = ranks_of(self.places, Role.SERVER)[:1] or leaders(self.places)
        return float(np.nansum(self.counters[owners, COUNTERS.index("updates")]))

    def produced_and_lost(self, restored: float = 0.0) -> dict[str, float]:
        """Return the transitions produced, and those of them that were lost with a rank that died (or was given up).

        What such an actor had produced is known from its last status and from what came from it, whichever is
        more, and what did not come is lost. Any other had an account of its own, which ends with its last status:
        then whatever stands in no account is lost. So many of those pending were restored from an earlier segment.
        """
        produced, lost = self.total("produced"), 0.0
        gone = sorted(self.lost | self.silent)
        if all(self.places[rank].role is Role.ACTOR for rank in gone):
            last, came = float(np.nansum(self.column("produced")[gone])), self.total("inherited")
            produced, lost = produced + max(0.0, came - last), max(0.0, last - came)
        else:
            accounted = sum(self.total(name) for name in ("used", "dropped", "pending")) - restored
            produced = max(produced, accounted)
            lost = produced - accounted
        return {"produced": produced, "lost": lost}

    @property
    def episodes_seen(self) -> float:
        """Return how many of the last 100 episodes there are yet."""
        return self.total("return_count")

    @property
    def return_mean(self) -> float:
        """Return the mean return of the last 100 episodes, NaN if there are none."""
        return self.return_mean_of(range(len(self.places)))

    def return_mean_of(self, ranks: Sequence[int]) -> float:
        """Return the same over the episodes of some ranks."""
        counts, means = (self.column(name)[list(ranks)] for name in ("return_count", "return_mean"))
        seen = counts > 0
        return float(np.average(means[seen], weights=counts[seen])) if seen.any() else math.nan


def account(before: Mapping[str, float], view: View) -> dict[str, float]:
    """Return what a job has done since its start, over segments: produced = used + dropped + pending + lost.

    Args:
        before: the account when this segment began; empty for the first.
        view: of this segment; what ranks that are gone had pending is lost.
    """
    gone = sorted(view.lost | view.silent)
    held = float(np.nansum(view.column("pending")[gone]))
    found = {name: view.total(name) for name in ACCOUNT if name != "lost"}
    found |= view.produced_and_lost(before.get("pending", 0.0))
    found |= {"pending": found["pending"] - held, "lost": found["lost"] + held}
    return {name: found[name] + (before.get(name, 0.0) if name != "pending" else 0.0) for name in ACCOUNT}


def steppers(places: Sequence[Place]) -> list[int]:
    """Return the world ranks that step environments: actors, or learners of groups that have none."""
    with_actors = {p.group for p in places if p.role is Role.ACTOR}
    return [
        rank
        for rank, p in enumerate(places)
        if p.role is Role.ACTOR or (p.role is Role.LEARNER and p.group not in with_actors)
    ]
