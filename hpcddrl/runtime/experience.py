"""From a configuration to what a learner learns from: who steps environments, and what keeps transitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hpcddrl.comm.messages import rollout_layout
from hpcddrl.comm.placement import Role, dealt, ranks_of
from hpcddrl.config import ActorCritic as ActorCriticConfig
from hpcddrl.config import (
    CentralActing,
    ClippedSurrogate,
    Hindsight,
    Proportional,
    RankBased,
    Replay,
    RolloutReplay,
    Uniform,
)
from hpcddrl.envs.make import goal_outcome
from hpcddrl.replay import priorities
from hpcddrl.replay.hindsight import Hindsight as Relabelling
from hpcddrl.replay.replay import Replay as ReplayMemory
from hpcddrl.replay.rollout_hindsight import RolloutHindsight
from hpcddrl.replay.rollouts import RolloutMemory
from hpcddrl.roles import sources
from hpcddrl.roles.acting import LocalPolicy
from hpcddrl.roles.central import Central
from hpcddrl.roles.feeds import Feed, Inline, Queue, Taking
from hpcddrl.roles.memories import Memory, OwnMemory, ServersMemory
from hpcddrl.roles.publishing import Publishing
from hpcddrl.roles.reducing import Reduction
from hpcddrl.roles.reusing import Reusing
from hpcddrl.roles.rollouts import Batcher, Collector
from hpcddrl.runtime.memory import rollouts_bytes
from hpcddrl.runtime.parts import columns_per_batch, learns_from_what_acted, most_rollouts, rollouts_per_batch
from hpcddrl.runtime.rank import Rank, acting, begins_anew, environments
from hpcddrl.types import Answer

H = TypeVar("H", Relabelling, RolloutHindsight)


def source_of(rank: Rank, answer: Answer, publisher: Publishing, reduction: Reduction | None) -> sources.Source:
    """Make what gives a learner its batches; it acts by ``answer`` where it acts itself."""
    config, control, num_envs, device = rank.config, rank.control, rank.config.env.num_envs, rank.devices.learner
    if isinstance(config.experience, Replay) and rank.replays:
        size = config.experience.batch_size
        return sources.RemoteReplay(
            rank.comms.world, rank.replays, rank.spec, size, publisher.serve, control, rank.traffic, device
        )
    keeps = learns_from_what_acted(config)
    act = rank.remember("policy", acting(rank, answer, rank.actors[0] if rank.actors else rank.comms.world.rank, keeps))
    feed = _feed(rank, act, publisher, reduction)
    if isinstance(config.experience, Replay):
        memory = replay_of(rank, feed.sources, config.experience)
        made = sources.Replayed(feed, memory, beta_of(config.experience), config.experience, num_envs, control, device)
        return rank.remember("replay", made)
    assert isinstance(config.algorithm, ActorCriticConfig)
    rollouts = most_rollouts(config, len(rank.actors))
    batcher = Batcher(rank.spec, config.algorithm.unroll_length, num_envs, rollouts, device)
    kept = act.kept if keeps else None
    if isinstance(config.stages.middle, RolloutReplay):
        return _reusing(rank, feed, batcher, kept, config.stages.middle)
    fresh = sources.Fresh(feed, batcher, kept, control)
    if isinstance(config.algorithm.surrogate, ClippedSurrogate):
        surrogate = config.algorithm.surrogate
        seed = config.seed * 1000 + rank.comms.world.rank
        return rank.remember("passes", sources.Passes(fresh, surrogate.epochs, surrogate.minibatches, seed, control))
    return fresh


def _feed(rank: Rank, act: LocalPolicy, publisher: Publishing, reduction: Reduction | None) -> Feed:
    config, control, world, actors = rank.config, rank.control, rank.comms.world, rank.actors
    layout = rollout_layout(rank.spec, config.algorithm.unroll_length, config.env.num_envs)
    rollouts = rollouts_per_batch(config, len(actors))
    if not actors:
        meanwhile = () if reduction is None else (reduction.advance,)
        return Inline(collector_of(rank, act), layout, control, *meanwhile)
    match config.acting:
        case CentralActing(minimum=wanted):
            minimum = len(actors) if wanted == "all" else min(wanted, len(actors))
            return Central(
                world,
                actors,
                rank.spec,
                config.env.num_envs,
                layout,
                rollouts,
                most_rollouts(config, len(actors)) > rollouts,
                minimum,
                act,
                control,
                rank.traffic,
            )
        case _:
            replayed = isinstance(config.experience, Replay)
            if replayed:
                actors = dealt(actors, rank.place.number, len(rank.learners))
            taking: Taking = "in_turn" if config.deterministic else "arrived" if replayed else "wanted"
            return Queue(world, actors, layout, rollouts, taking, publisher, control)


def collector_of(rank: Rank, act: LocalPolicy) -> Collector:
    """Make this rank's environments, and what steps them."""
    envs = environments(rank)
    collector = Collector(envs, act, rank.control.timing, rank.control.counters)
    begins_anew(rank, envs, collector.restart)
    return collector


def _reusing(rank: Rank, feed: Feed, batcher: Batcher, kept: sources.Kept, config: RolloutReplay) -> sources.Source:
    unroll_length, count = rank.config.algorithm.unroll_length, columns_per_batch(rank.config, len(rank.actors))
    again = Batcher(rank.spec, unroll_length, count, 1, rank.devices.learner)
    memory = _servers_memory(rank, count, config) if config.held_by == "server" else _own_memory(rank, count, config)
    hindsight = _hindsight(rank, config, RolloutHindsight)
    made = rank.remember("rollouts", Reusing(feed, batcher, kept, memory, again, config, rank.control, hindsight))
    if config.held_by == "learner":
        tell_found(rank, memory.kept)
    return made


def _own_memory(rank: Rank, count: int, config: RolloutReplay) -> Memory:
    return OwnMemory(rollout_memory_of(rank, config), count, config.max_lag)


def _servers_memory(rank: Rank, count: int, config: RolloutReplay) -> Memory:
    world, servers, learners = rank.comms.world, ranks_of(rank.places, Role.SERVER), ranks_of(rank.places, Role.LEARNER)
    return ServersMemory(
        world,
        servers[learners.index(world.rank) % len(servers)],
        rank.spec,
        rank.config.algorithm.unroll_length,
        rank.config.env.num_envs,
        most_rollouts(rank.config, len(rank.actors)),
        count,
        config.max_lag,
        rank.config.seed * 1000 + world.rank,
        rank.control,
        rank.traffic,
    )


def rollout_memory_of(rank: Rank, config: RolloutReplay) -> RolloutMemory:
    """Make what keeps rollouts to be learned from again."""
    _, like = rollout_layout(rank.spec, rank.config.algorithm.unroll_length, 1).allocate()
    nbytes = rollouts_bytes(rank.config, rank.spec, rank.place.role)
    rank.lines.append(
        f"replay of {config.capacity:,} rollouts of one environment takes {nbytes / 1e9:.2f} GB on each "
        f"{rank.place.role}"
    )
    return RolloutMemory(config, like, rank.config.seed * 1000 + rank.comms.world.rank)


def tell_found(rank: Rank, kept: int) -> None:
    """Say how many rollouts a checkpoint brought."""
    if rank.saved is not None:
        rank.lines.append(f"replay of rollouts: {kept:,} are there")


def replay_of(rank: Rank, feeders: int, config: Replay) -> ReplayMemory:
    """Make a replay of what so many ranks step environments for."""
    algorithm = rank.config.algorithm
    assert not isinstance(algorithm, ActorCriticConfig)
    memory = ReplayMemory(
        rank.spec,
        feeders * rank.config.env.num_envs,
        config.capacity,
        algorithm.n_step,
        algorithm.discount,
        _priorities(config),
        rank.config.seed * 1000 + rank.comms.world.rank,
        _hindsight(rank, config, Relabelling),
    )
    rank.lines.append(
        f"replay of {config.capacity:,} transitions takes {memory.nbytes / 1e9:.2f} GB on each rank that holds one"
    )
    return memory


def beta_of(config: Replay) -> float:
    """Return the exponent of a replay's importance weights."""
    return 0.0 if isinstance(config.priorities, Uniform) else config.priorities.beta


def _hindsight(rank: Rank, config: Replay | RolloutReplay, made: type[H]) -> H | None:
    """Make what gives episodes goals that they have achieved, if anything does."""
    if not isinstance(config.hindsight, Hindsight):
        return None
    outcome = goal_outcome(rank.config.env, rank.config.algorithm.discount)
    return made(rank.spec, outcome, config.hindsight.kind, config.hindsight.relabels)


def _priorities(config: Replay) -> Callable[[int], priorities.Priorities]:
    match config.priorities:
        case Uniform():
            return priorities.Uniform
        case Proportional(alpha=alpha, epsilon=epsilon):
            return lambda slots: priorities.Proportional(slots, alpha, epsilon)
        case RankBased(alpha=alpha):
            return lambda slots: priorities.RankBased(slots, alpha)
