"""How gradients become weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from hpcddrl.config.fields import STRICT, Count, Fraction, NonNegative, PositiveFloat


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LocalUpdate:
    """Each learner steps its own optimizer."""

    kind: Literal["local"] = "local"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AllReduce:
    """Learners of a group average their gradients, then take the same step; one learner has nothing to reduce."""

    kind: Literal["allreduce"] = "allreduce"
    backend: Literal["horovod", "mpi"] = "horovod"
    overlap: bool = False
    """Average each gradient while the next is made, and apply it one update later (Li et al. 2018, Pipe-SGD)."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NoCompensation:
    """A stale gradient is applied as it is."""

    kind: Literal["none"] = "none"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ConstantCompensation:
    """DC-ASGD-c (Zheng et al. 2017): g + λ g ⊙ g ⊙ (w − w_backup), with one backup of the weights a learner."""

    kind: Literal["constant"] = "constant"
    strength: NonNegative = 0.04
    """λ."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AdaptiveCompensation:
    """DC-ASGD-a (Zheng et al. 2017): λ is divided by the root of the running mean square of the gradient."""

    kind: Literal["adaptive"] = "adaptive"
    strength: NonNegative = 2.0
    """λ₀."""
    decay: Fraction = 0.95
    epsilon: PositiveFloat = 1e-7


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ParameterServer:
    """Gradients go to the server ranks, which hold the optimizer, and new weights come back."""

    kind: Literal["server"] = "server"
    mode: Literal["asynchronous", "synchronous"] = "asynchronous"
    """Apply each gradient as it comes, or average those of all learners first."""
    compensation: Annotated[
        NoCompensation | ConstantCompensation | AdaptiveCompensation, Field(discriminator="kind")
    ] = Field(default_factory=NoCompensation)
    """What is done about a gradient's staleness."""
    max_staleness: Count | None = None
    """Refuse gradients of weights older than so many updates (unset: take all)."""
    max_loss_deviations: PositiveFloat | None = None
    """Refuse gradients whose loss is more than so many standard deviations above the running mean (unset: take all)."""


Update = Annotated[LocalUpdate | AllReduce | ParameterServer, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RMSProp:
    """RMSProp as torch has it (epsilon outside the root)."""

    kind: Literal["rmsprop"] = "rmsprop"
    decay: Fraction = 0.99
    epsilon: PositiveFloat = 1e-5
    momentum: Fraction = 0.0
    centered: bool = False
    """Divide by the deviation instead of the root mean square."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AdaGrad:
    """AdaGrad (Duchi et al. 2011): the rate falls with the sum of all squared gradients so far."""

    kind: Literal["adagrad"] = "adagrad"
    epsilon: PositiveFloat = 1e-10


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Adam:
    """Adam."""

    kind: Literal["adam"] = "adam"
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    epsilon: PositiveFloat = 1e-5


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Optimization:
    """The optimizer and its learning rate over frames."""

    method: Annotated[RMSProp | Adam | AdaGrad, Field(discriminator="kind")] = Field(default_factory=RMSProp)
    learning_rate: PositiveFloat = 1e-3
    decay: Literal["constant", "linear"] = "constant"
    """linear: to 0 at the end of the budget of frames."""
    warmup_frames: Count = 0
    """Frames over which the rate climbs to its full value."""
    scale_with_learners: bool = False
    """Multiply the rate by the number of learners whose gradients are averaged (Goyal et al. 2017), after warm-up."""
    max_gradient_norm: PositiveFloat | None = 40.0
    """Gradients are scaled down to this norm; 40 only stops explosions (as in A3C and IMPALA)."""
