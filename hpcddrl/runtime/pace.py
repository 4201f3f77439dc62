"""How fast one rank steps, acts and learns here, alone, on one thread; and what that says about a job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from hpcddrl.comm.messages import rollout_layout
from hpcddrl.compressors.make import make_stand_in
from hpcddrl.config import (
    ActorCritic,
    CentralActing,
    ClippedSurrogate,
    Config,
    Ensemble,
    QLearning,
    Replay,
    Teacher,
    Uncompressed,
)
from hpcddrl.config.compression import Auto
from hpcddrl.envs.make import games, make
from hpcddrl.logs.timing import Timing
from hpcddrl.networks.device import CPU, answering_on, batch_to
from hpcddrl.networks.flat import flatten
from hpcddrl.networks.held import held
from hpcddrl.networks.make import AnyNetwork, make_network
from hpcddrl.networks.precision import choose_precision, rate_of
from hpcddrl.rl.exploration import EpsilonGreedy
from hpcddrl.rl.policies import policy_for
from hpcddrl.roles.acting import LocalPolicy
from hpcddrl.roles.counters import counters_for
from hpcddrl.roles.rollouts import Batcher, Collector
from hpcddrl.runtime.parts import algorithm_for, answered_at_once, blueprint_of, rollouts_per_batch
from hpcddrl.runtime.plan import Job, learner_steps_per_s, samples_per_step
from hpcddrl.types import Act, Acted, Answer, Array, Batch, Discrete, EnvSpec, Rollout, Transitions, Weights

SECONDS = 0.5  # for each thing that is timed
MOST = 512  # observations in a timed pass; larger batches are no faster for each


class Pace(NamedTuple):
    """What one rank does on one thread of this machine."""

    steps: float  # env steps/s, with the forward passes that act where weights are at hand
    answers: float  # observations/s that a learner answers its actors with; ∞ where they act themselves
    samples: float  # samples/s learned from, forward passes of peers or a teacher included, without the optimizer


class Learner(NamedTuple):
    """What a pace asks of each learner."""

    samples: float  # per second
    answers: float  # observations per second to answer actors with
    busy: float  # seconds that this takes in a second, where a pace was measured


def measure(job: Job, seconds: float = SECONDS) -> Pace:
    """Time stepping, answering and learning as the roles do them, each for about ``seconds``."""
    return Pace(stepping(job, seconds), answering(job, seconds), learning(job, seconds))


def natural(job: Job, pace: Pace) -> float:
    """Return the env steps/s of a rank that steps environments: what it does, less what a learner's learning takes."""
    if job.actors:
        return pace.steps
    return 1 / (1 / pace.steps + samples_per_step(job.config) / pace.samples)


def learner(job: Job, steps_per_s: float, pace: Pace | None) -> Learner:
    """Return what is asked of each learner when each rank that steps environments does so many env steps/s."""
    steps = learner_steps_per_s(job, steps_per_s)
    samples = steps * samples_per_step(job.config)
    acting = job.config.acting
    answers = steps if job.actors and isinstance(acting, CentralActing) else 0.0
    if pace is None:
        return Learner(samples, answers, float("nan"))
    again = not (isinstance(acting, CentralActing) and acting.reuse_forward)  # else it is part of learning
    own_steps = 0.0 if job.actors else steps / pace.steps
    return Learner(samples, answers, samples / pace.samples + again * answers / pace.answers + own_steps)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: on busy cores that is faster for what is small, and here it is what is timed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def stepping(job: Job, seconds: float) -> float:
    """Return the env steps/s of a rank that steps environments, with the forward passes that act if it does."""
    config, spec, num_envs = job.config, job.spec, job.config.env.num_envs
    with one_thread():
        policy = _policy(job, num_envs)
        act = _same(policy(_observations(spec, num_envs))) if _central(job) else policy
        game = replace(games(config.env)[0], isolated=False)  # processes would take longer to start than to time
        envs = make(game, num_envs, list(range(num_envs)), config.algorithm.discount)
        collector = Collector(envs, act, Timing(), counters_for(spec.frame_skip, 1))
        _, rollout = rollout_layout(spec, config.algorithm.unroll_length, num_envs).allocate()
        steps = rate_of(lambda: collector.collect(rollout, 0), rollout.reward.size, seconds)
        envs.close()
        return steps


def answering(job: Job, seconds: float, device: torch.device = CPU) -> float:
    """Return the observations/s that a learner answers its actors with, if a network on this device does."""
    if not _central(job):
        return float("inf")
    answered = min(answered_at_once(job.config, job.actors), max(MOST, job.config.env.num_envs))
    with one_thread():
        policy, observations = _policy(job, answered, device), _observations(job.spec, answered)
        return rate_of(lambda: policy(observations), answered, seconds)


def _central(job: Job) -> bool:
    return isinstance(job.config.acting, CentralActing) and job.actors > 0


def _policy(job: Job, answered: int, device: torch.device = CPU) -> Act:
    """Return the policy that acts on so many observations, wherever that is done."""
    greedy = EpsilonGreedy(lambda: torch.tensor([0.1]))
    behaviour = greedy if isinstance(job.config.algorithm, QLearning) else policy_for(job.spec.action)
    return LocalPolicy(_what_acts(job, answered, device), behaviour, seed=0)


def _what_acts(job: Job, answered: int, device: torch.device) -> Answer:
    """Return what answers so many observations at a time: the network, or what stands in for it."""
    config, compression = job.config, job.config.compression
    if not isinstance(compression, Uncompressed | Auto):  # what that will choose is not known yet
        stand_in = make_stand_in(compression, blueprint_of(config, job.spec, seed=0))
        stand_in.tune(torch.from_numpy(_observations(job.spec, answered)))
        return stand_in
    network = make_network(config.network, config.algorithm, job.spec, seed=0).to(device)
    _choose_precision(network, job, answered, trains=False)
    return answering_on(network, device) if _central(job) else held(network, network.precision)


def _same(acted: Acted) -> Act:
    return lambda observation: acted


def _choose_precision(network: AnyNetwork, job: Job, batch: int, trains: bool) -> None:
    wanted = "fp32" if job.config.deterministic and job.config.precision == "auto" else job.config.precision
    network.precision, _ = choose_precision(network, job.spec, wanted, min(batch, 64), trains, seconds=0.05)


def learning(job: Job, seconds: float, device: torch.device = CPU) -> float:
    """Return the samples/s of gradients on a device, with what others have to say of them."""
    with one_thread():
        return _learning(job, seconds, device)


def _learning(job: Job, seconds: float, device: torch.device) -> float:
    config, spec = job.config, job.spec
    network = make_network(config.network, config.algorithm, spec, seed=0).to(device)
    flat = flatten(network)
    made, samples = _transitions(job) if isinstance(config.experience, Replay) else _batch(job)
    batch = batch_to(made, device)
    _choose_precision(network, job, samples, trains=True)
    algorithm, weights = algorithm_for(config, network, spec, flat.gradient), Weights(0, flat.values)
    each = samples / rate_of(lambda: algorithm.gradients(batch, None, weights), samples, seconds)
    others, share = _others(config, job)
    if others and isinstance(batch, Batch):
        rows = batch.observation[:, : max(1, round(config.algorithm.unroll_length * share))].flatten(0, 2)
        each += others * len(rows) / rate_of(lambda: _forward(network, rows), len(rows), seconds)
    return samples / each


def _forward(network: AnyNetwork, observation: torch.Tensor) -> None:
    with torch.no_grad():
        network(observation)


def _others(config: Config, job: Job) -> tuple[int, float]:
    """Return how many other networks see a batch, and which share of its steps."""
    match config.coupling:
        case Ensemble(evaluate_every=every):
            return job.asked, 1 / every
        case Teacher():
            return 1, 1.0
        case _:
            return 0, 0.0


def _observations(spec: EnvSpec, count: int) -> Array:
    rng = np.random.default_rng(0)
    if spec.frame_dtype == np.uint8:
        return rng.integers(0, 255, (count, *spec.observation_shape), np.uint8)
    return rng.standard_normal((count, *spec.observation_shape), np.float32)


def _batch(job: Job) -> tuple[Batch, int]:
    """Return a batch of the size that learners take (or part of it, if it is large), and its samples."""
    config, spec = job.config, job.spec
    assert isinstance(config.algorithm, ActorCritic)
    surrogate, length = config.algorithm.surrogate, config.algorithm.unroll_length
    parts = surrogate.minibatches if isinstance(surrogate, ClippedSurrogate) else 1
    envs = max(1, config.env.num_envs // parts)
    wanted = rollouts_per_batch(config, job.actors)
    rollouts = max(1, min(wanted, MOST // ((length + 1) * envs)))
    layout = rollout_layout(spec, length, envs)
    records = [_filled(layout.allocate()[1], spec) for _ in range(rollouts)]
    return Batcher(spec, length, envs, rollouts)(records), rollouts * length * envs


def _filled(rollout: Rollout, spec: EnvSpec) -> Rollout:
    rng = np.random.default_rng(0)
    if spec.frame_dtype == np.uint8:
        rollout.frames[:] = rng.integers(0, 255, rollout.frames.shape, np.uint8)
    else:
        rollout.frames[:] = rng.standard_normal(rollout.frames.shape, np.float32)
    rollout.discount[:] = 1
    return rollout


def _transitions(job: Job) -> tuple[Transitions, int]:
    """Return what a replay's draw looks like, and its samples."""
    config, spec = job.config, job.spec
    assert isinstance(config.experience, Replay)
    assert isinstance(spec.action, Discrete)
    size = config.experience.batch_size
    return Transitions(
        observation=torch.from_numpy(_observations(spec, size)),
        next_observation=torch.from_numpy(_observations(spec, size)),
        action=torch.zeros(size, dtype=torch.int64),
        reward=torch.zeros(size),
        discount=torch.ones(size),
        weight=torch.ones(size),
        versions=np.zeros(size, np.int64),
        steps=0,
    ), size
