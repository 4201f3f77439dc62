"""How a server's shard turns the learners' gradients into its next weights: one by one, or averaged."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hpcddrl.comm.messages import GradientMessage
from hpcddrl.logs.timing import Phase
from hpcddrl.rl.delay_compensation import adaptive_strength, compensated, mean_square
from hpcddrl.roles.admission import Admission
from hpcddrl.roles.control import Control
from hpcddrl.roles.updates import OptimizerStep, shrink
from hpcddrl.types import Stage, State, Weights

Order = Callable[[Sequence[int], Collection[int]], list[list[int]]]


def as_they_come(sending: Sequence[int], arrived: Collection[int]) -> list[list[int]]:
    """Return the learners whose gradients are applied now, those of one update together: each that has arrived.

    Args:
        sending: learners that will send more, the one that was served longest ago first.
        arrived: of them, those whose gradient is here.
    """
    return [[learner] for learner in arrived]


def in_turn(sending: Sequence[int], arrived: Collection[int]) -> list[list[int]]:
    """See `as_they_come`: each once in a round, always in the same order."""
    return [[sending[0]]] if sending[0] in arrived else []


def together(sending: Sequence[int], arrived: Collection[int]) -> list[list[int]]:
    """See `as_they_come`: one of every learner makes an update."""
    return [list(sending)] if all(learner in arrived for learner in sending) else []


class Applying(Protocol):
    """Makes one update of some learners' gradients."""

    def __call__(self, weights: Weights, gradients: Mapping[int, GradientMessage]) -> tuple[Weights, bool]:
        """Return the next weights (changed in place) and whether what came was refused.

        Args:
            weights: of this shard.
            gradients: by learner; their vectors are destroyed.
        """

    def sent(self, learner: int, values: Tensor) -> None:
        """Note that a learner has been sent these weights [P]."""


class DelayCompensation:
    """Compensates gradients for what happened since their learners were sent weights (DC-ASGD).

    Keeps a copy of this shard's weights for each learner. The gradient is the one that its learner clipped.

    Args:
        learners: that send gradients.
        parameters: P of this shard.
        strength: from a gradient [P] to its λ, a number or [P].
    """

    def __init__(self, learners: Sequence[int], parameters: int, strength: Callable[[Tensor], Tensor | float]) -> None:
        self._strength = strength
        self._backups = {learner: torch.zeros(parameters) for learner in learners}

    @property
    def nbytes(self) -> int:
        """Return the size of the copies."""
        return sum(backup.nbytes for backup in self._backups.values())

    def __call__(self, gradient: Tensor, values: Tensor, learner: int) -> Tensor:
        """Return what to apply to ``values`` [P] for a learner's ``gradient`` [P]."""
        return compensated(gradient, values, self._backups[learner], self._strength(gradient))

    def sent(self, learner: int, values: Tensor) -> None:
        """Copy what a learner was sent."""
        self._backups[learner].copy_(values)


class AdaptiveStrength:
    """λ of DC-ASGD-a, with the running mean square of all gradients of a shard."""

    def __init__(self, strength: float, decay: float, epsilon: float, parameters: int) -> None:
        self._strength, self._decay, self._epsilon = strength, decay, epsilon
        self._mean_square = torch.zeros(parameters)

    def state(self) -> State:
        """See `Stateful`."""
        return {"mean_square": self._mean_square}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self._mean_square = state["mean_square"].clone()

    def __call__(self, gradient: Tensor) -> Tensor:
        """Take a gradient [P] into the mean square; return its λ [P]."""
        self._mean_square = mean_square(self._mean_square, gradient, self._decay)
        return adaptive_strength(self._strength, self._mean_square, self._epsilon)


class OneByOne:
    """Each gradient makes an update by itself, unless it is refused: asynchronous SGD.

    A refused gradient's frames count all the same: they were played, and the schedules and the budget go by them.

    Args:
        step: the optimizer over the weights.
        admission: of gradients.
        compensation: of their staleness, if any.
        decides: what a learner leaves to go on from is taken if it comes in time; else another shard has decided.
        control: of this rank.
    """

    def __init__(
        self,
        step: OptimizerStep,
        admission: Admission,
        compensation: DelayCompensation | None,
        decides: bool,
        control: Control,
    ) -> None:
        self._step, self._admission, self._compensation = step, admission, compensation
        self._decides, self._control = decides, control

    def __call__(self, weights: Weights, gradients: Mapping[int, GradientMessage]) -> tuple[Weights, bool]:
        """See `Applying`."""
        ((learner, record),) = gradients.items()
        staleness, frames = weights.version - int(record.version[0]), int(record.frames[0])
        after = weights._replace(frames=weights.frames + frames)
        admitted = not record.refused[0] and self._admission(staleness, float(record.loss[0]))
        metrics, taken = self._admission.metrics, admitted
        if admitted:
            with self._control.timing(Phase.UPDATE):
                gradient = torch.from_numpy(record.flat)
                if self._compensation is not None:
                    gradient = self._compensation(gradient, weights.flat, learner)
                rate = self._step(gradient, frames)
            metrics |= {"learning_rate": rate, "staleness_mean": float(staleness), "staleness_max": float(staleness)}
            self._control.count("staleness", staleness)
            after = after._replace(version=weights.version + 1)
        else:
            self._step.frames += frames
            after, taken = self._heard(after, record, learner)
        self._control.learned(metrics, np.empty(0))
        return after, not taken

    def _heard(self, weights: Weights, record: GradientMessage, learner: int) -> tuple[Weights, bool]:
        """Return the weights after what a learner had to tell beside gradients, and whether they are its own.

        One that went on alone may be ahead, and versions never go back; what it leaves to go on from are weights that
        the optimizer knows nothing of. When the late stage is over, others may have learned from these weights together
        already: they stay.
        """
        behind = max(0, int(record.version[0]) - weights.version)
        succeeds = bool(record.succeeds[0]) and (weights.stage is Stage.LATE or not self._decides)
        if succeeds:
            weights.flat.copy_(torch.from_numpy(record.flat))
            self._step.restart()
        if rise := behind + succeeds:
            weights = weights._replace(version=weights.version + rise)
            self._control.note(
                "handovers", version=weights.version, learner=learner, updates=rise, restarted=float(succeeds)
            )
        return weights, succeeds

    def sent(self, learner: int, values: Tensor) -> None:
        """See `Applying`."""
        if self._compensation is not None:
            self._compensation.sent(learner, values)


class Averaged:
    """One gradient of each learner makes an update: synchronous SGD, as one learner with all their samples.

    The mean is weighted by the samples that each gradient is the mean over, and clipped afterwards, by its norm over
    all shards: a mean of clipped gradients is not the clipped gradient of all samples. The norm is summed in float64,
    so that it does not depend on where the vector is cut once it is rounded to float32.

    Args:
        step: the optimizer over the weights.
        most: the norm to clip to, if any.
        total: the sum of a number over all shards.
        control: of this rank.
    """

    def __init__(
        self, step: OptimizerStep, most: float | None, total: Callable[[float], float], control: Control
    ) -> None:
        self._step, self._most, self._total, self._control = step, most, total, control

    def __call__(self, weights: Weights, gradients: Mapping[int, GradientMessage]) -> tuple[Weights, bool]:
        """See `Applying`. Collective over the servers."""
        records, timing = list(gradients.values()), self._control.timing
        assert all(record.version[0] == weights.version for record in records), "a gradient of other weights"
        with timing(Phase.REDUCE):
            mean = averaged([(torch.from_numpy(r.flat), int(r.samples[0])) for r in records])
            norm = math.sqrt(self._total(float(mean.double().square().sum())))
            shrink(mean, norm, self._most)
        frames = sum(int(record.frames[0]) for record in records)
        with timing(Phase.UPDATE):
            rate = self._step(mean, frames)
        metrics = {"learning_rate": rate, "grad_norm": norm, "staleness_mean": 0.0, "staleness_max": 0.0}
        self._control.learned(metrics, np.empty(0))
        for _ in records:
            self._control.count("staleness", 0)
        return weights._replace(version=weights.version + 1, frames=weights.frames + frames), False

    def sent(self, learner: int, values: Tensor) -> None:
        """See `Applying`: no copy is needed of what all have."""


def averaged(gradients: Sequence[tuple[Tensor, int]]) -> Tensor:
    """Return the mean [P] of gradients [P], each weighted by its number of samples; they stay as they are."""
    samples = sum(count for _, count in gradients)
    mean = torch.zeros_like(gradients[0][0])
    for gradient, count in gradients:
        mean.add_(gradient, alpha=count / max(1, samples))  # without any sample there is nothing to learn
    return mean
