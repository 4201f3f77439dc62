"""A whole run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, model_validator
from pydantic.dataclasses import dataclass

from hpcddrl.config.acting import Acting, Env, LocalActing, Topology
from hpcddrl.config.algorithm import ActorCritic, Algorithm, Network
from hpcddrl.config.compression import Compression, Uncompressed
from hpcddrl.config.coupling import Averaging, Coupling, Ensemble, Population, Uncoupled
from hpcddrl.config.device import Device
from hpcddrl.config.experience import Experience, Fresh
from hpcddrl.config.fields import STRICT, UNFINISHED, Count, Positive, PositiveFloat
from hpcddrl.config.helpers import LateEnsemble
from hpcddrl.config.rules import rules
from hpcddrl.config.stages import Stages
from hpcddrl.config.update import LocalUpdate, Optimization, Update

SCHEMA = 2


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Budget:
    """When a run ends: whichever comes first."""

    frames: PositiveFloat | None = 40e6
    """Environment frames, all ranks together."""
    seconds: PositiveFloat | None = None
    target_return: float | None = None
    """Mean return over the last 100 episodes at which to stop."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Logging:
    """What is written, and how often."""

    interval_s: PositiveFloat = 5.0
    """Seconds between two rows in the HDF5 files and two lines of progress."""
    checkpoint_interval_s: PositiveFloat = 600.0
    """Seconds between two checkpoints of the whole job; the end of a run is one more."""
    checkpoint_updates: Positive = 5000
    """Updates of each group (or server) between two, instead, in deterministic runs: the clock decides nothing there.
    Each of them begins all environments anew, so another number here gives another run."""
    keep_checkpoints: Positive = 3
    tensorboard: bool = False
    """Have scalars written to the run's folder tensorboard while it goes on, by a process beside rank 0."""
    trace: bool = False
    """Write what each rank did and sent, instant by instant, when the run ends: segments/<n>/trace.json.gz."""
    trace_events: Positive = 400_000
    """Spans and messages in a trace, of all ranks together: the newest of each."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Evaluation:
    """Full games that are played beside the training with what has been learned so far."""

    every_frames: PositiveFloat | None = None
    """Environment frames, all ranks together, from one evaluation to the next: of the start, and of the end too. Each
    group's (of a server: all workers') weights play in a process of its own beside the first learner, which takes the
    processor time that ranks leave. One that is not over when the next is due has that wait, in deterministic runs the
    learner. Unset: none."""
    episodes: Positive = 10
    """Full games in each evaluation, the same each time, from the seeds that ``evaluate`` plays."""
    sampled: bool = False
    """Draw actions from the policy instead of taking the likeliest."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Failures:
    """When a rank counts as failed, though it has not died."""

    silent_after_s: PositiveFloat = 60.0
    """Seconds without a word from a rank after which it is reported, and done without where that can be."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Config:
    """A whole run. `config.json` holds one of these and re-creates the run."""

    recipe: str
    env: Env = Field(default_factory=Env)
    topology: Topology = Field(default_factory=Topology)
    acting: Acting = Field(default_factory=LocalActing)
    experience: Experience = Field(default_factory=Fresh)
    update: Update = Field(default_factory=LocalUpdate)
    coupling: Coupling = Field(default_factory=Uncoupled)
    algorithm: Algorithm = Field(default_factory=ActorCritic)
    optimization: Optimization = Field(default_factory=Optimization)
    network: Network = Field(default_factory=Network)
    compression: Compression = Field(default_factory=Uncompressed)
    stages: Stages = Field(default_factory=Stages)
    device: Device = Field(default_factory=Device)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: each rank times fp32 and bf16 at start, takes the faster and logs it."""
    budget: Budget = Field(default_factory=Budget)
    logging: Logging = Field(default_factory=Logging)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    failures: Failures = Field(default_factory=Failures)
    group_settings: tuple[tuple[str, ...], ...] = ()
    """What groups differ in: settings, written as for --set, of the first group, the second, …; with more groups than
    entries, in turn. --set group_settings.1.network.width=0.5 makes two entries, for every second group the second."""
    seed: Count = 1
    deterministic: bool = False
    """Fixed order of messages and fixed lag: two runs give the same weights, bit for bit."""
    schema: int = SCHEMA

    @property
    def meeting(self) -> Ensemble | Averaging | Population | None:
        """Return by what groups exchange weights, if they ever do."""
        if isinstance(self.stages.late, LateEnsemble):
            return self.stages.late.ensemble
        return self.coupling if isinstance(self.coupling, Ensemble | Averaging | Population) else None

    @model_validator(mode="after")
    def _axes_agree(self, info: ValidationInfo) -> Config:
        if info.context != UNFINISHED:
            for broken, complaint in rules(self):
                if broken:
                    raise ValueError(complaint)
        return self
