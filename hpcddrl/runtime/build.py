"""From a configuration to this rank's role: the one place where choices are resolved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from mpi4py import MPI

from hpcddrl.algorithms.actor_critic import ActorCritic
from hpcddrl.comm.allreduce import averaging
from hpcddrl.comm.channel import Traffic
from hpcddrl.comm.exchange import Exchange
from hpcddrl.comm.messages import rollout_layout
from hpcddrl.comm.placement import Communicators, Place, Role, leaders, ranks_of
from hpcddrl.config import AllReduce, CentralActing, Config, Ensemble, ParameterServer
from hpcddrl.envs.make import Environments, make
from hpcddrl.logs import checkpoint
from hpcddrl.logs.run_dir import RunDirectory
from hpcddrl.networks.policy_value import Flat, PolicyValueNetwork, Precision, flatten
from hpcddrl.networks.precision import choose_precision
from hpcddrl.rl.policies import policy_for
from hpcddrl.roles.acting import LocalPolicy
from hpcddrl.roles.actor import Actor, RemoteActor
from hpcddrl.roles.control import Control
from hpcddrl.roles.counters import steppers
from hpcddrl.roles.learner import Learner
from hpcddrl.roles.peers import EnsemblePeers, NoPeers, Peers
from hpcddrl.roles.publishing import Inbox, Publisher
from hpcddrl.roles.rollouts import Batcher, Collector
from hpcddrl.roles.saving import Saver
from hpcddrl.roles.server import Server
from hpcddrl.roles.sources import Central, Inline, Queue, Source
from hpcddrl.roles.updates import AllReduceUpdate, LocalUpdate, OptimizerStep, ServerUpdate, Update
from hpcddrl.types import EnvSpec, Weights

SEEDS_PER_RUN = 100_000  # environments of run seed s have seeds from s · SEEDS_PER_RUN


@dataclass(frozen=True, kw_only=True)
class Rank:
    """Everything that a role is built from on one rank."""

    config: Config  # with a fitted topology
    spec: EnvSpec
    comms: Communicators
    places: tuple[Place, ...]
    control: Control
    traffic: Traffic
    run: RunDirectory
    resumed: bool = False
    threads: int = 1
    lines: list[str] = field(default_factory=list)  # for the log, said before the start

    @property
    def place(self) -> Place:
        """Return this rank's place."""
        return self.places[self.comms.world.rank]

    @property
    def owner(self) -> str:
        """Return the name under which this rank's checkpoints stand."""
        return "server-0000" if self.place.group is None else f"group-{self.place.group:04d}"

    @property
    def origin(self) -> str:
        """Return whose checkpoint this rank goes on from: the server's where there is one."""
        return "server-0000" if self.config.topology.servers else self.owner


def env_seeds(config: Config, places: tuple[Place, ...], rank: int) -> list[int]:
    """Return the seeds of a rank's environments: no two in a job are the same."""
    first = config.seed * SEEDS_PER_RUN + steppers(places).index(rank) * config.env.num_envs
    return [(first + i) % 2**31 for i in range(config.env.num_envs)]


def build(rank: Rank) -> Callable[[], None]:
    """Return this rank's loop. Collective over the job: ranks make their channels and reductions together."""
    match rank.place.role:
        case Role.SERVER:
            return _server(rank)
        case Role.ACTOR if isinstance(rank.config.acting, CentralActing):
            learner = ranks_of(rank.places, Role.LEARNER, rank.place.group)[0]
            return RemoteActor(_environments(rank), rank.comms.world, learner, rank.control, rank.traffic).run
        case Role.ACTOR:
            return _actor(rank)
        case _:
            return _learner(rank)


def _environments(rank: Rank) -> Environments:
    config = rank.config
    seeds = env_seeds(config, rank.places, rank.comms.world.rank)
    return make(config.env, config.env.num_envs, seeds, config.algorithm.discount, rank.threads)


def _network(rank: Rank, group: int) -> PolicyValueNetwork:
    network, seed = rank.config.network, rank.config.seed * 1000 + group
    return PolicyValueNetwork(rank.spec, network.torso, network.width, seed, Precision())


def _with_precision(rank: Rank, network: PolicyValueNetwork, batch: int, trains: bool) -> PolicyValueNetwork:
    wanted = rank.config.precision
    if rank.config.deterministic:  # a choice by the clock is not repeatable
        network.precision, rates = Precision("bf16" if wanted == "bf16" else "fp32"), dict[str, float]()
    else:
        network.precision, rates = choose_precision(network, rank.spec, wanted, batch, trains)
    table = ", ".join(f"{name} {rate:,.0f}/s" for name, rate in rates.items())
    chosen = f"{network.precision.name}{' channels-last' if network.precision.channels_last else ''}"
    rank.lines.append(
        f"precision {chosen} for {'training' if trains else 'acting'} on {batch} observations ({table or 'not timed'})"
    )
    return network


def _saver(rank: Rank, network: PolicyValueNetwork) -> Saver:
    saves = rank.place.role is Role.SERVER or rank.place.number == 0
    folder = rank.run.checkpoints(rank.owner) if saves else None
    return Saver(folder, network, rank.config, rank.control.timing)


def _saved(rank: Rank) -> checkpoint.Checkpoint | None:
    return checkpoint.newest(rank.run.checkpoints(rank.origin)) if rank.resumed else None


def _start(rank: Rank, network: PolicyValueNetwork, flat: Flat, step: OptimizerStep | None) -> tuple[Weights, float]:
    """Return the weights and trained frames to start from, restored from the newest checkpoint on a resume."""
    saved = _saved(rank)
    if saved is None:
        return Weights(0, flat.values), 0.0
    network.load_state_dict(saved.network)  # copies into the flat vector's views
    if step is not None:
        step.optimizer.load_state_dict(saved.optimizer)
        step.frames = saved.frames
    rank.lines.append(f"resumed {rank.origin} from version {saved.version}, {saved.frames:,} frames")
    return Weights(saved.version, flat.values), float(saved.frames)


def _enough(rank: Rank, shares: int) -> Callable[[float], bool]:
    """Return whether so many trained frames end a run: only deterministic runs count there."""
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
    return OptimizerStep(values, rank.config.optimization, frames and frames / shares, learners)


def _server(rank: Rank) -> Callable[[], None]:
    network = _network(rank, group=0)
    flat = flatten(network)
    step = _optimizer_step(rank, flat.values, learners=1)
    learners = ranks_of(rank.places, Role.LEARNER)
    server = Server(
        rank.comms.world,
        learners,
        flat.values.numel(),
        step,
        rank.config.deterministic,
        _saver(rank, network),
        rank.control,
        _enough(rank, shares=1),
        rank.traffic,
    )
    weights, frames = _start(rank, network, flat, step)
    return lambda: server.run(weights, frames)


def _actor(rank: Rank) -> Callable[[], None]:
    config, group, world = rank.config, rank.place.group, rank.comms.world
    learners = ranks_of(rank.places, Role.LEARNER, group)
    actors = ranks_of(rank.places, Role.ACTOR, group)
    network = _with_precision(rank, _network(rank, 0), config.env.num_envs, trains=False)
    flat = flatten(network)
    act = LocalPolicy(network, policy_for(rank.spec.action), _acting_seed(rank, world.rank))
    collector = Collector(_environments(rank), act, rank.control.timing, rank.control.counters)
    asked = learners[rank.place.number % len(learners)]
    inbox = Inbox(world, asked, flat.values, config.deterministic, rank.traffic)
    layout = rollout_layout(rank.spec, config.algorithm.unroll_length, config.env.num_envs)
    order = (rank.place.number, len(actors))
    saved = _saved(rank)
    return Actor(
        collector,
        inbox,
        world,
        learners,
        order,
        0 if saved is None else saved.version,
        config.algorithm.rollouts_per_batch,
        config.deterministic,
        config.algorithm.unroll_length,
        layout,
        rank.control,
        rank.traffic,
    ).run


def _acting_seed(rank: Rank, stepper: int) -> int:
    """Return the seed of the draws for a rank that steps environments, wherever they are made."""
    return rank.config.seed * SEEDS_PER_RUN + steppers(rank.places).index(stepper)


def _learner(rank: Rank) -> Callable[[], None]:
    config, group, world = rank.config, rank.place.group, rank.comms.world
    assert group is not None
    learners = ranks_of(rank.places, Role.LEARNER, group)
    actors = ranks_of(rank.places, Role.ACTOR, group)
    rollouts = _rollouts_per_batch(config, len(actors))
    samples = (config.algorithm.unroll_length + 1) * config.env.num_envs * rollouts
    network = _with_precision(rank, _network(rank, group), samples, trains=True)
    flat = flatten(network)
    policy = policy_for(rank.spec.action)
    parameters = flat.values.numel()
    step = None if isinstance(config.update, ParameterServer) else _optimizer_step(rank, flat.values, len(learners))
    weights, frames = _start(rank, network, flat, step)

    update: Update
    match config.update:
        case ParameterServer():
            server = ranks_of(rank.places, Role.SERVER)[0]
            update = ServerUpdate(world, server, parameters, config.optimization, rank.control.timing, rank.traffic)
        case AllReduce() if len(learners) > 1:
            assert step is not None
            backend = averaging(config.update.backend, rank.comms.learners)
            rank.lines.append(f"{backend.name} averages over ranks {', '.join(map(str, learners))} of group {group}")
            update = AllReduceUpdate(backend, step, config.optimization, rank.control.timing)
        case _:
            assert step is not None
            update = LocalUpdate(step, config.optimization, rank.control.timing)

    own_actors = [a for i, a in enumerate(actors) if i % len(learners) == rank.place.number]
    publisher = Publisher(
        world,
        own_actors if not isinstance(config.acting, CentralActing) else [],
        parameters,
        config.deterministic,
        rank.control.timing,
        rank.traffic,
    )
    act = LocalPolicy(network, policy, _acting_seed(rank, actors[0] if actors else world.rank))
    learner = Learner(
        ActorCritic(config.algorithm, network, flat.gradient, policy),
        flat.buffer,
        _source(rank, actors, rollouts, act, publisher),
        update,
        publisher,
        _peers(rank, group, parameters, network.precision),
        _saver(rank, network),
        rank.control,
        rank.spec.frame_skip * len(learners),
        _enough(rank, shares=config.topology.groups or 1) if step is not None else lambda frames: False,
    )
    start = update.first if isinstance(update, ServerUpdate) else lambda w: w
    return lambda: learner.run(start(weights), frames)


def _rollouts_per_batch(config: Config, actors: int) -> int:
    """Return the rollouts in a learner's batch: one inline, one of each actor in lockstep, else as configured."""
    if actors == 0:
        return 1
    if isinstance(config.acting, CentralActing) and config.acting.minimum == "all":
        return actors
    return config.algorithm.rollouts_per_batch


def _source(rank: Rank, actors: list[int], rollouts: int, act: LocalPolicy, publisher: Publisher) -> Source:
    config, control, world = rank.config, rank.control, rank.comms.world
    unroll_length, num_envs = config.algorithm.unroll_length, config.env.num_envs
    layout = rollout_layout(rank.spec, unroll_length, num_envs)
    batcher = Batcher(rank.spec, unroll_length, num_envs, rollouts)
    if not actors:
        return Inline(Collector(_environments(rank), act, control.timing, control.counters), layout, batcher, control)
    match config.acting:
        case CentralActing(minimum=wanted):
            minimum = len(actors) if wanted == "all" else min(wanted, len(actors))
            return Central(
                world,
                actors,
                rank.spec,
                num_envs,
                layout,
                batcher,
                rollouts,
                minimum,
                act,
                control,
                rank.traffic,
            )
        case _:
            return Queue(world, actors, layout, batcher, rollouts, config.deterministic, publisher.serve, control)


def _peers(rank: Rank, group: int, parameters: int, precision: Precision) -> Peers:
    config, world = rank.config, rank.comms.world
    heads = leaders(rank.places)
    if not isinstance(config.coupling, Ensemble) or len(heads) == 1:
        return NoPeers()
    leads = rank.comms.leaders != MPI.COMM_NULL
    others = [r for r in heads if r != world.rank]

    def network() -> PolicyValueNetwork:
        made = _network(rank, group)
        made.precision = precision
        return made

    return EnsemblePeers(
        config.coupling,
        network,
        heads,
        group,
        Exchange(world, others, parameters, rank.traffic) if leads else None,
        rank.comms.learners,
        config.deterministic,
        rank.control,
    )
