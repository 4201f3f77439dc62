"""The records that travel between ranks and roles, with shapes and dtypes.

T is the unroll length, B the environments of one rank, K the frames in an observation, P the number of
parameters. Arrays are time-major. A *frame* here is what an environment shows once; an *observation* is the
last K of them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # processes that only step environments do without
    import torch

Array = NDArray[Any]


class Discrete(NamedTuple):
    """A choice among ``num_actions``; the policy is categorical."""

    num_actions: int


class Continuous(NamedTuple):
    """A vector in the box [low, high]; the policy is a diagonal Gaussian over the box scaled to [-1, 1]."""

    low: Array  # [dim] f32
    high: Array  # [dim] f32

    @property
    def dim(self) -> int:
        """Return the length of an action vector."""
        return len(self.low)


ActionSpec = Discrete | Continuous


class GoalLayout(NamedTuple):
    """Where the parts of a goal environment's frames stand along their first axis: observation, desired, achieved."""

    observation: int  # entries of a vector, or planes of an image
    goal: int  # of each of the two goals

    @property
    def desired(self) -> slice:
        """Return where the goal to be reached stands."""
        return slice(self.observation, self.observation + self.goal)

    @property
    def achieved(self) -> slice:
        """Return where the goal stands that is reached by what the frame shows."""
        return slice(self.observation + self.goal, self.observation + 2 * self.goal)


class EnvSpec(NamedTuple):
    """What a network and a message must know about an environment."""

    frame_shape: tuple[int, ...]  # [D] | [H, W] | [C, H, W]
    frame_dtype: np.dtype[Any]  # uint8 for images, float32 otherwise
    frame_stack: int  # K
    action: ActionSpec
    frame_skip: int  # emulator frames in one env step
    goal: GoalLayout | None = None  # of environments that have one

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Return the shape of one observation: the K frames side by side, [K·D] or [K·C, H, W]."""
        if len(self.frame_shape) == 1:
            return (self.frame_stack * self.frame_shape[0],)
        channels = 1 if len(self.frame_shape) == 2 else self.frame_shape[0]
        return (self.frame_stack * channels, *self.frame_shape[-2:])

    @property
    def is_image(self) -> bool:
        """Say whether observations are images (of uint8 pixels or of numbers)."""
        return len(self.frame_shape) > 1

    def action_field(self, *leading: int) -> tuple[tuple[int, ...], Any]:
        """Return shape and dtype of actions with these leading dimensions."""
        if isinstance(self.action, Discrete):
            return leading, np.int64
        return (*leading, self.action.dim), np.float32


class Step(NamedTuple):
    """What one call of a vector environment gives, after B actions.

    A finished environment resets itself during its *next* step: the final observation stands in the stream,
    and the step after it (``first``) has no meaning as a transition.
    """

    frame: Array  # [B, *frame_shape]
    first: Array  # [B] bool: this frame opens an episode, so the step that led here is no transition
    reward: Array  # [B] f32, as learned from (clipped or scaled)
    discount: Array  # [B] f32: 0 where the episode (or a life, if asked for) terminated, else 1
    episode_return: Array  # [B] f32 unclipped, NaN where no episode ended
    episode_length: Array  # [B] i64 env steps, 0 where no episode ended
    restarts: int = 0  # environments that were replaced in this step: their episodes are lost, and begin anew


class Rollout(NamedTuple):
    """T steps of B environments as they travel: each frame once. Observation t is frames[t : t + K]."""

    version: Array  # [1] i64: of the weights that acted
    number: Array  # [1] i64: how many rollouts its actor wrote before
    last: Array  # [1] u8: nothing more comes from this actor
    frames: Array  # [K + T, B, *frame_shape]
    first: Array  # [K + T, B] bool: the frame opens an episode
    action: Array  # [T, B] i64 | [T, B, dim] f32
    log_mu: Array  # [T, B] f32: log-probability of the action when it was taken
    value: Array  # [T, B] f32: V of the observation (max Q where the network has Q), as the weights that acted saw it
    action_value: Array  # [T, B] f32: Q of the action likewise (V where the network has no Q)
    reward: Array  # [T, B] f32
    discount: Array  # [T, B] f32: 0 or 1


class Output(NamedTuple):
    """A network's answer to N observations, in float32."""

    policy: torch.Tensor  # [N, size] the policy's parameters | [N, actions] Q
    value: torch.Tensor  # [N]; max Q where the network has Q


class Batch(NamedTuple):
    """R rollouts of one size, as the algorithms learn from them.

    Observations stay rollout by rollout (they are large); everything else stands side by side, N = R·B.
    """

    observation: torch.Tensor  # [R, T + 1, B, *observation_shape]
    action: torch.Tensor  # [T, N] i64 | [T, N, dim] f32
    log_mu: torch.Tensor  # [T, N] f32
    reward: torch.Tensor  # [T, N] f32
    discount: torch.Tensor  # [T, N] f32: 0 or 1
    valid: torch.Tensor  # [T, N] f32: 0 where the step only reset the environment
    versions: Array  # [N] i64: of the weights that acted; the same in all environments of a rollout that comes fresh
    steps: int  # env steps, resets too, that come to the learner with this batch for the first time
    output: Output | None = None  # [T, N, ...] each: of the forward passes that acted, to be learned from as they are
    weight: torch.Tensor | None = None  # [N] f32: importance weights, of rollouts that were drawn from a replay

    @property
    def samples(self) -> int:
        """Return how many transitions are learned from."""
        return int(self.valid.sum())


class Transitions(NamedTuple):
    """N transitions of up to n steps each, drawn from a replay."""

    observation: torch.Tensor  # [N, *observation_shape]
    next_observation: torch.Tensor  # [N, *observation_shape]: n steps later, or the episode's last
    action: torch.Tensor  # [N] i64
    reward: torch.Tensor  # [N] f32: Σ γᵏ r over the steps
    discount: torch.Tensor  # [N] f32: of the value of the next observation; 0 if the episode terminated before it
    weight: torch.Tensor  # [N] f32: importance weights, at most 1
    versions: Array  # [N] i64: of the weights that acted
    steps: int  # see `Batch`

    @property
    def samples(self) -> int:
        """Return how many transitions are learned from."""
        return len(self.action)


class Stage(enum.IntEnum):
    """A span of a run, by what helps it."""

    EARLY = 0  # no better than random play
    MIDDLE = 1  # between the two
    LATE = 2  # on a plateau


class Weights(NamedTuple):
    """A network's parameters after ``version`` updates; ``last`` says that no more will come."""

    version: int
    flat: torch.Tensor  # [P] f32
    frames: float = 0.0  # environment frames behind them, of all who share them
    last: bool = False
    stage: Stage = Stage.EARLY  # that the run is in
    since: int = 0  # the version that the stage began with

    def entering(self, stage: Stage | None, version: int) -> Weights:
        """Return them in a stage that begins with this version, or as they are if it is no other one."""
        return self if stage is None or stage is self.stage else self._replace(stage=stage, since=version)


class Opinion(NamedTuple):
    """What a group thinks of some of a batch's observations, [S, N] of rollouts or [S] of transitions; a constant."""

    policy: torch.Tensor  # [..., actions] logits | [..., 2·dim] mean and log standard deviation
    value: torch.Tensor  # [...]


class Mixture(NamedTuple):
    """What a learner is drawn to on the rows that others saw; a constant."""

    policy: torch.Tensor  # [..., size] the parameters of one policy
    own_weight: float = 0.0  # the mean share of the learner's own policy in it
    value: torch.Tensor | None = None  # [...] Σ cᵢ Vᵢ of an ensemble


class Targets(NamedTuple):
    """What others say of some rows of a batch, and how much it counts."""

    rows: slice  # of a batch's T time steps, or N transitions
    beta: float  # weight of KL(mixture ‖ own policy) in the loss
    mix: Callable[[Opinion], Mixture]  # from the learner's own opinion of those rows


class Acted(NamedTuple):
    """A policy's answer to B observations."""

    action: Array  # [B] i64 | [B, dim] f32
    log_mu: Array  # [B] f32
    value: Array  # [B] f32, see `Rollout`
    action_value: Array  # [B] f32


class Learned(NamedTuple):
    """What an algorithm has to tell of a batch beside its gradient."""

    metrics: dict[str, float]
    errors: Array | None = None  # [N] f32 of transitions δ, of rollouts mean |v − V|: for a replay's priorities


GoalOutcome = Callable[[Array, Array], tuple[Array, Array]]
"""Achieved and desired goals [N, ...] of N steps, as frames show them -> their rewards [N] f32, as learned from, and
whether reaching the goal ends the episode [N] bool."""


@dataclass
class Tuning:
    """Factors on a group's hyper-parameters, which others may change while it learns."""

    learning_rate: float = 1.0
    entropy: float = 1.0


State = dict[str, Any]
"""What a part of a rank remembers over a restart: tensors, arrays and plain data, in dictionaries, lists and tuples."""


@runtime_checkable
class Stateful(Protocol):
    """A part that a checkpoint of the whole job remembers."""

    def state(self) -> State:
        """Return what the part needs to go on as if nothing had happened; it may share memory with the part."""

    def restore(self, state: State) -> None:
        """Go on from what `state` returned, in this process or in another one."""


Answer = Callable[["torch.Tensor"], Output]  # observations [N, *observation_shape] -> what a network says of them
Act = Callable[[Array], Acted]  # observations [B, *observation_shape] -> actions
Metrics = dict[str, float]


class RunError(RuntimeError):
    """Something a user can act on went wrong while running: the job ends with this one line, without a traceback."""


def side_by_side(x: torch.Tensor, rollouts: int, envs: int) -> torch.Tensor:
    """Arrange a network's answers [R·S·B, ...] to a batch's observations [R, S, B] time-major: [S, R·B, ...]."""
    x = x.reshape(rollouts, -1, envs, *x.shape[1:])
    return x.movedim(0, 1).reshape(x.shape[1], rollouts * envs, *x.shape[3:])
