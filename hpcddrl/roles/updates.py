"""Where gradients become weights: on the learner, averaged over its group's learners, or at a server."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from hpcddrl.comm.allreduce import Averaging
from hpcddrl.comm.channel import Comm, Ending, Receiver, Sender, Slot, Tag, Traffic, ignore
from hpcddrl.comm.messages import GradientMessage, WeightsMessage, gradient_layout, weights_layout
from hpcddrl.comm.placement import slices
from hpcddrl.comm.wait import Backoff, wait_until
from hpcddrl.config import AdaGrad, Adam, Optimization, RMSProp
from hpcddrl.logs.timing import Phase, Timing
from hpcddrl.networks.device import HostSide
from hpcddrl.types import Metrics, RunError, Stage, State, Tuning, Weights


class Update(Protocol):
    """Turns a gradient into the next version of the weights, in place."""

    @property
    def metrics(self) -> Metrics:
        """Return what the last call has to tell."""

    @property
    def refused(self) -> bool:
        """Say whether the last gradient was not applied."""

    def __call__(
        self, weights: Weights, gradient: Tensor, frames: int, samples: int, loss: float, stop: bool
    ) -> Weights:
        """Return the next weights.

        Args:
            weights: that the gradient is of; the same vector holds the next ones afterwards. Their stage is the one
                that this rank would enter, that of the next ones what all who share them have entered.
            gradient: [P + TAIL]: the end is room for what is reduced with it; destroyed.
            frames: environment frames that are new with this learner's batch.
            samples: transitions that the gradient is the mean over.
            loss: of the batch.
            stop: this rank would like to end; `Weights.last` says whether all who share the weights do.

        Raises:
            RunError: the gradient is not finite. The weights are still the last good ones.
        """

    def first(self, weights: Weights) -> Weights:
        """Return the weights that a leg begins with; they may have to come from another rank."""

    def optimizer_state(self) -> dict[str, Any] | None:
        """Return the optimizer's state, or None where another rank holds it."""

    def end(self) -> Ending:
        """Part from other ranks at the end of a leg; return what is still to come."""

    def close(self) -> None:
        """Let go of what it holds, at the end of the run. Collective over ``learners``."""


def learning_rate(optimization: Optimization, frames: float, budget_frames: float | None, learners: int) -> float:
    """Return the learning rate after so many environment frames.

    Warm-up climbs from the one-learner rate to ``learners`` times it (with scale_with_learners, Goyal et al. 2017,
    section 2.2), else from 0; linear decay ends at 0 with the budget.
    """
    scale = learners if optimization.scale_with_learners else 1
    start, full = (1.0, float(scale)) if scale > 1 else (0.0, 1.0)
    warm = optimization.warmup_frames
    factor = start + (full - start) * min(1.0, frames / warm) if warm else full
    if optimization.decay == "linear":
        assert budget_frames is not None
        factor *= max(0.0, 1.0 - frames / budget_frames)
    return optimization.learning_rate * factor


class OptimizerStep:
    """An optimizer over one flat vector.

    Args:
        values: [P] the parameters, changed in place.
        optimization: method, rate and clipping.
        budget_frames: at which a linear schedule ends.
        learners: whose gradients are averaged before each step.
        tuning: factor on the rate, read at each step.
    """

    def __init__(
        self,
        values: Tensor,
        optimization: Optimization,
        budget_frames: float | None,
        learners: int = 1,
        tuning: Tuning | None = None,
    ) -> None:
        self._tuning = tuning or Tuning()
        self._optimization, self._budget_frames, self.learners = optimization, budget_frames, learners
        self._parameter = torch.nn.Parameter(values)  # shares the vector's memory
        self.frames = 0.0
        method, rate = optimization.method, optimization.learning_rate
        self.optimizer: torch.optim.Optimizer
        match method:
            case RMSProp():
                self.optimizer = torch.optim.RMSprop(
                    [self._parameter],
                    rate,
                    alpha=method.decay,
                    eps=method.epsilon,
                    momentum=method.momentum,
                    centered=method.centered,
                )
            case Adam():
                betas = (method.beta1, method.beta2)
                self.optimizer = torch.optim.Adam([self._parameter], rate, betas=betas, eps=method.epsilon)
            case AdaGrad():
                self.optimizer = torch.optim.Adagrad([self._parameter], rate, eps=method.epsilon)

    def state(self) -> State:
        """See `Stateful`: the parameters too."""
        parameters, optimizer = self._parameter.detach(), self.optimizer.state_dict()
        return {"parameters": parameters, "optimizer": optimizer, "frames": self.frames}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        with torch.no_grad():
            self._parameter.copy_(state["parameters"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # it keeps the tensors that it is given
        self.frames = float(state["frames"])

    def __call__(self, gradient: Tensor, frames: int) -> float:
        """Take one step; return the learning rate it was taken with."""
        rate = learning_rate(self._optimization, self.frames, self._budget_frames, self.learners)
        rate *= self._tuning.learning_rate
        self.optimizer.param_groups[0]["lr"] = rate
        self._parameter.grad = gradient
        self.optimizer.step()
        self.frames += frames
        return rate


def clip(gradient: Tensor, most: float | None) -> float:
    """Scale a gradient [P] in place to a norm of at most ``most``; return its norm before.

    Raises:
        RunError: the norm is not finite.
    """
    norm = float(torch.linalg.vector_norm(gradient))
    if not math.isfinite(norm):
        raise RunError(
            "the gradient is not finite (loss, reward or weights were NaN or infinite); the weights before it are "
            "kept in checkpoints/. Try a lower optimization.learning_rate, or --set precision=fp32"
        )
    shrink(gradient, norm, most)
    return norm


def shrink(gradient: Tensor, norm: float, most: float | None) -> None:
    """Scale (a part of) a gradient in place as its norm, if greater, comes down to ``most``."""
    if most is not None and norm > most:
        gradient *= most / norm


class LocalUpdate:
    """The learner's own optimizer."""

    refused = False

    def __init__(self, step: OptimizerStep, optimization: Optimization, timing: Timing) -> None:
        self._step, self._most, self._timing = step, optimization.max_gradient_norm, timing
        self.metrics: Metrics = {}

    def __call__(
        self, weights: Weights, gradient: Tensor, frames: int, samples: int, loss: float, stop: bool
    ) -> Weights:
        """See `Update`."""
        with self._timing(Phase.UPDATE):
            own = gradient[: weights.flat.numel()]
            norm = clip(own, self._most)
            rate = self._step(own, frames)
        self.metrics = {"grad_norm": norm, "learning_rate": rate}
        return weights._replace(version=weights.version + 1, frames=weights.frames + frames, last=stop)

    def first(self, weights: Weights) -> Weights:
        """See `Update`: those at hand."""
        return weights

    def optimizer_state(self) -> dict[str, Any]:
        """See `Update`."""
        return self._step.optimizer.state_dict()

    def end(self) -> Ending:
        """See `Update`: nothing is shared."""
        return Ending()

    def close(self) -> None:
        """See `Update`: nothing is held."""


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

    def close(self) -> None:
        """See `Averaging`."""
        self._averaging.close()


class AllReduceUpdate:
    """Average over the group's learners, then the same step on each: their weights stay bit-identical.

    The frames of all, the wish to stop and the first learner's stage ride behind the gradient, so that all learners
    have the same learning rate, and enter a stage and end after the same update.

    Args:
        averaging: over the learners.
        learners: how many there are.
        step: of this one's optimizer.
        optimization: clipping.
        timing: of this rank.
        leads: this is the first of them.
    """

    refused = False

    def __init__(
        self,
        averaging: Averaging,
        step: OptimizerStep,
        optimization: Optimization,
        timing: Timing,
        *,
        leads: bool,
    ) -> None:
        self._averaging, self._step, self._timing, self._leads = averaging, step, timing, leads
        self._local = LocalUpdate(step, optimization, timing)

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
            self._averaging.average(gradient)
        self._step.learners = self._averaging.size
        stage, all_frames = (round(float(number) * self._averaging.size) for number in gradient[-3:-1])
        weights = weights.entering(Stage(stage), weights.version + 1)
        return self._local(weights, gradient, all_frames, samples, loss, bool(gradient[-1] > 0))

    def first(self, weights: Weights) -> Weights:
        """See `Update`: all learners have the same at hand."""
        return weights

    def optimizer_state(self) -> dict[str, Any]:
        """See `Update`."""
        return self._local.optimizer_state()

    def end(self) -> Ending:
        """See `Update`: no message is ever on its way between two updates."""
        return Ending()

    def close(self) -> None:
        """See `Update`."""
        self._averaging.close()


class Shard(NamedTuple):
    """A learner's link to the server rank that owns a part of the weights."""

    rank: int
    owned: slice
    gradients: Sender[GradientMessage]
    weights: Receiver[WeightsMessage]


class ServerUpdate:
    """Send each shard of the server its part of the gradient, and take the weights that they answer with.

    Every shard counts its own updates, and a gradient carries the version of that shard's weights that it is of; the
    version that others see is the first shard's. A shard that admits or refuses gradients is asked before the others
    are told, so that none is applied in part; its age is then that at the first shard.

    Args:
        world: whose ranks are meant.
        servers: the ranks that own a part each, in order.
        parameters: of the network.
        most: norm to clip gradients to before they are sent, if any.
        asks: the first shard may refuse a gradient.
        meanwhile: called while their answers are awaited.
        timing: of this rank.
        traffic: where messages are counted.
    """

    def __init__(
        self,
        world: Comm,
        servers: Sequence[int],
        parameters: int,
        most: float | None,
        asks: bool,
        meanwhile: Callable[[], None],
        timing: Timing,
        traffic: Traffic,
    ) -> None:
        self._most, self._meanwhile, self._timing = most, meanwhile, timing
        self._shards = [
            Shard(
                rank,
                owned,
                Sender(world, Tag.GRADIENT, gradient_layout(owned.stop - owned.start), 1, traffic),
                Receiver(world, [rank], Tag.WEIGHTS, weights_layout(owned.stop - owned.start), slots=1),
            )
            for rank, owned in zip(servers, slices(parameters, len(servers)), strict=True)
        ]
        numbers = range(len(servers))
        self._gradient, self._values = HostSide(), HostSide()  # from where and to where messages go
        self._rounds = [numbers[:1], numbers[1:]] if asks else [numbers]  # of shards that are told at the same time
        self._versions = [0] * len(servers)
        self.metrics: Metrics = {}
        self.refused = False

    def first(self, weights: Weights) -> Weights:
        """See `Update`: wait for the shards' first weights."""
        return self._pull(weights, range(len(self._shards)))

    def __call__(
        self, weights: Weights, gradient: Tensor, frames: int, samples: int, loss: float, stop: bool
    ) -> Weights:
        """See `Update`. The server decides about the end."""
        with self._timing(Phase.REDUCE):
            own = gradient[: weights.flat.numel()]
            self.metrics = {"grad_norm": clip(own, self._most)}
            self.refused = False
            sent = self._gradient.fetch(own)
            for numbers in self._rounds:
                for number in numbers:
                    self._push(number, sent, frames, samples, loss)
                weights = self._pull(weights, numbers)
            wait_until(lambda: all(shard.gradients.idle for shard in self._shards))
        return weights

    def optimizer_state(self) -> None:
        """See `Update`: the server holds it."""

    def end(self) -> Ending:
        """See `Update`."""
        for shard in self._shards:
            shard.gradients.say_last([shard.rank])
        return Ending(tuple((s.weights, ignore) for s in self._shards), tuple(s.gradients for s in self._shards))

    def close(self) -> None:
        """See `Update`: nothing is held."""

    def _push(self, number: int, gradient: Tensor, frames: int, samples: int, loss: float) -> None:
        shard = self._shards[number]
        slot = shard.gradients.take()
        assert slot is not None, "the shard answered, so it has taken the gradient before"
        slot.record.version[0], slot.record.frames[0] = self._versions[number], frames
        slot.record.samples[0], slot.record.loss[0], slot.record.refused[0] = samples, loss, self.refused
        slot.record.flat[:] = gradient[shard.owned].numpy()
        shard.gradients.send(slot, shard.rank)
        shard.gradients.release(slot)

    def _pull(self, weights: Weights, numbers: Sequence[int]) -> Weights:
        """Wait for these shards' answers and write them into the weights."""
        arrived: dict[int, Slot[WeightsMessage]] = {}
        backoff = Backoff(longest_s=1e-3)
        with self._timing(Phase.WAIT):
            while True:
                arrived |= {number: slot for number in numbers for slot in self._shards[number].weights.poll()}
                if len(arrived) == len(numbers):
                    break
                self._meanwhile()
                backoff.pause()
        values = self._values.of(weights.flat).numpy()
        for number, slot in arrived.items():
            record, shard = slot.record, self._shards[number]
            values[shard.owned] = record.flat
            self._versions[number] = int(record.version[0])
            self.refused = self.refused or bool(record.refused[0])
            weights = weights._replace(last=weights.last or bool(record.last[0]))
            if number == 0:
                stage, since = Stage(int(record.stage[0])), int(record.since[0])
                version, frames = int(record.version[0]), float(record.frames[0])
                weights = weights._replace(version=version, frames=frames, stage=stage, since=since)
            shard.weights.release(slot)
        self._values.store(weights.flat)
        return weights
