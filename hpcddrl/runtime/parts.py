"""Parts of a role that need no other rank: sizes of batches, and the algorithm."""

from __future__ import annotations

import torch

from hpcddrl.algorithms.actor_critic import ActorCritic
from hpcddrl.algorithms.algorithm import Algorithm
from hpcddrl.algorithms.q_learning import QLearning
from hpcddrl.config import ActorCritic as ActorCriticConfig
from hpcddrl.config import CentralActing, ClippedSurrogate, Config, Ensemble, Replay
from hpcddrl.networks.make import AnyNetwork, make_network
from hpcddrl.networks.policy_value import PolicyValueNetwork
from hpcddrl.networks.q_value import QNetwork
from hpcddrl.rl.policies import policy_for
from hpcddrl.types import EnvSpec, Tuning


def algorithm_for(
    config: Config, network: AnyNetwork, spec: EnvSpec, gradient: torch.Tensor, tuning: Tuning | None = None
) -> Algorithm:
    """Make the algorithm that learns a network, writing to the gradient vector [P]."""
    choices = config.algorithm
    if isinstance(choices, ActorCriticConfig):
        assert isinstance(network, PolicyValueNetwork)
        return ActorCritic(choices, network, gradient, policy_for(spec.action), tuning)
    target = make_network(config.network, choices, spec, seed=0)  # takes the network's weights before its first use
    assert isinstance(network, QNetwork)
    assert isinstance(target, QNetwork)
    target.precision = network.precision
    temperature = config.coupling.q_temperature if isinstance(config.coupling, Ensemble) else 1.0
    return QLearning(choices, network, target, gradient, temperature)


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


def samples_per_batch(config: Config, actors: int) -> int:
    """Return how many observations a learner's forward pass sees."""
    if isinstance(config.experience, Replay):
        return config.experience.batch_size
    assert isinstance(config.algorithm, ActorCriticConfig)
    samples = (config.algorithm.unroll_length + 1) * config.env.num_envs * most_rollouts(config, actors)
    surrogate = config.algorithm.surrogate
    return samples // (surrogate.minibatches if isinstance(surrogate, ClippedSurrogate) else 1) or 1
