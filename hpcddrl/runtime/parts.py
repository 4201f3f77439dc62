"""Parts of a role that need no other rank: sizes of batches, and the algorithm."""

from __future__ import annotations

import torch

from hpcddrl.algorithms.actor_critic import ActorCritic
from hpcddrl.algorithms.algorithm import Algorithm
from hpcddrl.algorithms.q_learning import QLearning
from hpcddrl.compressors.compressed import Blueprint
from hpcddrl.compressors.distillation import JUDGED
from hpcddrl.compressors.make import make_stand_in
from hpcddrl.config import ActorCritic as ActorCriticConfig
from hpcddrl.config import CentralActing, ClippedSurrogate, Config, Ensemble, Replay, Uncompressed
from hpcddrl.config.compression import Auto, Candidate, FixedPoint, Int8, Whole, candidates_of
from hpcddrl.networks.make import AnyNetwork, make_network
from hpcddrl.networks.q_value import QNetwork
from hpcddrl.networks.shares import in_shares
from hpcddrl.rl.policies import policy_for
from hpcddrl.types import EnvSpec, Tuning


def algorithm_for(
    config: Config,
    network: AnyNetwork,
    spec: EnvSpec,
    gradient: torch.Tensor,
    tuning: Tuning | None = None,
    shares: int = 1,
) -> Algorithm:
    """Make the algorithm that learns a network, a batch in so many shares, writing to the gradient vector [P]."""
    choices = config.algorithm
    if isinstance(choices, ActorCriticConfig):
        return ActorCritic(choices, in_shares(network, shares), gradient, policy_for(spec.action), tuning)
    target = make_network(config.network, choices, spec, seed=0)  # takes the network's weights before its first use
    assert isinstance(target, QNetwork)
    target.to(gradient.device).precision = network.precision
    temperature = config.coupling.q_temperature if isinstance(config.coupling, Ensemble) else 1.0
    return QLearning(choices, in_shares(network, shares), target, gradient, temperature)


def rollouts_per_batch(config: Config, actors: int) -> int:
    """Return how many rollouts a learner waits for: one inline, one of each actor in lockstep, else as configured."""
    if actors == 0 or not isinstance(config.algorithm, ActorCriticConfig):
        return 1
    if isinstance(config.acting, CentralActing) and config.acting.minimum == "all":
        return actors
    wanted = config.algorithm.rollouts_per_batch
    return 1 if wanted == "ready" else wanted


def most_rollouts(config: Config, actors: int) -> int:
    """Return how many rollouts a batch can have."""
    ready = isinstance(config.algorithm, ActorCriticConfig) and config.algorithm.rollouts_per_batch == "ready"
    return max(1, actors) if ready else rollouts_per_batch(config, actors)


def columns_per_batch(config: Config, actors: int) -> int:
    """Return how many rollouts of one environment a batch of fresh ones can have."""
    return config.env.num_envs * most_rollouts(config, actors)


def samples_per_batch(config: Config, actors: int) -> int:
    """Return how many observations a learner's forward pass sees."""
    if isinstance(config.experience, Replay):
        return config.experience.batch_size
    assert isinstance(config.algorithm, ActorCriticConfig)
    samples = (config.algorithm.unroll_length + 1) * config.env.num_envs * most_rollouts(config, actors)
    surrogate = config.algorithm.surrogate
    return samples // (surrogate.minibatches if isinstance(surrogate, ClippedSurrogate) else 1) or 1


def answered_at_once(config: Config, actors: int) -> int:
    """Return how many observations are answered at once where actions are chosen; more may be where many wait."""
    if not isinstance(config.acting, CentralActing) or actors == 0:
        return config.env.num_envs
    together = actors if config.acting.minimum == "all" else min(config.acting.minimum, actors)
    return config.env.num_envs * together


def learns_from_what_acted(config: Config) -> bool:
    """Say whether the passes that act are those that are learned from, so that the learned network itself acts."""
    return isinstance(config.acting, CentralActing) and config.acting.reuse_forward


def blueprint_of(config: Config, spec: EnvSpec, seed: int) -> Blueprint:
    """Return what a compressor must know of the network that is learned."""
    return Blueprint(config.network, config.algorithm, spec, seed, config.precision)


def published_bytes(config: Config, spec: EnvSpec, parameters: int) -> int:
    """Return the most bytes that a publication of weights to actors takes."""
    if isinstance(config.compression, Uncompressed):
        return 4 * parameters
    return len(make_stand_in(config.compression, blueprint_of(config, spec, seed=0)).pack())


def states_of(chosen: Candidate | Auto) -> int:
    """Return how many recent observations a compressor wants."""
    wanted = [JUDGED]
    for candidate in candidates_of(chosen):
        if not isinstance(candidate, Whole):
            wanted.append(candidate.distillation.states)
        form = getattr(candidate, "format", None)
        if isinstance(form, Int8 | FixedPoint):
            wanted.append(form.states)
    return max(wanted)
