"""Where gradients become weights: on the learner itself (averaged: `roles.reducing`; at a server: `roles.shards`)."""

from __future__ import annotations

import copy
import math
from typing import Any, Protocol

import torch
from torch import Tensor

from hpcddrl.comm.channel import Ending
from hpcddrl.config import AdaGrad, Adam, Optimization, RMSProp
from hpcddrl.logs.timing import Phase, Timing
from hpcddrl.types import Metrics, RunError, State, Tuning, Weights


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
        self.optimizer = _optimizer(self._parameter, optimization)

    def restart(self) -> None:
        """Forget what the optimizer has gathered: the parameters are others than those that it stepped.

        RMSProp's running mean square begins at 0, so that its first step is 1 / √(1 − α) times (ten times) a usual one:
        what random weights get over is too much for weights that have learned. From here on its rate is multiplied by
        √(1 − α^t), which is the correction that Adam has (Kingma & Ba 2015, section 3).
        """
        self.optimizer = _optimizer(self._parameter, self._optimization)
        self.optimizer.param_groups[0]["restarted"] = True  # part of its state

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
        rate *= self._tuning.learning_rate * self._correction()
        self.optimizer.param_groups[0]["lr"] = rate
        self._parameter.grad = gradient
        self.optimizer.step()
        self.frames += frames
        return rate

    def _correction(self) -> float:
        """Return the factor on the rate of the step to come after a restart."""
        method = self._optimization.method
        if not isinstance(method, RMSProp) or not self.optimizer.param_groups[0].get("restarted", False):
            return 1.0
        taken = float(self.optimizer.state.get(self._parameter, {}).get("step", 0))
        return math.sqrt(1 - method.decay ** (taken + 1))


def _optimizer(parameter: torch.nn.Parameter, optimization: Optimization) -> torch.optim.Optimizer:
    method, rate = optimization.method, optimization.learning_rate
    match method:
        case RMSProp(decay=alpha, epsilon=eps, momentum=momentum, centered=centered):
            return torch.optim.RMSprop([parameter], rate, alpha=alpha, eps=eps, momentum=momentum, centered=centered)
        case Adam(beta1=beta1, beta2=beta2, epsilon=eps):
            return torch.optim.Adam([parameter], rate, betas=(beta1, beta2), eps=eps)
        case AdaGrad(epsilon=eps):
            return torch.optim.Adagrad([parameter], rate, eps=eps)


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
