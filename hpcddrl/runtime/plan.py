"""What a job will send: every kind of message with its size, who sends it to whom, and how often at a stated pace.

Pure, and without MPI, so that a job for 4096 ranks can be looked at on a laptop. Sizes are those of the layouts that
the roles use. The pace is the env steps per second of each rank that steps environments; steps that only reset one
count too, since they travel like any other.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from hpcddrl.comm.control_messages import status_layout
from hpcddrl.comm.messages import (
    Tag,
    actions_layout,
    drawn_layout,
    errors_layout,
    exchange_layout,
    frames_layout,
    gradient_layout,
    learned_layout,
    published_layout,
    pull_layout,
    rollout_layout,
    sample_layout,
    weights_layout,
)
from hpcddrl.comm.partners import neighbours
from hpcddrl.comm.placement import Place, Role, leaders, place, ranks_of
from hpcddrl.config import (
    ActorCritic,
    Averaging,
    CentralActing,
    ClippedSurrogate,
    Config,
    Ensemble,
    ParameterServer,
    Population,
    Replay,
    RolloutReplay,
)
from hpcddrl.networks.flat import TAIL, size
from hpcddrl.networks.make import make_network
from hpcddrl.roles.counters import COUNTERS, REPORTS_PER_ROW, steppers
from hpcddrl.roles.stages import most_returns
from hpcddrl.runtime.parts import columns_per_batch, most_rollouts, published_bytes, rollouts_per_batch
from hpcddrl.settings import group_config
from hpcddrl.types import Array, EnvSpec

FLOAT = 4  # bytes


class Job(NamedTuple):
    """A job before it runs."""

    config: Config  # fitted
    spec: EnvSpec
    places: tuple[Place, ...]
    sizes: tuple[int, ...]  # weights of each group's network
    packed: tuple[int, ...]  # bytes of what each group's actors are sent, at most
    group: int = 0  # whose configuration this is, where groups differ
    among: int = 1  # so many kinds of groups, in turn

    @property
    def parameters(self) -> int:
        """Return the weights of the network of the group whose configuration this is."""
        return self.sizes[self.group]

    @property
    def published(self) -> int:
        """Return the bytes of what that group's actors are sent, at most."""
        return self.packed[self.group]

    @property
    def kinds(self) -> list[Job]:
        """Return the job as it would be with all groups like one of them, for one group of each kind."""
        count = max(1, len(self.config.group_settings))
        return [self._replace(config=group_config(self.config, g), group=g, among=count) for g in range(count)]

    def by_group(self, role: Role) -> Array:
        """Return the world ranks with a role, [groups, ranks of the role in each]."""
        assert self.config.topology.groups is not None
        return np.array(ranks_of(self.places, role), np.int64).reshape(self.config.topology.groups, -1)

    @property
    def actors(self) -> int:
        """Return how many actors a group has."""
        return self.config.topology.actors_per_group or 0

    @property
    def learners(self) -> int:
        """Return how many learners a group has."""
        return self.config.topology.learners_per_group or 0

    @property
    def peers(self) -> int:
        """Return how many other groups each learner hears of, in the long run."""
        coupling, groups = self.config.meeting, self.config.topology.groups or 1
        if coupling is None or groups == 1:
            return 0
        return len(neighbours(coupling.topology, groups, 0).by)

    @property
    def asked(self) -> int:
        """Return how many peers each learner asks about a batch."""
        coupling = self.config.meeting
        if not isinstance(coupling, Ensemble):
            return 0
        most = coupling.max_peers
        return self.peers if most is None else min(most, self.peers)

    @property
    def shard(self) -> int:
        """Return how many of the parameters a server holds, at most."""
        return -(-self.parameters // max(1, self.config.topology.servers))


def job_of(config: Config, spec: EnvSpec) -> Job:
    """Return the job that a fitted configuration makes."""
    kinds = [group_config(config, number) for number in range(max(1, len(config.group_settings)))]
    networks = [make_network(own.network, own.algorithm, spec, seed=0) for own in kinds]
    sizes = [size(network) for network in networks]
    packed = [published_bytes(own, spec, size) for own, size in zip(kinds, sizes, strict=True)]
    of_groups = [group % len(kinds) for group in range(config.topology.groups or 1)]
    return Job(
        config, spec, place(config.topology), tuple(sizes[k] for k in of_groups), tuple(packed[k] for k in of_groups)
    )


class Flow(NamedTuple):
    """All messages of one kind in a job, between pairs of ranks that send equally often."""

    kind: str  # a tag's name as in /traffic, or a collective's
    nbytes: int  # of one message
    senders: Array  # [pairs] world ranks
    receivers: Array  # [pairs]
    per_s: float  # messages of each pair
    posted: int = 0  # buffers that a receiver keeps for each of its senders
    announced: int = 0  # buffers that a receiver makes for each of its senders whose messages have come
    sending: int = 0  # buffers of each sender, as a rule
    most: int = 0  # buffers of each sender, at most

    @property
    def messages_per_s(self) -> float:
        """Return the messages of the whole job."""
        return len(self.senders) * self.per_s

    @property
    def bytes_per_s(self) -> float:
        """Return the bytes of the whole job."""
        return self.messages_per_s * self.nbytes

    def load(self, ranks: int) -> Array:
        """Return the bytes per second [ranks] that each rank sends and receives."""
        ends = np.bincount(self.senders, minlength=ranks) + np.bincount(self.receivers, minlength=ranks)
        return np.asarray(ends * self.per_s * self.nbytes)


def samples_per_step(config: Config) -> float:
    """Return how often an env step is learned from, at most."""
    if isinstance(config.experience, Replay):
        return config.experience.replay_ratio
    surrogate = config.algorithm.surrogate if isinstance(config.algorithm, ActorCritic) else None
    return float(surrogate.epochs if isinstance(surrogate, ClippedSurrogate) else 1) * (1 + _replayed(config))


def _replayed(config: Config) -> float:
    """Return the batches drawn again for each fresh one, at most: in the stage that has them."""
    return config.stages.middle.replay_ratio if isinstance(config.stages.middle, RolloutReplay) else 0.0


def learner_steps_per_s(job: Job, steps_per_s: float) -> float:
    """Return the env steps per second that come to each learner."""
    return steps_per_s * (job.actors / job.learners if job.actors else 1)


def updates_per_s(job: Job, steps_per_s: float) -> float:
    """Return the updates per second of each learner that keeps up, in the stage that has most."""
    config, steps = job.config, learner_steps_per_s(job, steps_per_s)
    if isinstance(config.experience, Replay):
        return steps * config.experience.replay_ratio / config.experience.batch_size
    assert isinstance(config.algorithm, ActorCritic)
    surrogate, rollouts = config.algorithm.surrogate, rollouts_per_batch(config, job.actors)
    batches = steps / (config.algorithm.unroll_length * config.env.num_envs * rollouts) * (1 + _replayed(config))
    return batches * (surrogate.epochs * surrogate.minibatches if isinstance(surrogate, ClippedSurrogate) else 1)


def flows(job: Job, steps_per_s: float) -> list[Flow]:
    """Return the messages of a job whose learners keep up, those that are sent again and again.

    A learner that is slower slows its actors down, and everything with them. An actor asks for weights once a rollout,
    and gets them if there are newer ones, so there may be fewer of these. Where groups differ, each kind of group has
    flows of its own.
    """
    found = [
        _sent_by(flow, kind)
        for kind in job.kinds
        for flow in (
            *_experience(kind, steps_per_s),
            *_publication(kind, steps_per_s),
            *_reduction(kind, steps_per_s),
            *_exchange(kind, steps_per_s),
            *_statuses(kind),
        )
    ]
    return [flow for flow in found if len(flow.senders)]


def _sent_by(flow: Flow, kind: Job) -> Flow:
    """Return what of a flow is sent by groups of one kind (by the first, if by no group)."""
    if kind.among == 1:
        return flow
    groups = np.array([place.group or 0 for place in kind.places])
    mine = groups[flow.senders] % kind.among == kind.group
    return flow._replace(senders=flow.senders[mine], receivers=flow.receivers[mine])


def env_steps_per_s(job: Job, steps_per_s: float) -> float:
    """Return the env steps per second of the whole job."""
    return len(steppers(job.places)) * steps_per_s


def _experience(job: Job, steps_per_s: float) -> list[Flow]:
    """Return what brings experience to learners: frames and actions, rollouts, samples and their errors."""
    config, spec, num_envs = job.config, job.spec, job.config.env.num_envs
    actors, learners, replays = map(job.by_group, (Role.ACTOR, Role.LEARNER, Role.REPLAY))
    if isinstance(config.acting, CentralActing):
        there, back = _dealt(actors, learners)
        frames, actions = frames_layout(spec, num_envs).nbytes, actions_layout(spec, num_envs).nbytes
        rate, answers = steps_per_s / num_envs, job.actors
        return [
            Flow(_name(Tag.FRAMES), frames, there, back, rate, posted=1, sending=1, most=2),
            Flow(_name(Tag.ACTIONS), actions, back, there, rate, posted=1, sending=answers, most=2 * answers),
        ]
    rollout = rollout_layout(spec, config.algorithm.unroll_length, num_envs).nbytes
    rate = steps_per_s / (num_envs * config.algorithm.unroll_length)
    if not isinstance(config.experience, Replay):
        posted = -(-rollouts_per_batch(config, job.actors) // max(1, job.actors))
        pairs = _all_pairs(actors, learners)
        flow = Flow(_name(Tag.ROLLOUT), rollout, *pairs, rate / job.learners, posted=posted, sending=1, most=1)
        return [flow, *_kept(job, steps_per_s)]
    if not replays.size:
        return [Flow(_name(Tag.ROLLOUT), rollout, *_dealt(actors, learners), rate, posted=1, sending=1, most=1)]
    size, count = config.experience.batch_size, replays.shape[1]
    holders, takers = _all_pairs(replays, learners)
    draws = updates_per_s(job, steps_per_s) / count
    sample, errors = sample_layout(spec, size).nbytes, errors_layout(size).nbytes
    return [
        Flow(_name(Tag.ROLLOUT), rollout, *_dealt(actors, replays), rate, posted=2, sending=1, most=1),
        Flow(_name(Tag.SAMPLE), sample, holders, takers, draws, posted=2, sending=job.learners, most=job.learners),
        Flow(_name(Tag.ERRORS), errors, takers, holders, draws, posted=2, sending=count, most=2 * count),
    ]


def _kept(job: Job, steps_per_s: float) -> list[Flow]:
    """Return what goes to servers that keep rollouts, in the middle stage, and comes back."""
    config, middle = job.config, job.config.stages.middle
    if not isinstance(middle, RolloutReplay) or middle.held_by != "server":
        return []
    unroll_length, num_envs = config.algorithm.unroll_length, config.env.num_envs
    there, back = _dealt(job.by_group(Role.LEARNER).reshape(1, -1), np.array([ranks_of(job.places, Role.SERVER)]))
    most, count = most_rollouts(config, job.actors), columns_per_batch(config, job.actors)
    fresh = learner_steps_per_s(job, steps_per_s) / (unroll_length * num_envs)
    draws = fresh / rollouts_per_batch(config, job.actors) * middle.replay_ratio
    learned, drawn = learned_layout(job.spec, unroll_length, num_envs), drawn_layout(job.spec, unroll_length, count)
    learners = -(-len(there) // config.topology.servers)
    return [
        Flow(_name(Tag.ROLLOUT), learned.nbytes, there, back, fresh, posted=1, sending=most, most=most + 1),
        Flow(_name(Tag.SAMPLE), drawn.nbytes, back, there, draws, posted=1, sending=learners, most=2 * learners),
        Flow(_name(Tag.ERRORS), errors_layout(count).nbytes, there, back, draws, posted=1, sending=1, most=2),
    ]


def _publication(job: Job, steps_per_s: float) -> list[Flow]:
    """Return what actors with weights of their own ask for and get."""
    config = job.config
    if isinstance(config.acting, CentralActing) or not job.actors:
        return []
    actors, learners = _dealt(job.by_group(Role.ACTOR), job.by_group(Role.LEARNER))
    rollouts = steps_per_s / (config.env.num_envs * config.algorithm.unroll_length)
    rate, weights = min(rollouts, updates_per_s(job, steps_per_s)), published_layout(job.published).nbytes
    most = -(-job.actors // job.learners) + 3  # one each, the version before, the newest, and the last word
    return [
        Flow(_name(Tag.PULL), pull_layout().nbytes, actors, learners, rate, posted=2, sending=1, most=2),
        Flow(_name(Tag.WEIGHTS), weights, learners, actors, rate, posted=2, sending=2, most=most),
    ]


def _reduction(job: Job, steps_per_s: float) -> list[Flow]:
    """Return what makes gradients weights: to and from servers, or around the ring of a group's learners."""
    learners, rate = job.by_group(Role.LEARNER), updates_per_s(job, steps_per_s)
    if isinstance(job.config.update, ParameterServer):
        there, back = _all_pairs(learners.reshape(1, -1), np.array([ranks_of(job.places, Role.SERVER)]))
        gradient, weights = gradient_layout(job.shard).nbytes, weights_layout(job.shard).nbytes
        count, shards = learners.size, job.config.topology.servers
        return [
            Flow(_name(Tag.GRADIENT), gradient, there, back, rate, posted=1, sending=shards, most=shards),
            Flow(_name(Tag.WEIGHTS), weights, back, there, rate, posted=1, sending=count, most=2 * count),
        ]
    if job.learners == 1:
        return []
    part = FLOAT * (job.parameters + TAIL) // job.learners  # a ring sends each part around twice but for one step
    ring = np.roll(learners, -1, axis=1)
    return [Flow("allreduce", part, learners.ravel(), ring.ravel(), rate * 2 * (job.learners - 1))]


def _exchange(job: Job, steps_per_s: float) -> list[Flow]:
    """Return what groups tell each other, and what a leader then tells the other learners of its group."""
    coupling, heads = job.config.meeting, np.array(leaders(job.places), np.int32)  # there may be millions of pairs
    if coupling is None or not job.peers:
        return []
    rounds, groups = updates_per_s(job, steps_per_s) / coupling.exchange_every, len(heads)
    if coupling.topology == "ring":
        senders, receivers = heads, np.roll(heads, -1)
    else:
        senders, receivers = _all_pairs(heads[job.group :: job.among].reshape(1, -1), heads.reshape(1, -1))
        others = senders != receivers
        senders, receivers = senders[others], receivers[others]
    heard = _heard_in_a_round(coupling, groups)
    each = rounds * heard / job.peers  # of each pair
    weights, learners = exchange_layout(job.parameters).nbytes, job.by_group(Role.LEARNER)
    told = _all_pairs(learners[:, :1], learners[:, 1:])
    most = job.peers + 1
    return [
        Flow(_name(Tag.EXCHANGE), weights, senders, receivers, each, announced=1, sending=2, most=most),
        Flow("broadcast", FLOAT * sum(job.sizes) // groups, *told, rounds * heard),  # on average
    ]


def _heard_in_a_round(coupling: Averaging | Ensemble | Population, groups: int) -> float:
    """Return how many peers' weights come to a group in a round, on average."""
    match coupling.topology:
        case "all_to_all":
            return groups - 1
        case "ring":
            return 1
        case "random_pairs":
            return groups // 2 * 2 / groups  # of an odd number one is left out


def _statuses(job: Job) -> list[Flow]:
    senders = np.arange(1, len(job.places))
    rate = REPORTS_PER_ROW / job.config.logging.interval_s
    nbytes = status_layout(len(COUNTERS), most_returns(job.config.stages.detector)).nbytes
    return [Flow(_name(Tag.STATUS), nbytes, senders, np.zeros_like(senders), rate, posted=2, sending=1, most=2)]


def _dealt(many: Array, few: Array) -> tuple[Array, Array]:
    """Pair the ranks [groups, n] of each group with those [groups, m] that they are dealt to in turn."""
    return many.ravel(), few[:, np.arange(many.shape[1]) % few.shape[1]].ravel()


def _all_pairs(some: Array, others: Array) -> tuple[Array, Array]:
    """Pair each rank [groups, n] with each of the others [groups, m] of its group."""
    n, m = some.shape[1], others.shape[1]
    return np.repeat(some, m, axis=1).ravel(), np.tile(others, (1, n)).ravel()


def _name(tag: Tag) -> str:
    return tag.name.lower()


class Crew(NamedTuple):
    """The ranks of one role."""

    role: Role
    ranks: list[int]
    a_group: int  # ranks of a group with this role; all of them, for servers

    @property
    def spans(self) -> str:
        """Write the ranks shortly: runs of neighbours, and how often they recur."""
        return spans(self.ranks)


def crews(job: Job) -> list[Crew]:
    """Return the roles that a job has, in the order of their first ranks."""
    groups = job.config.topology.groups or 1
    found = [(role, ranks_of(job.places, role)) for role in Role]
    made = [Crew(r, ranks, len(ranks) // (1 if r is Role.SERVER else groups)) for r, ranks in found if ranks]
    return sorted(made, key=lambda crew: crew.ranks[0])


def spans(ranks: list[int]) -> str:
    """Write ascending ranks shortly: ``0, 2, … 14`` or ``1-3, 5-7, … 61-63``."""
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    even = len({b[0] - a[0] for a, b in itertools.pairwise(runs)}) == 1 and len(set(map(len, runs))) == 1
    return f"{texts[0]}, {texts[1]}, … {texts[-1]}" if even and len(runs) > 3 else ", ".join(texts)


def busiest(job: Job, sent: list[Flow]) -> tuple[int, float]:
    """Return the rank that sends and receives most, and its bytes per second."""
    ranks = len(job.places)
    load = sum((flow.load(ranks) for flow in sent), np.zeros(ranks))
    return int(load.argmax()), float(load.max())
