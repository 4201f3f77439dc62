"""What helps a run in one of its stages."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from hpcddrl.config.coupling import BestMixing, CyclicBeta, Ensemble, SoftmaxMixing, UniformMixing
from hpcddrl.config.experience import Hindsight, NoHindsight
from hpcddrl.config.fields import STRICT, Fraction, NonNegative, Positive, PositiveFloat


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NoPretext:
    """A torso learns from rewards alone."""

    kind: Literal["none"] = "none"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Autoencoder:
    """Make the newest frame again."""

    kind: Literal["autoencoder"] = "autoencoder"
    weighting: Literal["even", "motion", "attention"] = "motion"
    """Of the pixels' errors: all alike, what moves as much as all that does not, or by a learned mask."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NextFrame:
    """Foretell the frame after the action taken."""

    kind: Literal["next_frame"] = "next_frame"
    weighting: Literal["even", "motion"] = "motion"
    """See `Autoencoder`."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Segmentation:
    """Tell figure from ground: what has just moved from what has not."""

    kind: Literal["segmentation"] = "segmentation"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ObjectProposals:
    """Find points on things, by making a later frame from what stands at them."""

    kind: Literal["object_proposals"] = "object_proposals"
    points: Positive = 4
    ahead: Positive = 4
    """Env steps from the earlier frame to the later; at most a rollout's (a replayed transition's: its own)."""
    weighting: Literal["even", "motion"] = "motion"
    """See `Autoencoder`."""


PretextTask = Annotated[Autoencoder | NextFrame | Segmentation | ObjectProposals, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WithStage:
    """When the early stage is over (and not before)."""

    kind: Literal["stage"] = "stage"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AtPlateau:
    """When the task's own loss no longer falls, or the early stage is over."""

    kind: Literal["plateau"] = "plateau"
    window_updates: Positive = 200
    """Updates of a learner over which each mean loss is taken."""
    patience: Positive = 5
    """Windows that may pass without a gain."""
    gain: Fraction = 0.02
    """Share of the spread of the mean losses so far that counts as one."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AtFrames:
    """After so many frames, or when the early stage is over."""

    kind: Literal["frames"] = "frames"
    frames: PositiveFloat = 1e6
    """Trained frames of a group; of the job, where there is a server."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Pretext:
    """The torso's convolutions learn to tell of the images they see, by a task that needs no reward."""

    kind: Literal["pretext"] = "pretext"
    task: PretextTask = Field(default_factory=Autoencoder)
    weight: PositiveFloat = 1.0
    """Of the task's loss beside that of the rewards."""
    observations: Positive = 64
    """Of each batch, drawn evenly, that the task sees; fewer where the batch has fewer."""
    learning_rate: PositiveFloat = 1e-3
    """Of the task's own weights, which stay on their rank (Adam)."""
    alone_frames: NonNegative = 0.0
    """Trained frames at the start in which the task's is the only loss; see `AtFrames`."""
    ends: Annotated[WithStage | AtPlateau | AtFrames, Field(discriminator="kind")] = Field(default_factory=WithStage)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NoReuse:
    """Rollouts are learned from once."""

    kind: Literal["none"] = "none"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RolloutReplay:
    """Rollouts, one environment's each, are kept and learned from again.

    They are corrected for their age by V-trace against the policy that acted, and for how they were drawn by
    importance weights.
    """

    kind: Literal["replay"] = "replay"
    held_by: Literal["learner", "server"] = "learner"
    """By each learner those that come to it (a worker's own, or all of its actors'), or by a server those of all of its
    workers, who then learn from each other's (of several servers, each holds those of its share of workers)."""
    capacity: Positive = 2_000
    """Rollouts of a single environment that each holder keeps."""
    replay_ratio: PositiveFloat = 1.0
    """Batches drawn for each fresh one; all have as many rollouts."""
    max_lag: Positive = 1_000
    """Updates after which a rollout is too stale and dropped."""
    priority: Literal["td_error", "reward", "negative_reward"] = "td_error"
    """What makes a rollout likely to be drawn: mean |v − V|, Σ|r|, or Σ max(−r, 0)."""
    alpha: Fraction = 0.6
    """P ∝ (priority + ε)^α."""
    epsilon: PositiveFloat = 1e-2
    beta: Fraction = 1.0
    """Exponent of the importance weights (N · P)^−β: with 1 a replayed batch is, on average, as one drawn evenly."""
    negative_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a batch that is drawn from the rollouts with negative rewards alone, by how much they lost."""
    hindsight: Annotated[NoHindsight | Hindsight, Field(discriminator="kind")] = Field(default_factory=NoHindsight)
    """Of environments with goals only: k in k + 1 of the episodes drawn get a goal that they achieved in the rollout.
    With ``future`` the steps after it are left out. V-trace weighs the actions as acted under another goal."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NoLate:
    """Learners share a server's weights to the end."""

    kind: Literal["none"] = "none"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LateEnsemble:
    """Learners that share a server's weights go on apart, and become an ensemble that is distilled into one model.

    Each is a group of one: with an optimizer of its own it makes some updates alone, hears the others' weights, and is
    drawn to the mixture of all policies for some more, and so on. One of them also teaches a model of its own to answer
    like the mixture; the server goes on from that, with its optimizer restarted.
    """

    kind: Literal["ensemble"] = "ensemble"
    apart_updates: Positive = 500
    """K: updates of a learner alone, before each exchange."""
    distilling_updates: Positive = 100
    """Updates of a learner after an exchange in which the mixture counts."""
    beta: PositiveFloat = 0.5
    """Weight of KL(mixture ‖ own policy) in the loss then."""
    mixing: Annotated[SoftmaxMixing | UniformMixing | BestMixing, Field(discriminator="kind")] = Field(
        default_factory=SoftmaxMixing
    )
    """The learners' shares c in the mixture."""
    min_divergence: NonNegative = 1e-3
    """Mean KL between two learners' policies, in nats, below which β is lowered in proportion: they stay different."""
    entropy_spread: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    """Apart, entropy coefficients go from 1 / this to this times the common one, from the first learner to the last."""
    topology: Literal["all_to_all", "ring", "random_pairs"] = "all_to_all"
    """Who hears whom, see `Ensemble`."""
    max_peers: Positive | None = None
    """Others that are asked about a batch, see `Ensemble`."""

    @property
    def ensemble(self) -> Ensemble:
        """Return the ensemble that they are, with their updates counted since they went apart."""
        every = self.apart_updates + self.distilling_updates
        return Ensemble(
            exchange_every=every,
            topology=self.topology,
            max_peers=self.max_peers,
            max_age=2 * every,
            min_divergence=self.min_divergence,
            beta=self.beta,
            schedule=CyclicBeta(updates=self.distilling_updates),
            mixing=self.mixing,
            evaluate_every=1,
        )

    def hands_over(self, updates: int) -> bool:
        """Say whether a learner tells the server after so many updates of its own: when it has distilled."""
        return updates % (self.apart_updates + self.distilling_updates) == self.distilling_updates

    def entropy_of(self, learner: int, learners: int) -> float:
        """Return the factor on the entropy coefficient of one of so many learners, evenly spread in its logarithm."""
        return float(self.entropy_spread ** (2 * learner / (learners - 1) - 1)) if learners > 1 else 1.0
