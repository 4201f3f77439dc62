"""What learners, actors, servers and replays send each other, and the tags of all messages."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from hpcddrl.comm.records import Layout
from hpcddrl.types import Array, EnvSpec, Rollout


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


class LearnedMessage(NamedTuple):
    """Learner to server: a rollout, see `types.Rollout`, and how wrong the value was about each environment's part."""

    last: Array
    version: Array
    number: Array
    frames: Array
    first: Array
    action: Array
    log_mu: Array
    value: Array
    action_value: Array
    reward: Array
    discount: Array
    errors: Array  # [B] f32


class DrawnMessage(NamedTuple):
    """Server to learner: n rollouts of one environment each, side by side, see `replay.rollouts.Drawn`."""

    last: Array
    version: Array  # [n] i64
    number: Array
    frames: Array
    first: Array
    action: Array
    log_mu: Array
    value: Array
    action_value: Array
    reward: Array
    discount: Array
    keys: Array  # [n] i64: by which the server knows them
    weight: Array  # [n] f32
    stale: Array  # [1] i64: rollouts that the server has dropped for their age so far
    kept: Array  # [1] i64: that it has


class ErrorsMessage(NamedTuple):
    """Learner to replay (or server): how wrong it was about the transitions (or rollouts) of a sample."""

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


def rollout_layout(spec: EnvSpec, unroll_length: int, num_envs: int) -> Layout[Rollout]:
    """Lay out a rollout: each of its K + T frames stands in it once."""
    return Layout(Rollout, _rollout_fields(spec, unroll_length, num_envs))


def _rollout_fields(spec: EnvSpec, unroll_length: int, num_envs: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    length, steps = spec.frame_stack + unroll_length, (unroll_length, num_envs)
    return {
        "version": ((1,), np.int64),
        "number": ((1,), np.int64),
        "frames": ((length, num_envs, *spec.frame_shape), spec.frame_dtype),
        "first": ((length, num_envs), np.bool_),
        "action": spec.action_field(*steps),
        "log_mu": (steps, np.float32),
        "value": (steps, np.float32),
        "action_value": (steps, np.float32),
        "reward": (steps, np.float32),
        "discount": (steps, np.float32),
    }


def learned_layout(spec: EnvSpec, unroll_length: int, num_envs: int) -> Layout[LearnedMessage]:
    """Lay out a rollout that was learned from."""
    errors = ((num_envs,), np.float32)
    return Layout(LearnedMessage, _rollout_fields(spec, unroll_length, num_envs) | {"errors": errors})


def drawn_layout(spec: EnvSpec, unroll_length: int, count: int) -> Layout[DrawnMessage]:
    """Lay out so many rollouts of one environment each."""
    one, many = (1,), (count,)
    own = {
        "version": (many, np.int64),
        "keys": (many, np.int64),
        "weight": (many, np.float32),
        "stale": (one, np.int64),
        "kept": (one, np.int64),
    }
    return Layout(DrawnMessage, _rollout_fields(spec, unroll_length, count) | own)


def rollout_of(record: LearnedMessage | DrawnMessage) -> Rollout:
    """Return the rollout in a message, sharing its memory."""
    return Rollout(**{name: getattr(record, name) for name in Rollout._fields})


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
            "action": spec.action_field(batch_size),
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
    return Layout(ActionsMessage, {"action": spec.action_field(num_envs)})
