"""Environments, the layout of a job, and where actions are chosen."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from hpcddrl.config.fields import STRICT, Count, Fraction, Positive, PositiveFloat


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Env:
    """The environment, and how each rank that steps it does so."""

    id: str = "ALE/Pong-v5"
    """A registered Gymnasium id, a built-in (hpcddrl/Catch-v0, …) or module:Class; several of one kind with commas
    between them: the ranks that step environments take them in turn."""
    num_envs: Positive = 16
    """Environments of one rank, stepped together."""
    frame_stack: Positive | None = None
    """Frames in an observation; unset: 4 for Atari, else 1."""
    frame_skip: Positive = 4
    """Emulator frames per env step (Atari only; elsewhere a step is a frame)."""
    noop_max: Count = 30
    """Most no-ops at an Atari game's start."""
    fire_reset: bool = True
    """Press FIRE after an Atari reset where the game needs it."""
    life_loss_terminates: bool = False
    """Learn from a lost life as from a game's end (the game and its logged return go on)."""
    sticky_actions: Fraction = 0.0
    """Chance that an Atari action is ignored and the one before repeated."""
    reward: Literal["auto", "raw", "clip", "normalise"] = "auto"
    """What is learned from: clip to [-1, 1] (auto: Atari), divide by the running deviation of discounted returns
    (auto: elsewhere), or the reward itself. Logged returns are always the environment's own."""
    isolated: bool = False
    """Give each environment a process of its own, in which it can hang or crash alone: it is replaced, and counted."""
    step_timeout_s: PositiveFloat = 300.0
    """Seconds of one step after which environments count as hung: isolated ones are replaced, others end their rank."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the environment itself."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the ids one by one."""
        return tuple(name.strip() for name in self.id.split(","))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Topology:
    """How many ranks take which role. Unset counts are fitted to the ranks given."""

    groups: Positive | None = None
    learners_per_group: Positive | None = 1
    actors_per_group: Count | None = None
    replays_per_group: Count = 0
    """Ranks that hold a share of the group's replay each; 0 with a replay: every learner holds its own."""
    servers: Count = 0
    """Ranks that hold a shard of the weights each, for all groups."""
    split: Literal["given", "auto"] = "given"
    """auto: learners and actors of a group are not as given above, but as is fastest by what learning and acting take
    where the job starts; if that is so, all learn from environments of their own, and average."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LocalActing:
    """Whoever steps an environment holds the weights and runs the policy."""

    kind: Literal["local"] = "local"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CentralActing:
    """Actors send frames; their learner answers with actions, in batches."""

    kind: Literal["central"] = "central"
    minimum: Positive | Literal["all"] = "all"
    """Actors whose frames are awaited before a batch is inferred: 1 = when ready, "all" = lockstep."""
    reuse_forward: bool = False
    """Learn from the forward passes that acted instead of repeating them (lockstep only: nothing is older)."""


Acting = Annotated[LocalActing | CentralActing, Field(discriminator="kind")]
