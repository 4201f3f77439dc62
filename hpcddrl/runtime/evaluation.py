"""Playing checkpoints without learning."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from hpcddrl.comm.share import share
from hpcddrl.config import Config, QLearning
from hpcddrl.envs.environments import Environments
from hpcddrl.envs.frames import as_observation, stack
from hpcddrl.envs.make import games, is_atari, make, probe
from hpcddrl.logs import checkpoint
from hpcddrl.logs.run_dir import RunDirectory
from hpcddrl.networks.make import make_network
from hpcddrl.rl.exploration import EpsilonGreedy
from hpcddrl.rl.policies import Behaviour, policy_for
from hpcddrl.roles.acting import LocalPolicy
from hpcddrl.types import Act, Array, EnvSpec, Step

FIRST_SEED = 2_000_000_000  # of games that are played for a score: far from training's
BLOCK = 10  # games that are played side by side; with as many, scores don't depend on the number of ranks
SAMPLED_EPSILON = 0.05  # of action values, where actions are drawn (Mnih et al. 2015, evaluation)


class Protocol(NamedTuple):
    """How games are played for a score."""

    episodes: int
    greedy: bool  # take the likeliest action instead of drawing one
    seed: int  # of the first game; the others' follow it
    sticky_actions: float | None = None  # chance that an Atari action is ignored; None: as the run has it
    noop_max: int | None = None  # most no-ops at an Atari game's start; None: as the run has it

    def applied(self, config: Config) -> Config:
        """Return a run's configuration with its first game as this asks for it.

        Raises:
            ValueError: something of Atari's is asked of another environment.
        """
        env = games(config.env)[0]
        wanted = {"sticky_actions": self.sticky_actions, "noop_max": self.noop_max}
        asked: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
        if asked and not is_atari(env.id):
            option = f"--{next(iter(asked)).replace('_', '-')}"
            raise ValueError(f"{option}: {env.id} has none, only Atari games (ALE/…) do; leave it away")
        return replace(config, env=replace(env, **asked))


class Player(NamedTuple):
    """A network that is to be scored."""

    name: str
    version: int
    frames: int
    config: Config
    network: nn.Module
    behaviour: Behaviour


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


def players_of(run: RunDirectory) -> list[Player]:
    """Return the newest checkpoint of every owner of a run, as what plays.

    Raises:
        ValueError: no run, no checkpoint in it, or none of a shard of its weights.
    """
    spec = probe(run.config().env)
    players = []
    for owner, state in checkpoint.newest_of_all(run.checkpoints("")).items():
        config = run.config_of(owner)
        network = make_network(config.network, config.algorithm, spec, seed=0)
        network.load_state_dict(state.network)
        players.append(Player(owner, state.version, state.frames, config, network, behaviour_of(config, spec)))
    if not players:
        raise ValueError(
            f"{run.path}: no checkpoints to evaluate; let the run reach one (logging.checkpoint_interval_s)"
        )
    return players


def scores_of(players: Sequence[Player], protocol: Protocol) -> dict[str, Score] | None:
    """Play full games with each player; the same arguments give the same scores. On ranks other than 0, None.

    Collective over the world, where a launcher started one: games are dealt to ranks in blocks. Each environment plays
    one episode, so that short games are not over-represented.
    """
    blocks = [(player, first) for player in players for first in range(0, protocol.episodes, BLOCK)]
    parts = share(blocks, lambda block: _block(*block, protocol))
    if parts is None:
        return None
    returns: dict[str, list[float]] = {player.name: [] for player in players}
    for (player, _), part in zip(blocks, parts, strict=True):
        returns[player.name] += part
    return {player.name: Score(player.version, player.frames, returns[player.name]) for player in players}


def episode_of(player: Player, index: int, protocol: Protocol) -> Iterator[Array]:
    """Play a block of games again; give the observations [*observation_shape] of one of them, from first to last."""
    first = index // BLOCK * BLOCK
    count = min(BLOCK, protocol.episodes - first)
    config, seed = protocol.applied(player.config), protocol.seed + first
    envs = environments_for(config, count, seed)
    act = LocalPolicy(player.network, player.behaviour, seed, protocol.greedy)
    try:
        for observation, step in played(envs, act, count):
            yield observation[index - first].copy()
            if not np.isnan(step.episode_return[index - first]):
                return
    finally:
        envs.close()


def returns_in_blocks(player: Player, protocol: Protocol) -> list[float]:
    """Return the returns of all games, played here, as any number of ranks would find them."""
    return [value for first in range(0, protocol.episodes, BLOCK) for value in _block(player, first, protocol)]


def _block(player: Player, first: int, protocol: Protocol) -> list[float]:
    """Return the returns of some games that are played side by side."""
    count = min(BLOCK, protocol.episodes - first)
    config, seed = protocol.applied(player.config), protocol.seed + first
    return returns_of(config, player.network, player.behaviour, count, protocol.greedy, seed)


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
