"""What stands in for the network where actions are chosen: its shape, the format of its numbers, and its teaching.

A compressor is a class of its own, so that only what can be combined can be said: whole, narrower and channel-pruned
networks come in every format, masks and binary weights bring their own.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from hpcddrl.config.fields import STRICT, NonNegative, Positive, PositiveFloat

Bits = Annotated[int, Field(ge=2, le=16)]
Part = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Float32:
    """Numbers as the learner has them."""

    kind: Literal["fp32"] = "fp32"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Cast:
    """16-bit floats, stored, sent and computed with: half the bytes."""

    kind: Literal["cast"] = "cast"
    dtype: Literal["bf16", "fp16"] = "bf16"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Int8:
    """8-bit integers for the torso's weights and activations, ranges calibrated anew at each publication."""

    kind: Literal["int8"] = "int8"
    states: Positive = 64
    """Recent observations that the activations' ranges are measured on."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FixedPoint:
    """Fixed-point numbers Qm.n with a bit width for each layer (Lin et al. 2016), computed with floats: simulated."""

    kind: Literal["fixed_point"] = "fixed_point"
    sqnr_db: PositiveFloat = 25.0
    """Signal-to-quantisation-noise ratio that all weights together must keep, in dB."""
    least_bits: Bits = 3
    most_bits: Bits = 12
    activation_bits: Bits = 8
    states: Positive = 64
    """Recent observations that the activations' formats are chosen on."""

    @model_validator(mode="after")
    def _some_width_is_allowed(self) -> FixedPoint:
        if self.least_bits > self.most_bits:
            raise ValueError(
                f"compression.format.least_bits = {self.least_bits}: more than most_bits = {self.most_bits}; "
                "set less, or more of these"
            )
        return self


Format = Annotated[Float32 | Cast | Int8 | FixedPoint, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EveryUpdates:
    """Follow the teacher every so many of its updates."""

    kind: Literal["every"] = "every"
    updates: Positive = 10
    """At least; an actor may ask later. In between what acts stands still."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AboveKL:
    """Follow the teacher when the student's answers to fresh states have drifted from its own."""

    kind: Literal["kl"] = "kl"
    threshold: PositiveFloat = 0.01
    """KL(teacher ‖ student) in nats from which the student follows."""
    check_every: Positive = 5
    """Updates between two looks at the KL, at least."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ShareOfTime:
    """Follow the teacher whenever that keeps all following within a share of the learner's time."""

    kind: Literal["share"] = "share"
    share: Part = 0.1


Trigger = Annotated[EveryUpdates | AboveKL | ShareOfTime, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Distillation:
    """How a student that has weights of its own learns its teacher's answers."""

    trigger: Trigger = Field(default_factory=EveryUpdates)
    """When it follows; looked at whenever an actor asks for weights, or after each update of a learner that acts."""
    beside: bool = False
    """In a thread of its own, beside the learner's updates; what acts changes when it is through."""
    steps: Positive = 20
    """Steps of the student's optimizer (Adam) each time it follows."""
    batch_size: Positive = 128
    """Observations in a step."""
    learning_rate: PositiveFloat = 1e-3
    entropy_coefficient: NonNegative = 0.0
    """β of −β H(π_S) in an actor-critic student's loss."""
    states: Positive = 2048
    """Recent observations that it learns from."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Uncompressed:
    """The learner's own network acts."""

    kind: Literal["uncompressed"] = "uncompressed"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Whole:
    """The learner's own network, in another format."""

    kind: Literal["whole"] = "whole"
    format: Format = Field(default_factory=Cast)
    trigger: Trigger = Field(default_factory=lambda: EveryUpdates(updates=1))
    """When it takes the learner's weights. With format=fp32 and trigger.updates=n nothing is compressed, but what acts
    stands still for n updates: lag and nothing else."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Student:
    """A smaller network, distilled from the learner's."""

    kind: Literal["student"] = "student"
    width: PositiveFloat = 0.5
    """Factor on the channels and units of its torso; not relative to the teacher's."""
    torso: Literal["same", "mlp", "nips", "nature", "resnet"] = "same"
    format: Format = Field(default_factory=Float32)
    distillation: Distillation = Field(default_factory=Distillation)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Channels:
    """The learner's network without its weakest channels and units, distilled.

    The 2nd, 4th, 8th, … time that it follows, the network as it is by then is pruned too, and what answers more like it
    is kept.
    """

    kind: Literal["channels"] = "channels"
    keep: Part = 0.5
    """Part of each layer's channels or units that stays."""
    format: Format = Field(default_factory=Float32)
    distillation: Distillation = Field(default_factory=Distillation)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Magnitude:
    """The learner's network without its smallest weights (Han et al. 2015): fewer bytes, computed densely.

    The 2nd, 4th, 8th, … time that it follows, the network as it is by then is pruned too, and what answers more like it
    is kept; Han et al. prune a network that has learned, once.
    """

    kind: Literal["magnitude"] = "magnitude"
    sparsity: Part = 0.8
    """Part of each layer's weights that becomes 0."""
    rounds: Positive = 4
    """Times that weights are dropped and the rest distilled, until the sparsity is reached."""
    distillation: Distillation = Field(default_factory=Distillation)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Binary:
    """Signs for weights and inputs between the first layer and the heads (XNOR-Net), distilled."""

    kind: Literal["binary"] = "binary"
    distillation: Distillation = Field(default_factory=Distillation)


Candidate = Annotated[Whole | Student | Channels | Magnitude | Binary, Field(discriminator="kind")]


def _usual() -> tuple[Whole | Student | Channels | Magnitude | Binary, ...]:
    return (Whole(), Whole(format=Int8()), Student(), Student(format=Int8()), Channels(format=Int8()), Binary())


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Auto:
    """The candidate that is fastest where it acts, among those that answer like the learner's network."""

    kind: Literal["auto"] = "auto"
    kl_bound: PositiveFloat = 0.05
    """Greatest KL(teacher ‖ candidate) after distillation, in nats."""
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1)] = Field(default_factory=_usual)


Compression = Annotated[
    Uncompressed | Whole | Student | Channels | Magnitude | Binary | Auto, Field(discriminator="kind")
]
"""What acts in the place of the learner's network."""


def candidates_of(chosen: Candidate | Auto) -> tuple[Whole | Student | Channels | Magnitude | Binary, ...]:
    """Return what may come to act; of a choice by itself all candidates, and at last the learner's own network."""
    return (*chosen.candidates, Whole(format=Float32())) if isinstance(chosen, Auto) else (chosen,)


def trigger_of(candidate: Candidate) -> Trigger:
    """Return when what acts follows the learner's network."""
    return candidate.trigger if isinstance(candidate, Whole) else candidate.distillation.trigger
