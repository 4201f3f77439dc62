"""When a run is early, in the middle or late, told from its returns or given by hand; and what helps it in each."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from hpcddrl.config.fields import STRICT, Count, Fraction, NonNegative, Positive, PositiveFloat
from hpcddrl.config.helpers import LateEnsemble, NoLate, NoPretext, NoReuse, Pretext, RolloutReplay

Share = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NoDetector:
    """Stages are not told: a run stays in the early one."""

    kind: Literal["none"] = "none"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DetectedStages:
    """Stages are told from the returns alone, whatever their range: see `rl.stages`."""

    kind: Literal["detected"] = "detected"
    random_episodes: Positive = 100
    """First episodes, which are taken for random play."""
    band: PositiveFloat = 0.5
    """Random play is left when the mean return is so many standard deviations of one random episode above its mean."""
    inner_band: NonNegative = 0.25
    """It is fallen back to within so many."""
    flat_gain: Share = 0.1
    """Late when the window's change is surely less than this share of all that was gained over random play."""
    changed_gain: Share = 0.2
    """No longer late when the mean return has surely changed by this share."""
    window_episodes: Positive = 200
    """Least episodes to judge a plateau by; it is the latter half of those since random play was left."""
    dwell_episodes: Count = 200
    """Least episodes of a stage."""
    dwell_share: Fraction = 0.2
    """Least episodes of a stage, as a share of those before it: it lasts for the greater number."""
    confirmations: Positive = 3
    """Judgements in a row, one after every tenth episode or more, that it takes to switch."""

    @model_validator(mode="after")
    def _agree(self) -> DetectedStages:
        _less(self, "inner_band", "band", "what falls back would leave again at once")
        _less(self, "flat_gain", "changed_gain", "a plateau's own noise would end it")
        for name, least, why in (
            ("random_episodes", 40, "a band is estimated from four blocks of ten at least"),
            ("window_episodes", 160, "a slope is tested on 16 blocks of ten at least"),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"stages.detector.{name} = {getattr(self, name)}: {why}; set {least} or more")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StagesByReturn:
    """Stages are told by the mean return of the last episodes, against two thresholds, given together.

    ``--set 'stages.detector={"kind": "by_return", "middle_above": -15, "late_above": 10}'``
    """

    kind: Literal["by_return"] = "by_return"
    middle_above: float
    """Mean return above which random play is left."""
    late_above: float
    """Mean return above which a run is late."""
    margin: NonNegative = 0.0
    """How far below a threshold the mean must fall to go back."""
    window_episodes: Positive = 100
    """Last episodes that the mean is of."""
    dwell_episodes: Count = 200
    """Least episodes of a stage."""
    dwell_share: Fraction = 0.2
    """Least episodes of a stage, as a share of those before it: it lasts for the greater number."""

    @model_validator(mode="after")
    def _agree(self) -> StagesByReturn:
        _less(self, "middle_above", "late_above", "the middle comes before the late stage")
        if self.margin >= self.late_above - self.middle_above:
            raise ValueError(
                f"stages.detector.margin = {self.margin}: not less than the {self.late_above - self.middle_above:g} "
                "between stages.detector.middle_above and stages.detector.late_above, so the late stage would reach "
                "into the early one; set less"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StagesByFrames:
    """Stages begin at given frames, and none comes back."""

    kind: Literal["by_frames"] = "by_frames"
    middle_from: PositiveFloat = 1e6
    """Environment frames at which the middle begins."""
    late_from: PositiveFloat = 10e6
    """Environment frames at which the late stage begins."""

    @model_validator(mode="after")
    def _agree(self) -> StagesByFrames:
        _less(self, "middle_from", "late_from", "the middle comes before the late stage")
        return self


Telling = DetectedStages | StagesByReturn | StagesByFrames
Detector = Annotated[NoDetector | Telling, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Stages:
    """Which stage a run is in, and what helps it there."""

    detector: Detector = Field(default_factory=NoDetector)
    """What tells the stage, on rank 0, from the returns of all ranks."""
    early: Annotated[NoPretext | Pretext, Field(discriminator="kind")] = Field(default_factory=NoPretext)
    """What a torso learns beside rewards in the early stage."""
    middle: Annotated[NoReuse | RolloutReplay, Field(discriminator="kind")] = Field(default_factory=NoReuse)
    """What else is learned from in the middle stage."""
    late: Annotated[NoLate | LateEnsemble, Field(discriminator="kind")] = Field(default_factory=NoLate)
    """What learners that share a server make of each other in the late stage."""


def _less(choice: Any, low: str, high: str, why: str) -> None:
    if getattr(choice, low) >= getattr(choice, high):
        raise ValueError(
            f"stages.detector.{low} = {getattr(choice, low)}: not less than stages.detector.{high} = "
            f"{getattr(choice, high)}, but {why}; set less of the first or more of the second"
        )
