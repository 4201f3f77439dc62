"""Every axis of a run as a frozen dataclass; a recipe is one value of `Config`.

An axis with several answers is a union of small classes, told apart by ``kind``, so that no field is "only used
when". On the command line ``--set coupling=ensemble --set coupling.beta=0.1`` replaces an answer and then one of
its fields. Validation is pydantic's; `override` and `load` turn its complaints into one line.
"""

from __future__ import annotations

import difflib
import json
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo, model_validator
from pydantic.dataclasses import dataclass

SCHEMA = 1
_UNFINISHED = "unfinished"  # the context of a validation to which more settings will be added

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
    """A registered Gymnasium id, a built-in (hpcddrl/Catch-v0, …) or module:Class."""
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


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Topology:
    """How many ranks take which role. Unset counts are fitted to the ranks given."""

    groups: Positive | None = None
    learners_per_group: Positive = 1
    actors_per_group: Count | None = None
    servers: Count = 0


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


Acting = Annotated[LocalActing | CentralActing, Field(discriminator="kind")]


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
class ParameterServer:
    """Gradients go to the server ranks, which hold the optimizer, and new weights come back, asynchronously."""

    kind: Literal["server"] = "server"


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


Coupling = Annotated[Uncoupled | Ensemble, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ActorCritic:
    """Policy gradient with a learned value (n-step returns, V-trace and their relatives)."""

    kind: Literal["actor_critic"] = "actor_critic"
    unroll_length: Positive = 20
    """Env steps in a rollout (T)."""
    rollouts_per_batch: Positive = 1
    """Rollouts that make a batch; without a queue always one from each source."""
    discount: Fraction = 0.99
    correction: Literal["none", "eps", "ratio", "vtrace"] = "vtrace"
    """What is done about data of older policies."""
    trace_decay: Fraction = 1.0
    """λ of the value targets: 1 for n-step returns, less for less variance."""
    rho_bar: PositiveFloat = 1.0
    c_bar: PositiveFloat = 1.0
    value_coefficient: NonNegative = 0.5
    entropy_coefficient: NonNegative = 0.01
    normalise_advantages: bool = False
    """Scale a batch's advantages to mean 0 and deviation 1."""


Algorithm = ActorCritic


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RMSProp:
    """RMSProp as torch has it (epsilon outside the root)."""

    kind: Literal["rmsprop"] = "rmsprop"
    decay: Fraction = 0.99
    epsilon: PositiveFloat = 1e-5
    momentum: Fraction = 0.0


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

    method: Annotated[RMSProp | Adam, Field(discriminator="kind")] = Field(default_factory=RMSProp)
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
    """auto: nips for images of 36 pixels and more, else mlp."""
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
        if info.context == _UNFINISHED:
            return self
        if (self.update.kind == "server") != (self.topology.servers > 0):
            raise ValueError(
                f"topology.servers = {self.topology.servers} with update.kind = {self.update.kind!r}: "
                "a server update needs server ranks and nothing else does; set both"
            )
        if self.topology.servers > 1:
            raise ValueError(f"topology.servers = {self.topology.servers}: one server is supported; set 1")
        if self.topology.learners_per_group > 1 and self.update.kind != "allreduce":
            raise ValueError(
                f"topology.learners_per_group = {self.topology.learners_per_group} with update.kind = "
                f"{self.update.kind!r}: learners of one group must reduce; set update=allreduce"
            )
        if self.topology.learners_per_group > 1 and self.topology.actors_per_group == 0:
            raise ValueError("topology.actors_per_group = 0 with several learners a group: give the group actors")
        if self.acting.kind == "central" and self.topology.learners_per_group > 1:
            raise ValueError("acting.kind = 'central' with several learners a group: use one learner a group")
        if self.optimization.decay == "linear" and self.budget.frames is None:
            raise ValueError("optimization.decay = 'linear' needs budget.frames: give --frames")
        if self.deterministic and isinstance(self.acting, CentralActing) and self.acting.minimum != "all":
            raise ValueError(
                f"deterministic = True with acting.minimum = {self.acting.minimum}: who is ready first is chance; "
                "set acting.minimum=all"
            )
        if self.deterministic and self.budget.frames is None:
            raise ValueError("deterministic = True needs budget.frames, the only exact place to stop: give --frames")
        return self


_adapter: TypeAdapter[Config] = TypeAdapter(Config)


def dump(config: Config) -> dict[str, Any]:
    """Return the configuration as JSON-able data; `load` is the inverse."""
    data: dict[str, Any] = _adapter.dump_python(config, mode="json")
    return data


def load(data: Any) -> Config:
    """Build a configuration from `dump`'s data.

    Raises:
        ValueError: in one line, with the field, its value and the rule.
    """
    return _validated(data, None)


def _validated(data: Any, context: str | None) -> Config:
    schema = data.get("schema") if isinstance(data, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise ValueError(f"schema = {schema}: newer than this program's {SCHEMA}; update hpcddrl")
    try:
        return _adapter.validate_python(data, context=context)
    except ValidationError as error:
        raise ValueError(_one_line(error)) from None


def override(config: Config, settings: list[str]) -> Config:
    """Return the configuration with each ``dotted.field=value`` applied, in order; the axes must agree at the end.

    Values are JSON where they parse as such, else text. Giving a name to an axis with several answers
    (``coupling=ensemble``) takes that answer with its defaults.

    Raises:
        ValueError: an unknown field (with the nearest valid ones) or a value that breaks a rule.
    """
    data = dump(config)
    for setting in settings:
        path, separator, text = setting.partition("=")
        if not separator:
            raise ValueError(f"--set {setting}: not of the form field=value, for example env.num_envs=8")
        _assign(data, path.strip(), text.strip())
        data = dump(_validated(data, _UNFINISHED))  # an axis that was named has its fields now
    return load(data)


def _assign(data: dict[str, Any], path: str, text: str) -> None:
    *parents, name = path.split(".")
    node = data
    for depth, parent in enumerate(parents):
        _check_field(node, parent, ".".join(parents[:depth]))
        node = node[parent]
        if not isinstance(node, dict):
            raise ValueError(f"--set {path}: {'.'.join(parents[: depth + 1])} is a single value and has no fields")
    if path != f"env.options.{name}":  # the environment's own arguments are its business
        _check_field(node, name, ".".join(parents))
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    has_kinds = isinstance(node.get(name), dict) and "kind" in node[name]
    node[name] = {"kind": value} if has_kinds and not isinstance(value, dict) else value


def _check_field(node: dict[str, Any], name: str, where: str) -> None:
    if name not in node:
        near = difflib.get_close_matches(name, node, n=3, cutoff=0.4) or sorted(node)
        prefix = f"{where}." if where else ""
        nearest = ", ".join(prefix + n for n in near) or "none"
        raise ValueError(f"--set {prefix}{name}: no such option; nearest: {nearest}")


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    context = first.get("ctx", {})
    if first["type"] == "value_error":
        return str(first["msg"]).removeprefix("Value error, ")
    kinds = {"local", "central", "allreduce", "server", "uncoupled", "ensemble", "rmsprop", "adam"}
    names = [str(part) for part in first["loc"] if part not in kinds]
    field = ".".join(n for n in names if not n.startswith(("constrained-", "literal["))) or "config"
    if first["type"] == "union_tag_invalid":
        return f"{field} = {context['tag']!r}: must be {context['expected_tags'].replace(', ', ' or ')}"
    value = "" if isinstance(first["input"], dict) else f" = {first['input']!r}"
    return f"{field}{value}: {first['msg'].replace('Input should be', 'must be')}"
