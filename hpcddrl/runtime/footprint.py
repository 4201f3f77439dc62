"""What each role of a job will hold in memory, part by part, before there is a job.

Pure, and without MPI. Each part is counted at the rank of the role that holds most of it. Not counted: the
interpreter with its libraries, MPI's own buffers, and what the environments hold.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
import torch

from hpcddrl.comm.messages import rollout_layout, sample_layout
from hpcddrl.comm.placement import Role, ranks_of
from hpcddrl.compressors.make import shape_parameters
from hpcddrl.config import (
    AdaGrad,
    Adam,
    AdaptiveCompensation,
    CentralActing,
    LateEnsemble,
    NoCompensation,
    ParameterServer,
    Pretext,
    QLearning,
    Replay,
    RMSProp,
    Teacher,
    Uncompressed,
)
from hpcddrl.config.compression import Auto, Candidate, Whole, candidates_of
from hpcddrl.networks.flat import flatten, size
from hpcddrl.networks.make import make_network
from hpcddrl.runtime.memory import replay_bytes_of
from hpcddrl.runtime.parts import (
    blueprint_of,
    learns_from_what_acted,
    most_rollouts,
    samples_per_batch,
    states_of,
)
from hpcddrl.runtime.plan import FLOAT, Flow, Job
from hpcddrl.runtime.pretext import task_for
from hpcddrl.runtime.teacher import teacher_network


class Part(NamedTuple):
    """Something that a rank holds one or several of."""

    what: str
    nbytes: int  # of each
    number: int = 1
    most: int = 0  # at most, if that is more than as a rule

    @property
    def total(self) -> int:
        """Return the bytes of all."""
        return self.nbytes * self.number

    @property
    def at_most(self) -> int:
        """Return the bytes of as many as there can be."""
        return self.nbytes * max(self.number, self.most)


def footprint(job: Job, flows: list[Flow]) -> dict[Role, list[Part]]:
    """Return the parts that a rank of each role holds."""
    own = {Role.SERVER: _server, Role.LEARNER: _learner, Role.REPLAY: _replay, Role.ACTOR: _actor}
    roles = dict.fromkeys(place.role for place in job.places)
    found = {role: [own[role](kind) + _buffers(kind, flows, role) for kind in job.kinds] for role in roles}
    return {role: [part for part in max(of_kinds, key=_total) if part.total] for role, of_kinds in found.items()}


def _total(parts: list[Part]) -> int:
    return sum(part.total for part in parts)


class Host(NamedTuple):
    """Hosts whose ranks have the same roles."""

    hosts: int
    ranks: dict[Role, int]  # on each
    nbytes: int  # on each


def hosts(job: Job, parts: dict[Role, list[Part]], base: int, ranks_per_host: int) -> list[Host]:
    """Return what hosts hold that take so many neighbouring ranks each, when each rank has ``base`` bytes anyway."""
    held = {role: base + sum(part.total for part in mine) for role, mine in parts.items()}
    kinds: Counter[tuple[tuple[Role, int], ...]] = Counter()
    for first in range(0, len(job.places), ranks_per_host):
        roles = Counter(place.role for place in job.places[first : first + ranks_per_host])
        kinds[tuple(sorted(roles.items()))] += 1
    found = [Host(n, dict(kind), sum(held[role] * count for role, count in kind)) for kind, n in kinds.items()]
    return sorted(found, key=lambda host: -host.nbytes)


def optimizer_vectors(method: RMSProp | Adam | AdaGrad) -> int:
    """Return how many vectors of the weights' length an optimizer keeps."""
    match method:
        case RMSProp(momentum=momentum, centered=centered):
            return 1 + (momentum > 0) + centered
        case Adam():
            return 2
        case AdaGrad():
            return 1


def activation_bytes(job: Job) -> int:
    """Return what the network keeps for the backward pass of each observation, in fp32."""
    network = make_network(job.config.network, job.config.algorithm, job.spec, seed=0)
    dtype = torch.uint8 if job.spec.frame_dtype == np.uint8 else torch.float32
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(torch.zeros(1, *job.spec.observation_shape, dtype=dtype))
    del output
    return sum(kept.values())


def _server(job: Job) -> list[Part]:
    config, shard = job.config, FLOAT * job.shard
    assert isinstance(config.update, ParameterServer)
    return [
        Part("network: weights and gradients", FLOAT * job.parameters, 2),
        Part("optimizer's vectors", shard, optimizer_vectors(config.optimization.method)),
        Part("backups of the weights", shard, _backups(job)),
        Part("running mean square", shard, int(isinstance(config.update.compensation, AdaptiveCompensation))),
        _held(job, Role.SERVER),
    ]


def _backups(job: Job) -> int:
    assert isinstance(job.config.update, ParameterServer)
    compensates = not isinstance(job.config.update.compensation, NoCompensation)
    return job.by_group(Role.LEARNER).size if compensates else 0


def _acts_with_a_copy(job: Job) -> bool:
    config = job.config
    here = isinstance(config.acting, CentralActing) or not job.actors
    return here and isinstance(config.compression, Uncompressed) and not learns_from_what_acted(config)


def _learner(job: Job) -> list[Part]:
    config, spec, weights = job.config, job.spec, FLOAT * job.parameters
    learns_here = not isinstance(config.update, ParameterServer)
    own_rollouts = max(1, job.actors) if isinstance(config.acting, CentralActing) else int(not job.actors)
    rollout = rollout_layout(spec, config.algorithm.unroll_length, config.env.num_envs).nbytes
    return [
        Part("network: weights and gradients", weights, 2),
        Part("network that acts", weights, _acts_with_a_copy(job)),
        Part("optimizer's vectors", weights, learns_here * optimizer_vectors(config.optimization.method)),
        Part("target network", weights, 2 * isinstance(config.algorithm, QLearning)),
        Part("peers' weights", FLOAT * max(job.sizes), job.peers),
        Part("peers' network", FLOAT * max(job.sizes), len(set(job.sizes)) * (job.peers > 0)),
        *_late(job),
        *_teacher(job),
        *_pretext(job),
        *_compression(job),
        Part("activations of an observation", activation_bytes(job), samples_per_batch(config, job.actors)),
        *_batch(job),
        Part("rollouts written here", rollout, own_rollouts),
        _held(job, Role.LEARNER),
    ]


def _teacher(job: Job) -> list[Part]:
    if not isinstance(job.config.coupling, Teacher):
        return []
    network = teacher_network(job.config.coupling.run, job.spec)
    return [Part("teacher's network", flatten(network).values.nbytes)]


def _late(job: Job) -> list[Part]:
    """Return what a learner goes on with apart from the server, beside its peers."""
    if not isinstance(job.config.stages.late, LateEnsemble) or not job.peers:
        return []
    vectors = optimizer_vectors(job.config.optimization.method)
    return [
        Part("own optimizer's vectors", FLOAT * job.parameters, vectors),
        Part("the one model: weights, gradients and optimizer's vectors", FLOAT * job.parameters, 2 + vectors),
    ]


def _pretext(job: Job) -> list[Part]:
    early = job.config.stages.early
    if not isinstance(early, Pretext):
        return []
    network = make_network(job.config.network, job.config.algorithm, job.spec, seed=0)
    task = task_for(early.task, network, job.spec)
    return [Part("pretext task: weights, gradients and Adam's vectors", FLOAT * size(task), 4)]


def _batch(job: Job) -> list[Part]:
    """Return what a learner learns from at a time."""
    config, spec = job.config, job.spec
    if isinstance(config.experience, Replay):
        here = not job.by_group(Role.REPLAY).size  # else it is learned from in the message
        return [Part("sample", sample_layout(spec, config.experience.batch_size).nbytes, int(here))]
    observation = int(np.prod(spec.observation_shape)) * np.dtype(spec.frame_dtype).itemsize
    observations = (config.algorithm.unroll_length + 1) * config.env.num_envs
    return [Part("batch: observations of a rollout", observation * observations, most_rollouts(config, job.actors))]


def _replay(job: Job) -> list[Part]:
    return [_held(job, Role.REPLAY)]


def _held(job: Job, role: Role) -> Part:
    """Return the replay that the first rank of a role holds, if any: no other has more streams."""
    return Part("replay", replay_bytes_of(job.config, job.spec, job.places, ranks_of(job.places, role)[0]))


def _actor(job: Job) -> list[Part]:
    if isinstance(job.config.acting, CentralActing):
        return []
    if isinstance(job.config.compression, Uncompressed):
        return [Part("network: weights and gradients", FLOAT * job.parameters, 2)]
    return [
        Part("stand-in: weights of its shape", FLOAT * sum(_shapes(job, job.config.compression))),
        Part("stand-in: what was published", job.published),
    ]


def _compression(job: Job) -> list[Part]:
    """Return what a learner keeps for something else to act than its weights."""
    compression = job.config.compression
    if isinstance(compression, Uncompressed):
        return []
    observation = int(np.prod(job.spec.observation_shape)) * np.dtype(job.spec.frame_dtype).itemsize
    shapes = _shapes(job, compression)
    copies = [1 if isinstance(candidate, Whole) else 4 for candidate in candidates_of(compression)]
    beside = any(not isinstance(c, Whole) and c.distillation.beside for c in candidates_of(compression))
    return [
        Part("compression: recent observations", observation, states_of(compression) * (1 + beside)),
        Part("compression: the teacher's weights and gradients in its thread", FLOAT * job.parameters, 2 * beside),
        Part("students: weights, gradients and Adam's vectors", FLOAT * int(np.dot(shapes, copies))),
        Part("stand-in: weights of its shape", FLOAT * sum(shapes)),
        Part("stand-in: what is packed of it", job.published),
    ]


def _shapes(job: Job, compression: Candidate | Auto) -> list[int]:
    """Return the parameters of the float network behind each that may come to act."""
    blueprint = blueprint_of(job.config, job.spec, seed=0)
    return [shape_parameters(candidate, blueprint) for candidate in candidates_of(compression)]


def _buffers(job: Job, flows: list[Flow], role: Role) -> list[Part]:
    """Return the buffers of messages, received and sent, at the rank of a role with the most."""
    ranks = [
        rank
        for rank, place in enumerate(job.places)
        if place.role is role and (place.group or 0) % job.among == job.group
    ]
    parts: list[Part] = []
    if not ranks:
        return parts
    for flow in flows:
        received = np.bincount(flow.receivers, minlength=len(job.places))[ranks].max() * (flow.posted + flow.announced)
        sends = bool(np.isin(ranks, flow.senders).any())
        parts.append(Part(f"{flow.kind} received", flow.nbytes, int(received)))
        parts.append(Part(f"{flow.kind} sent", flow.nbytes, sends * flow.sending, sends * flow.most))
    return parts
