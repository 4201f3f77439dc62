"""From a configuration to this rank's role: the one place where choices are resolved."""

from __future__ import annotations

from collections.abc import Callable

import torch

from hpcddrl.comm.allreduce import Averaging, Total, averaging
from hpcddrl.comm.failure import tolerant
from hpcddrl.comm.messages import rollout_layout
from hpcddrl.comm.placement import Role, dealt, ranks_of, slices
from hpcddrl.config import ActorCritic as ActorCriticConfig
from hpcddrl.config import (
    AdaptiveCompensation,
    AllReduce,
    CentralActing,
    ClippedSurrogate,
    ConstantCompensation,
    Hindsight,
    NoCompensation,
    ParameterServer,
    Proportional,
    RankBased,
    Replay,
    RolloutReplay,
    Uniform,
)
from hpcddrl.envs.make import goal_outcome
from hpcddrl.networks.device import CPU
from hpcddrl.networks.flat import flatten
from hpcddrl.replay import priorities
from hpcddrl.replay.hindsight import Hindsight as Relabelling
from hpcddrl.replay.replay import Replay as ReplayMemory
from hpcddrl.replay.rollout_hindsight import RolloutHindsight
from hpcddrl.replay.rollouts import RolloutMemory
from hpcddrl.roles import sources
from hpcddrl.roles.acting import LocalPolicy
from hpcddrl.roles.actor import Actor, RemoteActor
from hpcddrl.roles.admission import Admission
from hpcddrl.roles.applying import (
    AdaptiveStrength,
    Applying,
    Averaged,
    DelayCompensation,
    OneByOne,
    Order,
    as_they_come,
    in_turn,
    together,
)
from hpcddrl.roles.feeds import Central, Feed, Inline, Queue, Taking
from hpcddrl.roles.learner import Learner
from hpcddrl.roles.memories import Keeping, KeepsNothing, KeepsRollouts, Memory, OwnMemory, ServersMemory
from hpcddrl.roles.publishing import AtHand, Inbox, Publisher, Publishing
from hpcddrl.roles.reducing import AllReduceUpdate, AtOnce, Pipelined, Reduction, ThroughHost
from hpcddrl.roles.replay import ReplayRank
from hpcddrl.roles.reusing import Reusing
from hpcddrl.roles.rollouts import Batcher, Collector
from hpcddrl.roles.server import Server
from hpcddrl.roles.shards import ServerUpdate
from hpcddrl.roles.updates import LocalUpdate, OptimizerStep, Update
from hpcddrl.runtime.beside import evaluating_of
from hpcddrl.runtime.compression import acts_here, standing, what_acts
from hpcddrl.runtime.coupling import peers_of
from hpcddrl.runtime.late import Late, late_of
from hpcddrl.runtime.memory import rollouts_bytes
from hpcddrl.runtime.parts import (
    algorithm_for,
    columns_per_batch,
    learns_from_what_acted,
    most_rollouts,
    rollouts_per_batch,
    samples_per_batch,
)
from hpcddrl.runtime.rank import (
    Rank,
    acting,
    begins_anew,
    environments,
    legs_of,
    network_of,
    saver_of,
    with_precision,
)
from hpcddrl.runtime.stages import pretext_of
from hpcddrl.types import Answer, Stage, Stateful, Weights


def build(rank: Rank) -> Callable[[], None]:
    """Return this rank's loop. Collective over the job: ranks make their channels and reductions together."""
    match rank.place.role:
        case Role.SERVER:
            return _server(rank)
        case Role.REPLAY:
            return _replay(rank)
        case Role.ACTOR if isinstance(rank.config.acting, CentralActing):
            return _remote_actor(rank)
        case Role.ACTOR:
            return _actor(rank)
        case Role.LEARNER:
            return _learner(rank)


def _server(rank: Rank) -> Callable[[], None]:
    number, shards = rank.shard
    learners, network = ranks_of(rank.places, Role.LEARNER), network_of(rank, group=0)
    flat = flatten(network)
    own = flat.values[slices(flat.values.numel(), shards)[number]]
    update = rank.config.update
    assert isinstance(update, ParameterServer)
    order: Order
    applying: Applying
    if update.mode == "synchronous":
        step, order = _optimizer_step(rank, own, len(learners)), together
        most = rank.config.optimization.max_gradient_norm
        applying = Averaged(step, most, Total(rank.comms.group), rank.control)
    else:
        step, order = _optimizer_step(rank, own, learners=1), in_turn if rank.config.deterministic else as_they_come
        asked = number == 0  # the others do as the first shard decided
        admission = rank.remember(
            "admission",
            Admission(update.max_staleness if asked else None, update.max_loss_deviations if asked else None),
        )
        applying = OneByOne(step, admission, _compensation(rank, update, learners, len(own)), rank.control)
    server = Server(
        rank.comms.world,
        learners,
        len(own),
        order,
        applying,
        _keeping(rank, dealt(learners, number, shards)),
        lambda: step.optimizer.state_dict(),  # a late ensemble restarts it
        saver_of(rank, network),
        legs_of(rank, _enough(rank, shares=1)),
        rank.control,
        rank.traffic,
    )
    weights = _start(rank, own, step)
    return lambda: server.run(weights)


def _keeping(rank: Rank, learners: list[int]) -> Keeping:
    config, middle = rank.config, rank.config.stages.middle
    if not isinstance(middle, RolloutReplay) or middle.held_by != "server":
        return KeepsNothing()
    memory, count = _rollout_memory(rank, middle), columns_per_batch(config, config.topology.actors_per_group or 0)
    unroll_length, num_envs = config.algorithm.unroll_length, config.env.num_envs
    made = KeepsRollouts(
        rank.comms.world,
        learners,
        memory,
        rank.spec,
        unroll_length,
        num_envs,
        count,
        middle,
        rank.control,
        rank.traffic,
    )
    return rank.remember("rollouts", made)


def _rollout_memory(rank: Rank, config: RolloutReplay) -> RolloutMemory:
    _, like = rollout_layout(rank.spec, rank.config.algorithm.unroll_length, 1).allocate()
    nbytes = rollouts_bytes(rank.config, rank.spec, rank.place.role)
    rank.lines.append(
        f"replay of {config.capacity:,} rollouts of one environment takes {nbytes / 1e9:.2f} GB on each "
        f"{rank.place.role}"
    )
    return RolloutMemory(config, like, rank.config.seed * 1000 + rank.comms.world.rank)


def _compensation(
    rank: Rank, update: ParameterServer, learners: list[int], parameters: int
) -> DelayCompensation | None:
    match update.compensation:
        case NoCompensation():
            return None
        case ConstantCompensation(strength=constant):
            compensation = DelayCompensation(learners, parameters, lambda gradient: constant)
        case AdaptiveCompensation(strength=start, decay=decay, epsilon=epsilon):
            adaptive = rank.remember("compensation", AdaptiveStrength(start, decay, epsilon, parameters))
            compensation = DelayCompensation(learners, parameters, adaptive)
    rank.lines.append(
        f"delay compensation keeps {len(learners)} copies of this shard's {parameters:,} weights, "
        f"{compensation.nbytes / 1e6:.1f} MB"
    )
    return compensation


def _replay(rank: Rank) -> Callable[[], None]:
    config, number = rank.config, rank.place.number
    assert isinstance(config.experience, Replay)
    actors = dealt(rank.actors, number, len(rank.replays))
    made = ReplayRank(
        rank.comms.world,
        actors,
        rank.learners,
        _memory(rank, len(actors), config.experience),
        _beta(config.experience),
        config.experience,
        rank.spec,
        config.env.num_envs,
        rollout_layout(rank.spec, config.algorithm.unroll_length, config.env.num_envs),
        legs_of(rank, None),
        rank.control,
        rank.traffic,
    )
    rank.remember("replay", made)
    return made.run


def _remote_actor(rank: Rank) -> Callable[[], None]:
    envs = environments(rank)
    actor = RemoteActor(envs, rank.comms.world, rank.learners[0], legs_of(rank, None), rank.control, rank.traffic)
    begins_anew(rank, envs, actor.restart)
    return actor.run


def _actor(rank: Rank) -> Callable[[], None]:
    config, world, number = rank.config, rank.comms.world, rank.place.number
    network, nbytes, unpack = what_acts(rank)
    act = rank.remember("policy", acting(rank, network, world.rank))
    collector = _collector(rank, act)
    answering = _answering(rank, number)
    receivers = rank.replays or rank.learners
    if isinstance(config.experience, Replay):  # it joins an environment's rollouts, so all must come to one place
        receivers = [receivers[number % len(receivers)]]
    return Actor(
        collector,
        Inbox(world, answering, nbytes, unpack, config.deterministic, rank.traffic),
        answering[0],
        world,
        receivers,
        (number, len(rank.actors)),
        rollouts_per_batch(config, len(rank.actors)),
        config.deterministic,
        config.algorithm.unroll_length,
        rollout_layout(rank.spec, config.algorithm.unroll_length, config.env.num_envs),
        legs_of(rank, None),
        rank.control,
        rank.traffic,
    ).run


def _collector(rank: Rank, act: LocalPolicy) -> Collector:
    envs = environments(rank)
    collector = Collector(envs, act, rank.control.timing, rank.control.counters)
    begins_anew(rank, envs, collector.restart)
    return collector


def _answering(rank: Rank, actor: int) -> list[int]:
    """Return the learners that an actor of this number may ask for weights, its own first.

    Learners have the same weights, so where deaths are survived the others stand in for one that has died.
    """
    own = actor % len(rank.learners)
    return rank.learners[own:] + rank.learners[:own] if tolerant() else rank.learners[own : own + 1]


def _learner(rank: Rank) -> Callable[[], None]:
    config, group, world = rank.config, rank.place.group, rank.comms.world
    assert group is not None
    learners, actors = rank.learners, rank.actors
    network = network_of(rank, group).to(rank.devices.learner)
    with_precision(rank, network, samples_per_batch(config, len(actors)), trains=True)
    flat = flatten(network)
    parameters = flat.values.numel()
    step = None if isinstance(config.update, ParameterServer) else _optimizer_step(rank, flat.values, len(learners))
    weights = _start(rank, flat.values, step)
    late = late_of(rank, group, network, flat.values)
    reduction = _reduction(rank)
    update = _update(rank, step, parameters, late, reduction)
    packing, answer = standing(rank, group, network, flat.values)
    publisher: Publishing = AtHand(packing)
    if not acts_here(rank):
        answers = [actor for actor in actors if world.rank in _answering(rank, rank.places[actor].number)]
        publisher = Publisher(world, answers, packing, config.deterministic, rank.control.timing, rank.traffic)
    algorithm = algorithm_for(config, network, rank.spec, flat.gradient, rank.tuning, rank.shares)
    pretext, peers = pretext_of(rank, network, flat.gradient), peers_of(rank, group, network, late)
    for name, part in (("algorithm", algorithm), ("pretext", pretext), ("peers", peers)):
        if isinstance(part, Stateful):
            rank.remember(name, part)
    learner = Learner(
        algorithm,
        pretext,
        flat.buffer,
        _source(rank, answer, publisher, reduction),
        update,
        publisher,
        peers,
        evaluating_of(rank),
        saver_of(rank, network),
        legs_of(rank, None if step is None else _enough(rank, shares=config.topology.groups or 1)),
        rank.control,
        rank.spec.frame_skip,
        len(learners),
    )
    return lambda: learner.run(weights)


def _update(
    rank: Rank, step: OptimizerStep | None, parameters: int, late: Late | None, reduction: Reduction | None
) -> Update:
    config, timing = rank.config, rank.control.timing
    if isinstance(config.update, ParameterServer):
        servers, server = ranks_of(rank.places, Role.SERVER), config.update
        most = None if server.mode == "synchronous" else config.optimization.max_gradient_norm  # clipped when averaged
        asks = server.max_staleness is not None or server.max_loss_deviations is not None
        tick = rank.control.tick
        made = ServerUpdate(rank.comms.world, servers, parameters, most, asks, tick, timing, rank.traffic)
        return made if late is None else late.update(rank, made)
    assert step is not None
    if reduction is None:
        return LocalUpdate(step, config.optimization, timing)
    return AllReduceUpdate(reduction, step, config.optimization, timing, leads=rank.place.number == 0)


def _reduction(rank: Rank) -> Reduction | None:
    """Make what averages the gradients of a group's learners, if they are several."""
    update, learners = rank.config.update, rank.learners
    if not isinstance(update, AllReduce) or len(learners) == 1:
        return None
    assert rank.circle is not None, "a learner has one"
    backend = _reducing(rank, averaging(update.backend, rank.circle))
    when = " while the next gradient is made" if update.overlap else ""
    ranks = ", ".join(map(str, learners))
    rank.lines.append(f"{backend.name} averages over ranks {ranks} of group {rank.place.group}{when}")
    return rank.remember("reduction", Pipelined(backend)) if update.overlap else AtOnce(backend)


def _reducing(rank: Rank, averaging: Averaging) -> Averaging:
    """Return what averages this learner's gradients: those of a GPU in host memory, unless it can be done on GPUs."""
    where_they_are = averaging.on_gpus and rank.devices.one_each
    return averaging if rank.devices.learner == CPU or where_they_are else ThroughHost(averaging)


def _source(rank: Rank, answer: Answer, publisher: Publishing, reduction: Reduction | None) -> sources.Source:
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
        memory = _memory(rank, feed.sources, config.experience)
        made = sources.Replayed(feed, memory, _beta(config.experience), config.experience, num_envs, control, device)
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


def _reusing(rank: Rank, feed: Feed, batcher: Batcher, kept: sources.Kept, config: RolloutReplay) -> sources.Source:
    unroll_length, count = rank.config.algorithm.unroll_length, columns_per_batch(rank.config, len(rank.actors))
    again = Batcher(rank.spec, unroll_length, count, 1, rank.devices.learner)
    memory = _servers_memory(rank, count, config) if config.held_by == "server" else _own_memory(rank, count, config)
    hindsight = _rollout_hindsight(rank, config)
    made = rank.remember("rollouts", Reusing(feed, batcher, kept, memory, again, config, rank.control, hindsight))
    if rank.saved is not None:
        rank.lines.append(f"replay of rollouts: {memory.kept:,} are there")
    return made


def _own_memory(rank: Rank, count: int, config: RolloutReplay) -> Memory:
    return OwnMemory(_rollout_memory(rank, config), count, config.max_lag)


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


def _feed(rank: Rank, act: LocalPolicy, publisher: Publishing, reduction: Reduction | None) -> Feed:
    config, control, world, actors = rank.config, rank.control, rank.comms.world, rank.actors
    layout = rollout_layout(rank.spec, config.algorithm.unroll_length, config.env.num_envs)
    rollouts = rollouts_per_batch(config, len(actors))
    if not actors:
        meanwhile = () if reduction is None else (reduction.advance,)
        return Inline(_collector(rank, act), layout, control, *meanwhile)
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


def _memory(rank: Rank, feeders: int, config: Replay) -> ReplayMemory:
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
        _hindsight(rank, config),
    )
    rank.lines.append(
        f"replay of {config.capacity:,} transitions takes {memory.nbytes / 1e9:.2f} GB on each rank that holds one"
    )
    return memory


def _hindsight(rank: Rank, config: Replay) -> Relabelling | None:
    if not isinstance(config.hindsight, Hindsight):
        return None
    outcome = goal_outcome(rank.config.env, rank.config.algorithm.discount)
    return Relabelling(rank.spec, outcome, config.hindsight.kind, config.hindsight.relabels)


def _rollout_hindsight(rank: Rank, config: RolloutReplay) -> RolloutHindsight | None:
    if not isinstance(config.hindsight, Hindsight):
        return None
    outcome = goal_outcome(rank.config.env, rank.config.algorithm.discount)
    return RolloutHindsight(rank.spec, outcome, config.hindsight.kind, config.hindsight.relabels)


def _priorities(config: Replay) -> Callable[[int], priorities.Priorities]:
    match config.priorities:
        case Uniform():
            return priorities.Uniform
        case Proportional(alpha=alpha, epsilon=epsilon):
            return lambda slots: priorities.Proportional(slots, alpha, epsilon)
        case RankBased(alpha=alpha):
            return lambda slots: priorities.RankBased(slots, alpha)


def _beta(config: Replay) -> float:
    return 0.0 if isinstance(config.priorities, Uniform) else config.priorities.beta


def _start(rank: Rank, values: torch.Tensor, step: OptimizerStep | None) -> Weights:
    """Return the weights to start from: those that were saved, if the run is resumed; a server's come later."""
    if step is not None:
        rank.remember("optimizer", step)
    if rank.saved is None:
        return Weights(0, values)
    saved = rank.saved["weights"]
    version, frames = int(saved["version"]), float(saved["frames"])
    if step is not None:
        rank.lines.append(f"resumed {rank.owner} from version {version}, {int(frames):,} frames")
    return Weights(version, values, frames, stage=Stage(saved["stage"]), since=int(saved["since"]))


def _enough(rank: Rank, shares: int) -> Callable[[float], bool]:
    """Return whether so many frames end a run: only deterministic runs count there."""
    config = rank.config
    if not config.deterministic:
        return lambda frames: False
    assert config.budget.frames is not None
    budget = config.budget.frames / shares
    return lambda frames: frames >= budget


def _optimizer_step(rank: Rank, values: torch.Tensor, learners: int) -> OptimizerStep:
    frames, groups = rank.config.budget.frames, rank.config.topology.groups
    shares = 1 if rank.place.role is Role.SERVER else groups
    assert shares is not None
    return OptimizerStep(values, rank.config.optimization, frames and frames / shares, learners, rank.tuning)
