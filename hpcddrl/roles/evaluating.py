"""Evaluation beside the training: when weights are handed over to be played with, and what came of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

from hpcddrl.comm.placement import Place, Role, leaders, ranks_of
from hpcddrl.comm.wait import Backoff
from hpcddrl.logs.timing import Phase
from hpcddrl.types import State, Weights

if TYPE_CHECKING:  # the process that plays must not begin MPI, as its import does
    from hpcddrl.roles.control import Control

GRACE_S = 60.0  # after the end of a run, for its last games


def evaluators(places: tuple[Place, ...]) -> list[int]:
    """Return who has weights evaluated: the first learner of each group, of those who share a server's the first."""
    first = leaders(places)
    return first[:1] if ranks_of(places, Role.SERVER) else first


class Played(NamedTuple):
    """What some full games came to."""

    mean: float  # of their returns, unclipped
    low: float  # of the mean's 95 % interval
    high: float
    seconds: float  # that they took
    cpu_s: float


class Examiner(Protocol):
    """Plays with weights, somewhere else, one vector of them at a time."""

    def begin(self, values: torch.Tensor) -> None:
        """Begin to play with a copy of a network's weights [P]."""

    def result(self) -> Played | None:
        """Return what came of it, once; None as long as it goes on.

        Raises:
            ChildProcessError: nothing can, in one line.
        """

    def end(self) -> None:
        """Give up what is going on, and play no more."""


class Evaluating(Protocol):
    """What a learner calls with its weights."""

    def see(self, weights: Weights) -> None:
        """Look at weights that are to be learned from next: whether they are to be played with."""

    def end(self, weights: Weights) -> None:
        """Look at the weights that the run ends with."""


class NoEvaluating:
    """Nobody plays with this learner's weights."""

    def see(self, weights: Weights) -> None:
        """See `Evaluating`."""

    def end(self, weights: Weights) -> None:
        """See `Evaluating`."""


class _Begun(NamedTuple):
    """An evaluation that is going on."""

    version: int
    frames: float  # behind the weights
    due: float  # the frames at which it was
    time: float  # of the segment, when it began


def own(weights: Weights) -> torch.Tensor:
    """Return the weights [P] that a learner goes on with."""
    return weights.flat


class Periodically:
    """Has weights played with every so many frames, while the learner goes on.

    One that is due while another goes on waits until that is over, and is of the weights there are by then; in exact
    runs the learner waits, so that the same weights play each time. The last weights play too, unless the run ends by
    a signal.

    Args:
        examiner: who plays.
        every: frames of all who share the weights, from one evaluation to the next.
        episodes: in each.
        exact: the run is deterministic.
        control: of this rank.
        say: called with a line about an evaluation that failed or came too late; there is another try when one is due.
        playing: returns the weights [P] that play at that time, if not the learner's own.
    """

    def __init__(
        self,
        examiner: Examiner,
        every: float,
        episodes: int,
        exact: bool,
        control: Control,
        say: Callable[[str], object],
        playing: Callable[[Weights], torch.Tensor] = own,
    ) -> None:
        self._examiner, self._every, self._episodes, self._exact = examiner, every, episodes, exact
        self._control, self._say, self._playing = control, say, playing
        self._due = 0.0  # frames, of the next
        self._begun: _Begun | None = None
        self._newest = -1  # version that has played

    def state(self) -> State:
        """See `Stateful`: an evaluation that is not over is still due."""
        return {"due": self._due if self._begun is None else self._begun.due, "newest": self._newest}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self._due, self._newest = float(state["due"]), int(state["newest"])

    def see(self, weights: Weights) -> None:
        """See `Evaluating`."""
        self._look()
        if self._begun is None and weights.frames >= self._due:
            with self._control.timing(Phase.EVALUATE):
                self._begin(weights)
                if self._exact:
                    self._wait(math.inf)

    def end(self, weights: Weights) -> None:
        """See `Evaluating`."""
        until = math.inf if self._exact else time.monotonic() + GRACE_S
        with self._control.timing(Phase.EVALUATE):
            self._wait(until)
            if self._begun is None and weights.version != self._newest and not self._control.signalled:
                self._begin(weights)
                self._wait(until)
            if self._begun is not None:
                self._say(f"the evaluation of version {self._begun.version} is not over and given up")
            self._examiner.end()

    def _begin(self, weights: Weights) -> None:
        self._begun = _Begun(weights.version, weights.frames, self._due, self._control.elapsed_s)
        self._due = (weights.frames // self._every + 1) * self._every
        self._examiner.begin(self._playing(weights))

    def _wait(self, until: float) -> None:
        """Wait until nothing goes on, a signal ends the run, or that time (`time.monotonic`) has come."""
        backoff = Backoff(longest_s=0.02)
        while self._begun is not None and not self._control.signalled and time.monotonic() < until:
            self._control.tick()
            backoff.pause()
            self._look()

    def _look(self) -> None:
        """Take what has come of it, if it is over."""
        if self._begun is None:
            return
        try:
            played = self._examiner.result()
        except ChildProcessError as error:
            self._say(f"the evaluation of version {self._begun.version} failed: {error}")
            self._begun = None
            return
        if played is not None:
            begun, self._begun = self._begun, None
            self._newest = begun.version
            self._control.evaluated(
                {
                    "time": begun.time,
                    "version": begun.version,
                    "frames": begun.frames,
                    "episodes": self._episodes,
                    "return": played.mean,
                    "low": played.low,
                    "high": played.high,
                    "seconds": played.seconds,
                    "cpu": played.cpu_s,
                }
            )
