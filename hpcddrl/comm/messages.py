"""Records as they travel: named arrays at fixed places in one contiguous buffer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from hpcddrl.types import Array, Discrete, EnvSpec, Rollout

ALIGNMENT = 64  # bytes; a cache line, and enough for any vector instruction


class Tag(IntEnum):
    """One tag a kind of record."""

    ROLLOUT = 1
    PULL = 2
    WEIGHTS = 3
    GRADIENT = 4
    FRAMES = 5
    ACTIONS = 6
    EXCHANGE = 7
    STATUS = 8
    ORDER = 9
    SAMPLE = 10
    ERRORS = 11
    ROLL = 12
    REPORT = 13
    ANSWER = 14


class Record(Protocol):
    """A NamedTuple of arrays; ``last`` [1] u8 says that its sender will send no more."""

    @property
    def last(self) -> Array:
        """Say that nothing more comes from this sender."""


R = TypeVar("R", bound=Record)


class Layout(Generic[R]):
    """Where each field of a record type stands in its buffer.

    Args:
        record: a NamedTuple class with a field ``last``.
        fields: shape and dtype of each other field.
    """

    def __init__(self, record: type[R], fields: Mapping[str, tuple[tuple[int, ...], Any]]) -> None:
        self._record = record
        self._fields = {"last": ((1,), np.uint8), **fields}
        assert set(self._fields) == set(record._fields), record  # type: ignore[attr-defined]
        self._offsets, offset = {}, 0
        for name, (shape, dtype) in self._fields.items():
            self._offsets[name] = offset
            nbytes = math.prod(shape) * np.dtype(dtype).itemsize
            offset += -(-nbytes // ALIGNMENT) * ALIGNMENT
        self.nbytes = offset

    def up_to(self, name: str, nbytes: int) -> int:
        """Return how much of the buffer reaches to the end of a field's first so many bytes."""
        return self._offsets[name] + nbytes

    def allocate(self) -> tuple[Array, R]:
        """Return a zeroed buffer [nbytes] u8 and the record of views into it."""
        buffer = np.zeros(self.nbytes, np.uint8)
        views = {}
        for name, (shape, dtype) in self._fields.items():
            start, nbytes = self._offsets[name], math.prod(shape) * np.dtype(dtype).itemsize
            views[name] = buffer[start : start + nbytes].view(dtype).reshape(shape)
        return buffer, self._record(**views)


class Pull(NamedTuple):
    """Actor to learner: send me weights."""

    last: Array
    wanted: Array  # [1] i64: exactly this version in deterministic runs; else any newer than it


class ExchangeMessage(NamedTuple):
    """Leader to leader."""

    last: Array
    version: Array  # [1] i64
    architecture: Array  # [1] i64: which networks these are the weights of, see networks.flat
    score: Array  # [1] f64: the group's mean return, as it is learned from; NaN if it is not known
    tuning: Array  # [2] f64: factors on its learning rate and entropy coefficient
    flat: Array  # [P] f32


class PublishedMessage(NamedTuple):
    """Learner to actor: what acts, in whatever form it is published."""

    last: Array
    version: Array  # [1] i64: of the weights that it is, or stands for
    stage: Array  # [1] i64: that the run is in, see `types.Stage`
    since: Array  # [1] i64: the version it began with
    length: Array  # [1] i64: bytes of ``packed`` that count
    packed: Array  # [nbytes] u8


class WeightsMessage(NamedTuple):
    """Server to learner."""

    last: Array
    version: Array  # [1] i64
    frames: Array  # [1] f64: environment frames behind them
    refused: Array  # [1] u8: a server did not apply the gradient that these answer
    stage: Array  # [1] i64: that the run is in, see `types.Stage`; the first shard's counts
    since: Array  # [1] i64: the version it began with
    flat: Array  # [P] f32; from a server, its part


class GradientMessage(NamedTuple):
    """Learner to server."""

    last: Array
    version: Array  # [1] i64: of the weights it is a gradient of
    frames: Array  # [1] f64: environment frames that are new with its batch
    samples: Array  # [1] i64: transitions that it is the mean over
    loss: Array  # [1] f32
    refused: Array  # [1] u8: it is not to be applied: the shard that was asked first did not, or there is none
    succeeds: Array  # [1] u8: ``flat`` holds weights to go on from, and no gradient
    flat: Array  # [P] f32: this shard's part


class SampleMessage(NamedTuple):
    """Replay to learner: N transitions, see `types.Transitions`."""

    last: Array
    keys: Array  # [N] i64: by which the replay knows them
    steps: Array  # [1] i64: env steps that came since the sample before
    observation: Array
    next_observation: Array
    action: Array
    reward: Array
    discount: Array
    weight: Array
    version: Array


class ErrorsMessage(NamedTuple):
    """Learner to replay: how wrong it was about the transitions of a sample."""

    last: Array
    learned: Array  # [1] u8: they were learned from (a server may have refused the gradient)
    keys: Array  # [N] i64
    errors: Array  # [N] f32


class FramesMessage(NamedTuple):
    """Actor to a learner that acts for it: what its environments did, see `types.Step`."""

    last: Array
    frame: Array
    first: Array
    reward: Array
    discount: Array


class ActionsMessage(NamedTuple):
    """Learner to an actor that it acts for."""

    last: Array
    action: Array


class Status(NamedTuple):
    """Any rank to rank 0: where it stands. Counters are since the run's start."""

    last: Array
    signal: Array  # [1] i64: the signal that asked this rank to stop, or 0
    counters: Array  # [len(COUNTERS)] f64, see roles.status
    ended: Array  # [1] i64: episodes that ended since the status before, as far as their returns are here
    returns: Array  # [most] f64: their returns, oldest first


class Order(NamedTuple):
    """Rank 0 to learners and servers: what the run is to do next; with ``last`` to end."""

    last: Array
    stage: Array  # [1] i64: to enter, see `types.Stage`; or -1
    leg: Array  # [1] i64: to end for a checkpoint, see `roles.legs`; or -1


class RollCallMessage(NamedTuple):
    """Rank 0 to all others: who is silent."""

    last: Array
    silent: Array  # [ranks] u8
    final: Array  # [1] u8: the run ends, and nobody waits for these any more


class ReportMessage(NamedTuple):
    """All others to rank 0, when they have come to a point where all meet."""

    last: Array
    data: Array  # [nbytes] u8


class AnswerMessage(NamedTuple):
    """Rank 0 to all others there, when all have reported."""

    last: Array
    data: Array  # [nbytes] u8


def action_field(spec: EnvSpec, *leading: int) -> tuple[tuple[int, ...], Any]:
    """Return shape and dtype of actions with these leading dimensions."""
    if isinstance(spec.action, Discrete):
        return leading, np.int64
    return (*leading, spec.action.dim), np.float32


def rollout_layout(spec: EnvSpec, unroll_length: int, num_envs: int) -> Layout[Rollout]:
    """Lay out a rollout: each of its K + T frames stands in it once."""
    length, steps = spec.frame_stack + unroll_length, (unroll_length, num_envs)
    return Layout(
        Rollout,
        {
            "version": ((1,), np.int64),
            "number": ((1,), np.int64),
            "frames": ((length, num_envs, *spec.frame_shape), spec.frame_dtype),
            "first": ((length, num_envs), np.bool_),
            "action": action_field(spec, *steps),
            "log_mu": (steps, np.float32),
            "value": (steps, np.float32),
            "action_value": (steps, np.float32),
            "reward": (steps, np.float32),
            "discount": (steps, np.float32),
        },
    )


def pull_layout() -> Layout[Pull]:
    """Lay out a request for weights."""
    return Layout(Pull, {"wanted": ((1,), np.int64)})


def published_layout(nbytes: int) -> Layout[PublishedMessage]:
    """Lay out what is published, so many bytes at most."""
    one = (1,)
    return Layout(
        PublishedMessage,
        {
            "version": (one, np.int64),
            "stage": (one, np.int64),
            "since": (one, np.int64),
            "length": (one, np.int64),
            "packed": ((nbytes,), np.uint8),
        },
    )


def weights_layout(parameters: int) -> Layout[WeightsMessage]:
    """Lay out the weights of a network."""
    one = (1,)
    return Layout(
        WeightsMessage,
        {
            "version": (one, np.int64),
            "frames": (one, np.float64),
            "refused": (one, np.uint8),
            "stage": (one, np.int64),
            "since": (one, np.int64),
            "flat": ((parameters,), np.float32),
        },
    )


def exchange_layout(parameters: int) -> Layout[ExchangeMessage]:
    """Lay out the weights of a group's network."""
    one = (1,)
    return Layout(
        ExchangeMessage,
        {
            "version": (one, np.int64),
            "architecture": (one, np.int64),
            "score": (one, np.float64),
            "tuning": ((2,), np.float64),
            "flat": ((parameters,), np.float32),
        },
    )


def gradient_layout(parameters: int) -> Layout[GradientMessage]:
    """Lay out a gradient."""
    one = (1,)
    return Layout(
        GradientMessage,
        {
            "version": (one, np.int64),
            "frames": (one, np.float64),
            "samples": (one, np.int64),
            "loss": (one, np.float32),
            "refused": (one, np.uint8),
            "succeeds": (one, np.uint8),
            "flat": ((parameters,), np.float32),
        },
    )


def sample_layout(spec: EnvSpec, batch_size: int) -> Layout[SampleMessage]:
    """Lay out a sample of a replay."""
    many = (batch_size,)
    observation = ((batch_size, *spec.observation_shape), spec.frame_dtype)
    return Layout(
        SampleMessage,
        {
            "keys": (many, np.int64),
            "steps": ((1,), np.int64),
            "observation": observation,
            "next_observation": observation,
            "action": action_field(spec, batch_size),
            "reward": (many, np.float32),
            "discount": (many, np.float32),
            "weight": (many, np.float32),
            "version": (many, np.int64),
        },
    )


def errors_layout(batch_size: int) -> Layout[ErrorsMessage]:
    """Lay out what a learner found out about a sample."""
    many = (batch_size,)
    return Layout(
        ErrorsMessage,
        {"learned": ((1,), np.uint8), "keys": (many, np.int64), "errors": (many, np.float32)},
    )


def frames_layout(spec: EnvSpec, num_envs: int) -> Layout[FramesMessage]:
    """Lay out one step of an actor's environments."""
    return Layout(
        FramesMessage,
        {
            "frame": ((num_envs, *spec.frame_shape), spec.frame_dtype),
            "first": ((num_envs,), np.bool_),
            "reward": ((num_envs,), np.float32),
            "discount": ((num_envs,), np.float32),
        },
    )


def actions_layout(spec: EnvSpec, num_envs: int) -> Layout[ActionsMessage]:
    """Lay out the actions for one step."""
    return Layout(ActionsMessage, {"action": action_field(spec, num_envs)})


def status_layout(counters: int, returns: int) -> Layout[Status]:
    """Lay out a status with its counters and so many returns at most."""
    one = (1,)
    return Layout(
        Status,
        {
            "signal": (one, np.int64),
            "counters": ((counters,), np.float64),
            "ended": (one, np.int64),
            "returns": ((returns,), np.float64),
        },
    )


def order_layout() -> Layout[Order]:
    """Lay out an order."""
    return Layout(Order, {"stage": ((1,), np.int64), "leg": ((1,), np.int64)})


def roll_layout(ranks: int) -> Layout[RollCallMessage]:
    """Lay out who of so many ranks is silent."""
    return Layout(RollCallMessage, {"silent": ((ranks,), np.uint8), "final": ((1,), np.uint8)})


def report_layout(nbytes: int) -> Layout[ReportMessage]:
    """Lay out what a rank reports."""
    return Layout(ReportMessage, {"data": ((nbytes,), np.uint8)})


def answer_layout(nbytes: int) -> Layout[AnswerMessage]:
    """Lay out what rank 0 answers."""
    return Layout(AnswerMessage, {"data": ((nbytes,), np.uint8)})
