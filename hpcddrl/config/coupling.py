"""What others tell a learner."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from hpcddrl.config.fields import STRICT, NonNegative, Positive, PositiveFloat


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Uncoupled:
    """Groups tell each other nothing."""

    kind: Literal["uncoupled"] = "uncoupled"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Ensemble:
    """Groups exchange weights and each learns from the mixture of all their policies too."""

    kind: Literal["ensemble"] = "ensemble"
    exchange_every: Positive = 20
    """Updates between two exchanges."""
    beta: NonNegative = 0.05
    """Weight of KL(ensemble ‖ own policy) in the loss."""
    temperature: PositiveFloat = 1.0
    """T of c = softmax(V / T)."""
    evaluate_every: Positive = 4
    """The peers' networks see every n-th time step of a batch, in turn (1: all)."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Teacher:
    """Learners are drawn to the policy of another run, ever less (kickstarting, Schmitt et al. 2018)."""

    kind: Literal["teacher"] = "teacher"
    run: str | None = None
    """Directory of the teacher's run; its newest checkpoint of the first group (or server) teaches."""
    beta: NonNegative = 1.0
    """λ at the start: weight of KL(teacher ‖ own policy) in the loss."""
    anneal_frames: PositiveFloat = 2e6
    """Trained frames of a group after which λ is 0; it falls linearly."""


Coupling = Annotated[Uncoupled | Ensemble | Teacher, Field(discriminator="kind")]
