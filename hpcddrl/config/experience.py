"""How rollouts become batches."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from hpcddrl.config.fields import STRICT, Fraction, Positive, PositiveFloat


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Fresh:
    """Rollouts are learned from as they come, once: the learner's own, or its actors' from a bounded queue."""

    kind: Literal["fresh"] = "fresh"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Uniform:
    """Every transition is as likely as any other."""

    kind: Literal["uniform"] = "uniform"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Proportional:
    """Transitions are drawn in proportion to (|δ| + ε)^α (Schaul et al. 2015)."""

    kind: Literal["proportional"] = "proportional"
    alpha: Fraction = 0.6
    beta: Fraction = 0.4
    """Exponent of the importance weights (N · P)^−β."""
    epsilon: PositiveFloat = 1e-3


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RankBased:
    """Transitions are drawn in proportion to (1 / rank of |δ|)^α (Schaul et al. 2015)."""

    kind: Literal["rank"] = "rank"
    alpha: Fraction = 0.7
    beta: Fraction = 0.5
    """Exponent of the importance weights (N · P)^−β."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NoHindsight:
    """Transitions are learned from with the goal they had."""

    kind: Literal["none"] = "none"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Hindsight:
    """Most of what is drawn gets a goal that its own episode achieved (Andrychowicz et al. 2017).

    ``future``: by a later frame; ``final``: by the episode's last; ``episode``: by any of it.
    """

    kind: Literal["future", "final", "episode"] = "future"
    relabels: Positive = 4
    """k: so many transitions (of a replay of rollouts: episodes) in k + 1 get another goal."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Replay:
    """Transitions are kept and drawn again; on replay ranks if there are any, else on each learner."""

    kind: Literal["replay"] = "replay"
    capacity: Positive = 100_000
    """Transitions kept by each rank that holds a replay."""
    batch_size: Positive = 128
    """Transitions in an update."""
    learning_starts: Positive = 5_000
    """Transitions to gather before the first update."""
    replay_ratio: PositiveFloat = 4.0
    """Most transitions learned from for each env step since then (steps that only reset count too)."""
    priorities: Annotated[Uniform | Proportional | RankBased, Field(discriminator="kind")] = Field(
        default_factory=Uniform
    )
    hindsight: Annotated[NoHindsight | Hindsight, Field(discriminator="kind")] = Field(default_factory=NoHindsight)
    """Of environments with goals only."""


Experience = Annotated[Fresh | Replay, Field(discriminator="kind")]
