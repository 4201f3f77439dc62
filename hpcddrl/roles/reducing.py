"""Where gradients of a group's learners are averaged, and become weights on each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from hpcddrl.comm.allreduce import Averaging
from hpcddrl.comm.channel import Ending
from hpcddrl.config import Optimization
from hpcddrl.logs.timing import Phase, Timing
from hpcddrl.networks.device import HostSide
from hpcddrl.networks.flat import TAIL
from hpcddrl.roles.updates import LocalUpdate, OptimizerStep
from hpcddrl.types import Metrics, Stage, State, Weights


class ThroughHost:
    """Averages a GPU's vector in pinned host memory, by an averaging that does not read from GPUs.

    Args:
        averaging: over the learners.
    """

    def __init__(self, averaging: Averaging) -> None:
        self._averaging, self._host = averaging, HostSide()
        self.name, self.on_gpus = f"{averaging.name} in host memory", True

    @property
    def size(self) -> int:
        """See `Averaging`."""
        return self._averaging.size

    def average(self, vector: Tensor) -> None:
        """See `Averaging`. Collective over ``learners``."""
        self._averaging.average(self._host.fetch(vector))
        self._host.store(vector)

    def begin(self, vector: Tensor) -> Callable[[], None]:
        """See `Averaging`. Collective over ``learners``."""
        there = self._averaging.begin(self._host.fetch(vector))

        def finish() -> None:
            there()
            self._host.store(vector)

        return finish

    def advance(self) -> None:
        """See `Averaging`."""
        self._averaging.advance()

    def close(self) -> None:
        """See `Averaging`. Collective over ``learners``."""
        self._averaging.close()


class Reduction(Protocol):
    """When a learner's gradients are averaged.

    The `TAIL` of a vector are sums over the learners, told as means; the very last is the wish to end the leg.
    """

    @property
    def size(self) -> int:
        """Return over how many learners."""

    def __call__(self, vector: Tensor) -> bool:
        """Replace ``vector`` [n] by a mean over the learners; say whether there is one. Collective over them."""

    def advance(self) -> None:
        """Let what is on its way come nearer; cheap."""

    def rest(self) -> None:
        """Leave nothing on its way at the end of a leg. Collective over ``learners``."""

    def close(self) -> None:
        """Let go of what it holds. Collective over ``learners``."""


class AtOnce:
    """The mean of the vectors that are given; all wait for the last to come."""

    def __init__(self, averaging: Averaging) -> None:
        self._averaging = averaging

    @property
    def size(self) -> int:
        """See `Reduction`."""
        return self._averaging.size

    def __call__(self, vector: Tensor) -> bool:
        """See `Reduction`."""
        self._averaging.average(vector)
        return True

    def advance(self) -> None:
        """See `Reduction`: nothing is ever on its way."""

    def rest(self) -> None:
        """See `Reduction`: nothing is ever on its way."""

    def close(self) -> None:
        """See `Reduction`."""
        self._averaging.close()


class Pipelined:
    """The mean of the vectors that were given the time before, while that of these is made.

    A learner that comes late by less than one update keeps nobody waiting. Pipe-SGD (Li et al. 2018,
    arXiv:1811.03619) with an iteration dependency of 2. The very first call has no mean; at a checkpoint, the mean of
    the last one is remembered, so that a run that is cut takes the same steps.

    Args:
        averaging: over the learners.
    """

    def __init__(self, averaging: Averaging) -> None:
        self._averaging = averaging
        self._mean: Tensor | None = None  # [n] of the call before, or still being made
        self._finish: Callable[[], None] | None = None  # of what is still being made

    @property
    def size(self) -> int:
        """See `Reduction`."""
        return self._averaging.size

    def __call__(self, vector: Tensor) -> bool:
        """See `Reduction`."""
        self._arrive()
        before, self._mean = self._mean, vector.clone()
        self._finish = self._averaging.begin(self._mean)
        if before is not None:
            vector.copy_(before)
        return before is not None

    def advance(self) -> None:
        """See `Reduction`."""
        if self._finish is not None:
            self._averaging.advance()

    def rest(self) -> None:
        """See `Reduction`. The next leg begins with the last mean of this one, but not with the wish to end it."""
        self._arrive()
        if self._mean is not None:
            self._mean[-1] = 0.0

    def _arrive(self) -> None:
        if self._finish is not None:
            self._finish()
            self._finish = None

    def state(self) -> State:
        """See `Stateful`: the mean that the next call has, and of how many; at rest."""
        return {} if self._mean is None else {"mean": self._mean, "learners": self.size}

    def restore(self, state: State) -> None:
        """See `Stateful`: as if so many learners as there are now had told the same."""
        self._mean = None
        if "mean" in state:
            self._mean = state["mean"].clone()
            self._mean[-TAIL:] *= state["learners"] / self.size

    def close(self) -> None:
        """See `Reduction`."""
        self._averaging.close()


class AllReduceUpdate:
    """Average over the group's learners, then the same step on each: their weights stay bit-identical.

    The frames of all, the wish to stop and the first learner's stage ride behind the gradient, so that all learners
    have the same learning rate, and enter a stage and end after the same update. Until a `Pipelined` reduction has its
    first mean, the next version has the weights of the one before.

    Args:
        reduction: over the learners.
        step: of this one's optimizer.
        optimization: clipping.
        timing: of this rank.
        leads: this is the first of them.
    """

    refused = False

    def __init__(
        self, reduction: Reduction, step: OptimizerStep, optimization: Optimization, timing: Timing, *, leads: bool
    ) -> None:
        self._reduction, self._step, self._timing, self._leads = reduction, step, timing, leads
        self._local = LocalUpdate(step, optimization, timing)
        self._entered: Weights  # when the leg began

    @property
    def metrics(self) -> Metrics:
        """See `Update`."""
        return self._local.metrics

    def __call__(
        self, weights: Weights, gradient: Tensor, frames: int, samples: int, loss: float, stop: bool
    ) -> Weights:
        """See `Update`. Collective over ``learners``."""
        with self._timing(Phase.REDUCE):
            gradient[-3] = float(weights.stage) if self._leads else 0.0
            gradient[-2], gradient[-1] = frames, float(stop)
            there = self._reduction(gradient)
        if not there:
            return weights._replace(version=weights.version + 1, stage=self._entered.stage, since=self._entered.since)
        self._step.learners = self._reduction.size
        stage, all_frames = (round(float(number) * self._reduction.size) for number in gradient[-3:-1])
        weights = weights.entering(Stage(stage), weights.version + 1)
        return self._local(weights, gradient, all_frames, samples, loss, bool(gradient[-1] > 0))

    def first(self, weights: Weights) -> Weights:
        """See `Update`: all learners have the same at hand."""
        self._entered = weights
        return weights

    def optimizer_state(self) -> dict[str, Any]:
        """See `Update`."""
        return self._local.optimizer_state()

    def end(self) -> Ending:
        """See `Update`: no message is on its way between two legs."""
        self._reduction.rest()
        return Ending()

    def close(self) -> None:
        """See `Update`."""
        self._reduction.close()
