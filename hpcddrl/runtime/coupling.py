"""From a configuration to what a learner hears from others."""

from __future__ import annotations

from collections.abc import Sequence

from mpi4py import MPI

from hpcddrl.comm.exchange import Exchange
from hpcddrl.comm.partners import neighbours
from hpcddrl.comm.placement import leaders
from hpcddrl.config import (
    Averaging,
    BestGroupMixing,
    BestMixing,
    BetaSchedule,
    ConstantBeta,
    CyclicBeta,
    Ensemble,
    Mixing,
    PlateauBeta,
    Population,
    SoftmaxMixing,
    Teacher,
    UniformMixing,
    WarmUpBeta,
)
from hpcddrl.networks.flat import architecture, size
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.rl.ensemble import best_group_weights, best_weights, climb, softmax_weights, standardised, uniform_weights
from hpcddrl.rl.policies import policy_for
from hpcddrl.roles.averaging import AveragingPeers
from hpcddrl.roles.ensemble import EnsemblePeers, Share
from hpcddrl.roles.meetings import Meetings
from hpcddrl.roles.members import Members
from hpcddrl.roles.mixing import Mixer, Weigh
from hpcddrl.roles.peers import NoPeers, Peers, TeacherPeer
from hpcddrl.roles.plateau import Plateau, Returns
from hpcddrl.roles.population import PopulationPeers
from hpcddrl.runtime.rank import Rank, network_of
from hpcddrl.runtime.teacher import teacher_network

Meeting = Ensemble | Averaging | Population


def peers_of(rank: Rank, group: int, network: AnyNetwork) -> Peers:
    """Make what a learner of a group, with this network, hears from others."""
    config = rank.config
    if isinstance(config.coupling, Teacher):
        teacher = teacher_network(config.coupling.run, rank.spec)
        teacher.to(rank.devices.learner).precision = network.precision
        return TeacherPeer(config.coupling, teacher, rank.control.timing)
    coupling, groups = config.coupling, config.topology.groups or 1
    if groups == 1 or not isinstance(coupling, Meeting):
        return NoPeers()
    meetings = _meetings(rank, coupling, group, network)
    if isinstance(coupling, Averaging):
        return AveragingPeers(meetings)
    if isinstance(coupling, Population):
        return PopulationPeers(coupling, meetings, rank.tuning, rank.job.seed, rank.control)
    schedule = coupling.schedule
    return EnsemblePeers(
        coupling,
        meetings,
        Mixer(policy_for(rank.spec.action), weigh_for(coupling.mixing), groups, group),
        share_for(schedule),
        Plateau(schedule) if isinstance(schedule, PlateauBeta) else None,
        Returns(coupling.mixing.window_frames) if isinstance(coupling.mixing, BestGroupMixing) else None,
        rank.control,
    )


def _meetings(rank: Rank, coupling: Meeting, group: int, network: AnyNetwork) -> Meetings:
    heads = leaders(rank.places)
    assert rank.circle is not None, "a learner has one"
    networks = _networks(rank, len(heads), network)
    return Meetings(
        coupling,
        Members(networks, coupling.q_temperature if isinstance(coupling, Ensemble) else 1.0),
        heads,
        group,
        None if rank.comms.leaders == MPI.COMM_NULL else _exchange(rank, coupling, heads, group, networks),
        rank.circle,
        rank.job.seed,
        rank.job.deterministic,
        rank.control,
    )


def _networks(rank: Rank, groups: int, own: AnyNetwork) -> list[AnyNetwork]:
    """Return a network to ask each group by; groups of the same architecture share one."""
    made: dict[int, AnyNetwork] = {}
    kinds: list[AnyNetwork] = []
    for group in range(max(1, len(rank.job.group_settings))):
        network = network_of(rank, group)
        network.to(rank.devices.learner).precision = own.precision
        kinds.append(made.setdefault(architecture(network), network))
    return [kinds[group % len(kinds)] for group in range(groups)]


def _exchange(
    rank: Rank,
    coupling: Meeting,
    heads: list[int],
    group: int,
    networks: Sequence[AnyNetwork],
) -> Exchange:
    to, by = neighbours(coupling.topology, len(heads), group)
    sizes = [size(network) for network in networks]
    return Exchange(
        rank.comms.world,
        sizes[group],
        architecture(networks[group]),
        [heads[g] for g in to],
        {heads[g]: sizes[g] for g in by},
        rank.traffic,
    )


def weigh_for(mixing: Mixing) -> Weigh:
    """Return what gives members their weights."""
    match mixing:
        case UniformMixing():
            return lambda values, moments, scores: uniform_weights(values)
        case SoftmaxMixing(temperature=T, normalise=False):
            return lambda values, moments, scores: softmax_weights(values, T)
        case SoftmaxMixing(temperature=T):
            return lambda values, moments, scores: softmax_weights(standardised(values, moments), T)
        case BestGroupMixing():
            return lambda values, moments, scores: best_group_weights(values, scores)
        case BestMixing(normalise=False):
            return lambda values, moments, scores: best_weights(values)
        case BestMixing():
            return lambda values, moments, scores: best_weights(standardised(values, moments))


def share_for(schedule: BetaSchedule) -> Share:
    """Return what tells the share of β in force."""
    match schedule:
        case ConstantBeta():
            return lambda frames, levelled, since: 1.0
        case WarmUpBeta(start_frames=start, climb_frames=length):
            return lambda frames, levelled, since: climb(frames, start, length)
        case PlateauBeta(climb_frames=length):
            return lambda frames, levelled, since: 0.0 if levelled is None else climb(frames, levelled, length)
        case CyclicBeta(updates=updates):
            return lambda frames, levelled, since: float(since < updates)
