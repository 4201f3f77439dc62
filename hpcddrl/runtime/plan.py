"""What a job will send: every kind of message with its size, who sends it to whom, and how often at a stated pace.

Pure, and without MPI, so that a job for 4096 ranks can be looked at on a laptop. Sizes are those of the layouts that
the roles use. The pace is the env steps per second of each rank that steps environments; steps that only reset one
count too, since they travel like any other.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from hpcddrl.comm.messages import (
    Tag,
    actions_layout,
    errors_layout,
    frames_layout,
    gradient_layout,
    published_layout,
    pull_layout,
    rollout_layout,
    sample_layout,
    status_layout,
    weights_layout,
)
from hpcddrl.comm.placement import Place, Role, leaders, place, ranks_of
from hpcddrl.config import ActorCritic, CentralActing, ClippedSurrogate, Config, Ensemble, ParameterServer, Replay
from hpcddrl.networks.flat import TAIL
from hpcddrl.networks.make import make_network
from hpcddrl.roles.counters import COUNTERS, REPORTS_PER_ROW, steppers
from hpcddrl.runtime.parts import published_bytes, rollouts_per_batch
from hpcddrl.types import Array, EnvSpec

FLOAT = 4  # bytes


class Job(NamedTuple):
    """A job before it runs."""

    config: Config  # fitted
    spec: EnvSpec
    places: tuple[Place, ...]
    parameters: int
    published: int  # bytes of what actors are sent, at most

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
        """Return how many other groups each learner hears of."""
        coupled = isinstance(self.config.coupling, Ensemble)
        return (self.config.topology.groups or 1) - 1 if coupled else 0

    @property
    def shard(self) -> int:
        """Return how many of the parameters a server holds, at most."""
        return -(-self.parameters // max(1, self.config.topology.servers))


def job_of(config: Config, spec: EnvSpec) -> Job:
    """Return the job that a fitted configuration makes."""
    network = make_network(config.network, config.algorithm, spec, seed=0)
    parameters = sum(p.numel() for p in network.parameters())
    return Job(config, spec, place(config.topology), parameters, published_bytes(config, spec, parameters))


class Flow(NamedTuple):
    """All messages of one kind in a job, between pairs of ranks that send equally often."""

    kind: str  # a tag's name as in /traffic, or a collective's
    nbytes: int  # of one message
    senders: Array  # [pairs] world ranks
    receivers: Array  # [pairs]
    per_s: float  # messages of each pair
    posted: int = 0  # buffers that a receiver keeps for each of its senders
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
    return float(surrogate.epochs if isinstance(surrogate, ClippedSurrogate) else 1)


def learner_steps_per_s(job: Job, steps_per_s: float) -> float:
    """Return the env steps per second that come to each learner."""
    return steps_per_s * (job.actors / job.learners if job.actors else 1)


def updates_per_s(job: Job, steps_per_s: float) -> float:
    """Return the updates per second of each learner that keeps up."""
    config, steps = job.config, learner_steps_per_s(job, steps_per_s)
    if isinstance(config.experience, Replay):
        return steps * config.experience.replay_ratio / config.experience.batch_size
    assert isinstance(config.algorithm, ActorCritic)
    surrogate, rollouts = config.algorithm.surrogate, rollouts_per_batch(config, job.actors)
    batches = steps / (config.algorithm.unroll_length * config.env.num_envs * rollouts)
    return batches * (surrogate.epochs * surrogate.minibatches if isinstance(surrogate, ClippedSurrogate) else 1)


def flows(job: Job, steps_per_s: float) -> list[Flow]:
    """Return the messages of a job whose learners keep up, those that are sent again and again.

    A learner that is slower slows its actors down, and everything with them. An actor asks for weights once a rollout,
    and gets them if there are newer ones, so there may be fewer of these.
    """
    found = [
        *_experience(job, steps_per_s),
        *_publication(job, steps_per_s),
        *_reduction(job, steps_per_s),
        *_exchange(job, steps_per_s),
        *_statuses(job),
    ]
    return [flow for flow in found if len(flow.senders)]


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
        return [Flow(_name(Tag.ROLLOUT), rollout, *pairs, rate / job.learners, posted=posted, sending=1, most=1)]
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
    coupling, heads = job.config.coupling, np.array(leaders(job.places), np.int64)
    if not isinstance(coupling, Ensemble) or not job.peers:
        return []
    rate = updates_per_s(job, steps_per_s) / coupling.exchange_every
    senders, receivers = _all_pairs(heads.reshape(1, -1), heads.reshape(1, -1))
    others = senders != receivers
    weights, learners = weights_layout(job.parameters).nbytes, job.by_group(Role.LEARNER)
    pairs, told = (senders[others], receivers[others]), _all_pairs(learners[:, :1], learners[:, 1:])
    return [
        Flow(_name(Tag.EXCHANGE), weights, *pairs, rate, posted=2, sending=2, most=job.peers + 1),
        Flow("broadcast", FLOAT * job.parameters, *told, rate * job.peers),
    ]


def _statuses(job: Job) -> list[Flow]:
    senders = np.arange(1, len(job.places))
    rate = REPORTS_PER_ROW / job.config.logging.interval_s
    nbytes = status_layout(len(COUNTERS)).nbytes
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
