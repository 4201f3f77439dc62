"""Every axis of a run as a frozen dataclass; a recipe is one value of `Config`.

An axis with several answers is a union of small classes, told apart by ``kind``, so that no field is "only used
when". Validation is pydantic's; `settings` turns its complaints into one line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationInfo, model_validator
from pydantic.dataclasses import dataclass

SCHEMA = 2
UNFINISHED = "unfinished"  # the context of a validation to which more settings will be added

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]

_STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
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
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the environment itself."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the ids one by one."""
        return tuple(name.strip() for name in self.id.split(","))


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Topology:
    """How many ranks take which role. Unset counts are fitted to the ranks given."""

    groups: Positive | None = None
    learners_per_group: Positive | None = 1
    actors_per_group: Count | None = None
    replays_per_group: Count = 0
    """Ranks that hold a share of the group's replay each; 0 with a replay: every learner holds its own."""
    servers: Count = 0
    """Ranks that hold a shard of the weights each, for all groups."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class LocalActing:
    """Whoever steps an environment holds the weights and runs the policy."""

    kind: Literal["local"] = "local"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CentralActing:
    """Actors send frames; their learner answers with actions, in batches."""

    kind: Literal["central"] = "central"
    minimum: Positive | Literal["all"] = "all"
    """Actors whose frames are awaited before a batch is inferred: 1 = when ready, "all" = lockstep."""
    reuse_forward: bool = False
    """Learn from the forward passes that acted instead of repeating them (lockstep only: nothing is older)."""


Acting = Annotated[LocalActing | CentralActing, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Fresh:
    """Rollouts are learned from as they come, once: the learner's own, or its actors' from a bounded queue."""

    kind: Literal["fresh"] = "fresh"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Uniform:
    """Every transition is as likely as any other."""

    kind: Literal["uniform"] = "uniform"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Proportional:
    """Transitions are drawn in proportion to (|δ| + ε)^α (Schaul et al. 2015)."""

    kind: Literal["proportional"] = "proportional"
    alpha: Fraction = 0.6
    beta: Fraction = 0.4
    """Exponent of the importance weights (N · P)^−β."""
    epsilon: PositiveFloat = 1e-3


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RankBased:
    """Transitions are drawn in proportion to (1 / rank of |δ|)^α (Schaul et al. 2015)."""

    kind: Literal["rank"] = "rank"
    alpha: Fraction = 0.7
    beta: Fraction = 0.5
    """Exponent of the importance weights (N · P)^−β."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
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
    """Most transitions learned from for each one gathered since then."""
    priorities: Annotated[Uniform | Proportional | RankBased, Field(discriminator="kind")] = Field(
        default_factory=Uniform
    )


Experience = Annotated[Fresh | Replay, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class LocalUpdate:
    """Each learner steps its own optimizer."""

    kind: Literal["local"] = "local"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class AllReduce:
    """Learners of a group average their gradients, then take the same step; one learner has nothing to reduce."""

    kind: Literal["allreduce"] = "allreduce"
    backend: Literal["horovod", "mpi"] = "horovod"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class NoCompensation:
    """A stale gradient is applied as it is."""

    kind: Literal["none"] = "none"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ConstantCompensation:
    """DC-ASGD-c (Zheng et al. 2017): g + λ g ⊙ g ⊙ (w − w_backup), with one backup of the weights a learner."""

    kind: Literal["constant"] = "constant"
    strength: NonNegative = 0.04
    """λ."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class AdaptiveCompensation:
    """DC-ASGD-a (Zheng et al. 2017): λ is divided by the root of the running mean square of the gradient."""

    kind: Literal["adaptive"] = "adaptive"
    strength: NonNegative = 2.0
    """λ₀."""
    decay: Fraction = 0.95
    epsilon: PositiveFloat = 1e-7


@dataclass(frozen=True, kw_only=True, config=_STRICT)
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


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Uncoupled:
    """Groups tell each other nothing."""

    kind: Literal["uncoupled"] = "uncoupled"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
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


@dataclass(frozen=True, kw_only=True, config=_STRICT)
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


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PolicyGradient:
    """The plain policy gradient: −ρ A log π."""

    kind: Literal["policy_gradient"] = "policy_gradient"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ClippedSurrogate:
    """−min(r A, clip(r, 1 ± ε) A), r = π / μ, in several passes over each batch (Schulman et al. 2017)."""

    kind: Literal["clipped"] = "clipped"
    clip: PositiveFloat = 0.2
    epochs: Positive = 4
    minibatches: Positive = 4
    """Parts that a batch's environments are dealt to in each pass."""


Surrogate = Annotated[PolicyGradient | ClippedSurrogate, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
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


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class LinearEpsilon:
    """ε falls linearly over the job's frames, the same for all."""

    kind: Literal["linear"] = "linear"
    start: Fraction = 1.0
    end: Fraction = 0.05
    frames: PositiveFloat = 1e6


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SpreadEpsilon:
    """Each of the job's N environments keeps its own: εᵢ = base^(1 + exponent · i / (N − 1)) (Horgan et al. 2018)."""

    kind: Literal["spread"] = "spread"
    base: Fraction = 0.4
    exponent: NonNegative = 7.0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
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


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RMSProp:
    """RMSProp as torch has it (epsilon outside the root)."""

    kind: Literal["rmsprop"] = "rmsprop"
    decay: Fraction = 0.99
    epsilon: PositiveFloat = 1e-5
    momentum: Fraction = 0.0
    centered: bool = False
    """Divide by the deviation instead of the root mean square."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class AdaGrad:
    """AdaGrad (Duchi et al. 2011): the rate falls with the sum of all squared gradients so far."""

    kind: Literal["adagrad"] = "adagrad"
    epsilon: PositiveFloat = 1e-10


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Adam:
    """Adam."""

    kind: Literal["adam"] = "adam"
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    epsilon: PositiveFloat = 1e-5


@dataclass(frozen=True, kw_only=True, config=_STRICT)
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
    max_gradient_norm: PositiveFloat | None = 0.5


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Network:
    """The network: a torso, then a policy head and a value head."""

    torso: Literal["auto", "mlp", "nips", "nature", "resnet"] = "auto"
    """auto: nips for images of 64 pixels and more, else mlp."""
    width: PositiveFloat = 1.0
    """Factor on the channels and units of every layer."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Budget:
    """When a run ends: whichever comes first."""

    frames: PositiveFloat | None = 40e6
    """Environment frames, all ranks together."""
    seconds: PositiveFloat | None = None
    target_return: float | None = None
    """Mean return over the last 100 episodes at which to stop."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Logging:
    """What is written, and how often."""

    interval_s: PositiveFloat = 5.0
    """Seconds between two rows in the HDF5 files and two lines of progress."""
    checkpoint_interval_s: PositiveFloat = 600.0
    keep_checkpoints: Positive = 3


@dataclass(frozen=True, kw_only=True, config=_STRICT)
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
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: each rank times fp32 and bf16 at start, takes the faster and logs it."""
    budget: Budget = Field(default_factory=Budget)
    logging: Logging = Field(default_factory=Logging)
    seed: Count = 1
    deterministic: bool = False
    """Fixed order of messages and fixed lag: two runs give the same weights, bit for bit."""
    schema: int = SCHEMA

    @model_validator(mode="after")
    def _axes_agree(self, info: ValidationInfo) -> Config:
        if info.context != UNFINISHED:
            for wrong, complaint in self._rules():
                if wrong:
                    raise ValueError(complaint)
        return self

    def _rules(self) -> Iterator[tuple[bool, str]]:
        """Yield what no run can be, each with its complaint: fields, values, the rule and the way out."""
        topology, acting, update, algorithm = self.topology, self.acting, self.update, self.algorithm
        replay = self.experience if isinstance(self.experience, Replay) else None
        actor_critic = algorithm if isinstance(algorithm, ActorCritic) else None
        clipped = actor_critic is not None and isinstance(actor_critic.surrogate, ClippedSurrogate)
        lockstep = isinstance(acting, CentralActing) and acting.minimum == "all"
        learners = topology.learners_per_group or 2  # unset: as many as there are ranks for
        yield (
            (update.kind == "server") != (topology.servers > 0),
            f"topology.servers = {topology.servers} with update.kind = {update.kind!r}: "
            "a server update needs server ranks and nothing else does; set both",
        )
        yield (
            learners > 1 and update.kind != "allreduce",
            f"topology.learners_per_group = {learners} with update.kind = {update.kind!r}: learners of one group "
            "must reduce; set update=allreduce",
        )
        yield (
            learners > 1 and acting.kind == "central",
            f"acting.kind = 'central' with topology.learners_per_group = {learners}: use one learner a group",
        )
        yield (
            isinstance(acting, CentralActing) and acting.reuse_forward and not (lockstep and actor_critic),
            "acting.reuse_forward = True: the weights that act must be those that learn, from all actors at once; "
            "needs acting.minimum=all and algorithm=actor_critic",
        )
        yield (
            isinstance(acting, CentralActing) and acting.reuse_forward and clipped,
            "acting.reuse_forward = True with algorithm.surrogate.kind = 'clipped': one forward pass cannot serve "
            "several updates; leave one away",
        )
        yield (
            (replay is None) != (actor_critic is not None),
            f"algorithm.kind = {algorithm.kind!r} with experience.kind = {self.experience.kind!r}: actor_critic "
            "learns from fresh rollouts, q_learning from a replay; set experience=fresh or experience=replay",
        )
        yield (
            topology.replays_per_group > 0 and replay is None,
            f"topology.replays_per_group = {topology.replays_per_group} with experience.kind = "
            f"{self.experience.kind!r}: replay ranks need experience=replay",
        )
        yield (
            topology.replays_per_group > 0 and acting.kind == "central",
            f"topology.replays_per_group = {topology.replays_per_group} with acting.kind = 'central': a learner that "
            "acts has the rollouts already; set topology.replays_per_group=0",
        )
        yield (
            topology.replays_per_group > 0 and topology.actors_per_group == 0,
            f"topology.replays_per_group = {topology.replays_per_group} with topology.actors_per_group = 0: only "
            "actors fill replay ranks; give the group actors",
        )
        if replay is not None:
            yield (
                replay.learning_starts > replay.capacity,
                f"experience.learning_starts = {replay.learning_starts}: more than the experience.capacity = "
                f"{replay.capacity} can ever hold; set less",
            )
            yield (
                replay.batch_size > replay.learning_starts,
                f"experience.batch_size = {replay.batch_size}: more than the experience.learning_starts = "
                f"{replay.learning_starts} transitions that are there at first; set more of these, or a smaller batch",
            )
        server = update if isinstance(update, ParameterServer) else ParameterServer()
        yield (
            server.mode == "synchronous"
            and (
                server.compensation.kind != "none"
                or server.max_staleness is not None
                or server.max_loss_deviations is not None
            ),
            "update.mode = 'synchronous': no gradient is stale, and none is applied or refused alone; leave "
            "update.compensation, update.max_staleness and update.max_loss_deviations unset",
        )
        yield (
            isinstance(algorithm, QLearning) and algorithm.exploration.kind == "spread" and acting.kind == "central",
            "algorithm.exploration.kind = 'spread' with acting.kind = 'central': whose turn it is varies, so no "
            "environment can keep an ε of its own; set algorithm.exploration=linear or acting=local",
        )
        yield (
            self.coupling.kind == "ensemble" and actor_critic is None,
            "coupling.kind = 'ensemble' with algorithm.kind = 'q_learning': only policies are mixed; set "
            "coupling=uncoupled",
        )
        yield (
            self.coupling.kind == "teacher" and actor_critic is None,
            "coupling.kind = 'teacher' with algorithm.kind = 'q_learning': only a policy can be taught; set "
            "coupling=uncoupled or algorithm=actor_critic",
        )
        yield (
            actor_critic is not None
            and actor_critic.rollouts_per_batch == "ready"
            and (acting.kind != "central" or lockstep),
            "algorithm.rollouts_per_batch = 'ready': only a learner that acts when some actors are ready (acting="
            "central with acting.minimum a number) knows how many rollouts there are; give a number",
        )
        wanted, actors = actor_critic and actor_critic.rollouts_per_batch, topology.actors_per_group
        yield (
            isinstance(wanted, int) and acting.kind == "central" and not lockstep and 0 < (actors or wanted) < wanted,
            f"algorithm.rollouts_per_batch = {wanted}: more than the {actors} actors of a group can deliver, since "
            "each waits until its rollout has been learned from; set less, or algorithm.rollouts_per_batch=ready",
        )
        yield (
            self.optimization.decay == "linear" and self.budget.frames is None,
            "optimization.decay = 'linear' needs budget.frames: give --frames",
        )
        yield (
            self.deterministic and isinstance(acting, CentralActing) and not lockstep,
            f"deterministic = True with acting.minimum = {getattr(acting, 'minimum', None)}: who is ready first is "
            "chance; set acting.minimum=all",
        )
        yield (
            self.deterministic and topology.replays_per_group > 0,
            f"deterministic = True with topology.replays_per_group = {topology.replays_per_group}: what a replay rank "
            "holds when it is asked is chance; set topology.replays_per_group=0",
        )
        yield (
            self.deterministic and replay is not None and acting.kind == "local" and topology.actors_per_group != 0,
            "deterministic = True with experience.kind = 'replay': how far actors are ahead of a learner that draws "
            "from a replay is chance; set topology.actors_per_group=0",
        )
        yield (
            self.deterministic and self.budget.frames is None,
            "deterministic = True needs budget.frames, the only exact place to stop: give --frames",
        )
