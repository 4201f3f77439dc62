"""From a configuration to this rank's role: the one place where choices are resolved."""

from __future__ import annotations

from collections.abc import Callable

import torch

from hpcddrl.comm.allreduce import Averaging, Total, averaging
from hpcddrl.comm.failure import tolerant
from hpcddrl.comm.messages import rollout_layout
from hpcddrl.comm.placement import Role, dealt, ranks_of, slices
from hpcddrl.config import (
    AdaptiveCompensation,
    AllReduce,
    CentralActing,
    ConstantCompensation,
    LateEnsemble,
    NoCompensation,
    ParameterServer,
    Replay,
    RolloutReplay,
)
from hpcddrl.networks.device import CPU
from hpcddrl.networks.flat import flatten
from hpcddrl.networks.torsos import blind_spot
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
from hpcddrl.roles.learner import Learner
from hpcddrl.roles.memories import Keeping, KeepsNothing, KeepsRollouts
from hpcddrl.roles.publishing import AtHand, Inbox, Publisher, Publishing
from hpcddrl.roles.reducing import AllReduceUpdate, AtOnce, Pipelined, Reduction, ThroughHost
from hpcddrl.roles.replay import ReplayRank
from hpcddrl.roles.server import Server
from hpcddrl.roles.shards import ServerUpdate
from hpcddrl.roles.updates import LocalUpdate, OptimizerStep, Update
from hpcddrl.runtime.beside import evaluating_of
from hpcddrl.runtime.compression import acts_here, standing, what_acts
from hpcddrl.runtime.coupling import peers_of
from hpcddrl.runtime.experience import beta_of, collector_of, replay_of, rollout_memory_of, source_of, tell_found
from hpcddrl.runtime.late import Late, late_of
from hpcddrl.runtime.parts import (
    algorithm_for,
    columns_per_batch,
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
from hpcddrl.types import Stage, Stateful, Weights


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
        applying = OneByOne(step, admission, _compensation(rank, update, learners, len(own)), asked, rank.control)
    server = Server(
        rank.comms.world,
        learners,
        len(own),
        order,
        applying,
        _keeping(rank, dealt(learners, number, shards)),
        isinstance(rank.config.stages.late, LateEnsemble) and len(learners) > 1,
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
    memory, count = rollout_memory_of(rank, middle), columns_per_batch(config, config.topology.actors_per_group or 0)
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
    rank.remember("rollouts", made)
    tell_found(rank, len(memory))
    return made


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
        replay_of(rank, len(actors), config.experience),
        beta_of(config.experience),
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
    collector = collector_of(rank, act)
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
    if (unseen := blind_spot(config.network.torso, rank.spec.observation_shape)) is not None:
        rank.lines.append(f"warning: {unseen}")
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
        source_of(rank, answer, publisher, reduction),
        update,
        publisher,
        peers,
        evaluating_of(rank, late),
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
