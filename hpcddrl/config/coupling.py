"""What others tell a learner."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from hpcddrl.config.fields import STRICT, Fraction, NonNegative, Positive, PositiveFloat


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Uncoupled:
    """Groups tell each other nothing."""

    kind: Literal["uncoupled"] = "uncoupled"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SoftmaxMixing:
    """c = softmax(V / T): who expects more of a state counts for more there (the proposal, with T = 1)."""

    kind: Literal["softmax"] = "softmax"
    temperature: PositiveFloat = 1.0
    """T."""
    normalise: bool = False
    """Take V by each group's own running mean and deviation, so that no critic wins by its scale."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class UniformMixing:
    """c is the same for all groups."""

    kind: Literal["uniform"] = "uniform"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BestMixing:
    """c is 1 for the group that expects most of a state, else 0."""

    kind: Literal["best"] = "best"
    normalise: bool = False
    """See `SoftmaxMixing`."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BestGroupMixing:
    """c is 1 on all states for the group whose return is greatest: the best teaches the others.

    After PIEKD (Hong et al. 2020). Returns are compared as they are learned from, so rewards must not be scaled by each
    rank on its own.
    """

    kind: Literal["best_group"] = "best_group"
    window_frames: PositiveFloat = 1e5
    """Trained frames of a group over which its mean return is taken."""


Mixing = Annotated[SoftmaxMixing | UniformMixing | BestMixing | BestGroupMixing, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ConstantBeta:
    """β as it stands, from the first exchange on."""

    kind: Literal["constant"] = "constant"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WarmUpBeta:
    """β is 0 at first, then climbs linearly to its full value."""

    kind: Literal["warmup"] = "warmup"
    start_frames: NonNegative = 0.0
    """Trained frames of a group before which β is 0."""
    climb_frames: PositiveFloat = 1e6
    """Frames from there to the full β."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PlateauBeta:
    """β is 0 until the group's mean return has stopped to rise, then climbs linearly to its full value."""

    kind: Literal["plateau"] = "plateau"
    window_frames: PositiveFloat = 1e5
    """Trained frames of a group over which each mean return is taken."""
    patience: Positive = 5
    """Windows that may pass without a gain."""
    gain: Fraction = 0.05
    """Share of the spread of the mean returns so far that counts as one."""
    climb_frames: PositiveFloat = 1e6
    """Frames from the plateau to the full β."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CyclicBeta:
    """β counts for some updates after each exchange, then groups learn alone until the next (EC-DNN, Sun et al. 2017).

    So the ensemble relabels a part of each group's data, which trains on the mixed loss for a while.
    """

    kind: Literal["cyclic"] = "cyclic"
    updates: Positive = 5
    """After an exchange, for which β counts."""


BetaSchedule = Annotated[ConstantBeta | WarmUpBeta | PlateauBeta | CyclicBeta, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Ensemble:
    """Groups exchange weights and each learns from the mixture of all their policies too."""

    kind: Literal["ensemble"] = "ensemble"
    exchange_every: Positive = 20
    """Updates between two exchanges."""
    topology: Literal["all_to_all", "ring", "random_pairs"] = "all_to_all"
    """Who hears whom: everyone everyone, the next the one before, or each round's pairs, drawn from seed and round."""
    max_peers: Positive | None = None
    """Peers that are asked about a batch, others each update (unset: all that are known)."""
    max_age: Positive | None = None
    """Own updates after which a peer's weights are dropped if no newer ones have come (unset: kept)."""
    min_divergence: NonNegative = 0.0
    """Mean KL between two groups' policies, in nats, below which β is lowered in proportion (0: never)."""
    beta: NonNegative = 0.05
    """Weight of KL(ensemble ‖ own policy) in the loss."""
    schedule: BetaSchedule = Field(default_factory=ConstantBeta)
    """When β counts."""
    mixing: Mixing = Field(default_factory=SoftmaxMixing)
    """The groups' shares c in the ensemble's policy."""
    evaluate_every: Positive = 4
    """The peers' networks see every n-th time step (of a replay's sample: transition) of a batch, in turn (1: all)."""
    q_temperature: PositiveFloat = 0.05
    """τ of softmax(Q / τ), the policy that a group with action values stands for."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Averaging:
    """Groups exchange weights and each goes on from the mean of all (model averaging), the ensemble's rival.

    They start from the same weights, since the mean of networks that never met is none.
    """

    kind: Literal["averaging"] = "averaging"
    exchange_every: Positive = 20
    """Updates between two exchanges."""
    topology: Literal["all_to_all", "ring", "random_pairs"] = "all_to_all"
    """See `Ensemble`."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Population:
    """Groups that lag behind take over a better one's weights, learning rate and entropy coefficient, varied a little.

    Population-based training as IMPALA had it (Espeholt et al. 2018, appendix F). A resumed run begins with the
    configuration's hyper-parameters again.
    """

    kind: Literal["population"] = "population"
    exchange_every: Positive = 100
    """Updates between two exchanges."""
    topology: Literal["all_to_all", "ring", "random_pairs"] = "all_to_all"
    """See `Ensemble`."""
    window_frames: PositiveFloat = 1e5
    """Trained frames of a group over which its mean return is taken."""
    burn_in_frames: NonNegative = 1e6
    """Trained frames of a group before which it takes nothing over."""
    margin: NonNegative = 0.05
    """Share of its own return by which another's must be better."""
    step: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 1.2
    """By which a hyper-parameter is multiplied or divided."""
    chance: Fraction = 0.33
    """That it is."""


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


Coupling = Annotated[Uncoupled | Ensemble | Averaging | Population | Teacher, Field(discriminator="kind")]
