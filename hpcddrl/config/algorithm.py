"""What is learned from a batch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from hpcddrl.config.fields import STRICT, Fraction, NonNegative, Positive, PositiveFloat


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PolicyGradient:
    """The plain policy gradient: −ρ A log π."""

    kind: Literal["policy_gradient"] = "policy_gradient"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ClippedSurrogate:
    """−min(r A, clip(r, 1 ± ε) A), r = π / μ, in several passes over each batch (Schulman et al. 2017)."""

    kind: Literal["clipped"] = "clipped"
    clip: PositiveFloat = 0.2
    epochs: Positive = 4
    minibatches: Positive = 4
    """Parts that a batch's environments are dealt to in each pass."""


Surrogate = Annotated[PolicyGradient | ClippedSurrogate, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ActorCritic:
    """Policy gradient with a learned value (n-step returns, V-trace and their relatives)."""

    kind: Literal["actor_critic"] = "actor_critic"
    unroll_length: Positive = 20
    """Env steps in a rollout (T)."""
    rollouts_per_batch: Positive | Literal["ready"] = 1
    """Rollouts that make a batch ("ready": all there are, with central acting); in lockstep one from each actor."""
    discount: Fraction = 0.99
    correction: Literal["none", "eps", "ratio", "vtrace"] = "vtrace"
    """What is done about data of older policies."""
    trace_decay: Fraction = 1.0
    """λ of the value targets: 1 for n-step returns, less for less variance."""
    rho_bar: PositiveFloat = 1.0
    c_bar: PositiveFloat = 1.0
    surrogate: Surrogate = Field(default_factory=PolicyGradient)
    value_coefficient: NonNegative = 0.5
    entropy_coefficient: NonNegative = 0.01
    normalise_advantages: bool = False
    """Scale a batch's advantages to mean 0 and deviation 1."""
    reduction: Literal["mean", "sum"] = "mean"
    """Of the steps' losses; the size of a step follows the batch's with "sum"."""
    learn_from_terminal: bool = True
    """Off: steps that terminate an episode are not learned from, and their rewards are lost (GA3C's code)."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LinearEpsilon:
    """ε falls linearly over the job's frames, the same for all."""

    kind: Literal["linear"] = "linear"
    start: Fraction = 1.0
    end: Fraction = 0.05
    frames: PositiveFloat = 1e6


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SpreadEpsilon:
    """Each of the job's N environments keeps its own: εᵢ = base^(1 + exponent · i / (N − 1)) (Horgan et al. 2018)."""

    kind: Literal["spread"] = "spread"
    base: Fraction = 0.4
    exponent: NonNegative = 7.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class QLearning:
    """Q-learning with target weights, from a replay."""

    kind: Literal["q_learning"] = "q_learning"
    unroll_length: Positive = 4
    """Env steps in a rollout (T), the unit in which transitions come to the replay."""
    discount: Fraction = 0.99
    n_step: Positive = 1
    """Rewards before the target bootstraps."""
    double: bool = True
    """Choose the target's action by the weights being learned (van Hasselt et al. 2016)."""
    dueling: bool = True
    """Q = V + A − mean A (Wang et al. 2016)."""
    target_every: Positive = 500
    """Updates between two copies to the target weights."""
    huber: PositiveFloat | None = 1.0
    """|δ| from which the loss is linear, so that errors are clipped (unset: squared throughout)."""
    exploration: Annotated[LinearEpsilon | SpreadEpsilon, Field(discriminator="kind")] = Field(
        default_factory=LinearEpsilon
    )


Algorithm = Annotated[ActorCritic | QLearning, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Network:
    """The network: a torso, then a policy head and a value head."""

    torso: Literal["auto", "mlp", "nips", "nature", "resnet"] = "auto"
    """auto: nips for images of 64 pixels and more, else mlp."""
    width: PositiveFloat = 1.0
    """Factor on the channels and units of every layer."""
