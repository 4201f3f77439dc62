"""Playing checkpoints without learning."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from hpcddrl.config import Config, QLearning
from hpcddrl.envs.frames import as_observation, stack
from hpcddrl.envs.make import Environments, games, make, probe
from hpcddrl.logs import checkpoint
from hpcddrl.logs.run_dir import RunDirectory
from hpcddrl.networks.make import make_network
from hpcddrl.rl.exploration import EpsilonGreedy
from hpcddrl.rl.policies import Behaviour, policy_for
from hpcddrl.roles.acting import LocalPolicy
from hpcddrl.types import Act, Array, EnvSpec, Step

SAMPLED_EPSILON = 0.05  # of action values, where actions are drawn (Mnih et al. 2015, evaluation)


class Score(NamedTuple):
    """What one checkpoint reached."""

    version: int
    frames: int
    returns: list[float]  # unclipped, in the order of the environments' seeds

    @property
    def mean(self) -> float:
        """Return the mean return."""
        return statistics.fmean(self.returns)

    @property
    def interval(self) -> tuple[float, float]:
        """Return the mean's 95 % interval by bootstrap (2,000 resamples, fixed seed)."""
        draws = np.random.default_rng(0).choice(self.returns, (2000, len(self.returns)))
        low, high = np.percentile(draws.mean(1), [2.5, 97.5])
        return float(low), float(high)


def evaluate_run(run: RunDirectory, episodes: int, greedy: bool, seed: int) -> dict[str, Score]:
    """Play ``episodes`` full games with the newest checkpoint of every owner; same arguments, same scores.

    One environment an episode, each played once, so that short games are not over-represented.

    Raises:
        ValueError: no run, no checkpoint in it, or none of a shard of its weights.
    """
    run.config()
    found = checkpoint.newest_of_all(run.checkpoints(""))
    scores = {owner: _play(run.config_of(owner), state, episodes, greedy, seed) for owner, state in found.items()}
    if not scores:
        raise ValueError(
            f"{run.path}: no checkpoints to evaluate; let the run reach one (logging.checkpoint_interval_s)"
        )
    return scores


def behaviour_of(config: Config, spec: EnvSpec) -> Behaviour:
    """Return how a network of this configuration acts when it is evaluated."""
    if isinstance(config.algorithm, QLearning):
        return EpsilonGreedy(lambda: torch.tensor([SAMPLED_EPSILON]))
    return policy_for(spec.action)


def environments_for(config: Config, count: int, seed: int) -> Environments:
    """Make so many environments of a run's first game."""
    seeds = [seed + i for i in range(count)]
    return make(games(config.env)[0], count, seeds, config.algorithm.discount, torch.get_num_threads())


def played(envs: Environments, act: Act, count: int) -> Iterator[tuple[Array, Step]]:
    """Act in so many environments for ever; give the observations [count, …] acted on and the step that followed."""
    depth = envs.spec.frame_stack
    frames = np.repeat(envs.reset()[None], depth, axis=0)
    first = np.zeros((depth, count), bool)
    first[-1] = True
    while True:
        observation = as_observation(stack(frames, first, depth))[0]
        step = envs.step(act(observation).action)
        yield observation, step
        frames, first = np.roll(frames, -1, axis=0), np.roll(first, -1, axis=0)
        frames[-1], first[-1] = step.frame, step.first


def returns_of(
    config: Config, network: nn.Module, behaviour: Behaviour, episodes: int, greedy: bool, seed: int
) -> list[float]:
    """Return what a network reaches in full games, one an environment, in the order of their seeds."""
    envs = environments_for(config, episodes, seed)
    returns = np.full(episodes, np.nan)
    for _, step in played(envs, LocalPolicy(network, behaviour, seed, greedy), episodes):
        returns = np.where(np.isnan(returns), step.episode_return, returns)
        if not np.isnan(returns).any():
            break
    envs.close()
    return [float(r) for r in returns]


def _play(config: Config, state: checkpoint.Checkpoint, episodes: int, greedy: bool, seed: int) -> Score:
    spec = probe(config.env)
    network = make_network(config.network, config.algorithm, spec, seed=0)
    network.load_state_dict(state.network)
    returns = returns_of(config, network, behaviour_of(config, spec), episodes, greedy, seed)
    return Score(state.version, state.frames, returns)
