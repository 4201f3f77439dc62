"""What acts in the place of the learner's network, and what is published of it, by the axis of compression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from hpcddrl.comm.messages import rollout_layout
from hpcddrl.compressors.auto import Pick, pick
from hpcddrl.compressors.compressed import Blueprint, Compressor, StandIn
from hpcddrl.compressors.cost import cost_of
from hpcddrl.compressors.distillation import likeness_of
from hpcddrl.compressors.make import make_compressor, make_fallback, make_stand_in, name_of, warning_of
from hpcddrl.compressors.report import latencies
from hpcddrl.compressors.xnor_network import XnorStandIn
from hpcddrl.config import CentralActing, Uncompressed
from hpcddrl.config.compression import Auto, Candidate, candidates_of
from hpcddrl.envs.make import games, make
from hpcddrl.logs import checkpoint
from hpcddrl.logs.timing import Phase, Timing
from hpcddrl.networks.device import CPU, answering_on
from hpcddrl.networks.flat import flatten, size
from hpcddrl.networks.held import fill, held
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.networks.shares import AnswersInShares, in_shares
from hpcddrl.roles.compressing import Compressing, Recent
from hpcddrl.roles.counters import counters_for
from hpcddrl.roles.publishing import AsTheyAre, Following, Packing
from hpcddrl.roles.rollouts import Batcher, Collector
from hpcddrl.runtime.parts import answered_at_once, blueprint_of, learns_from_what_acted, states_of
from hpcddrl.runtime.rank import Rank, acting, env_seeds, game_of, network_of, with_precision
from hpcddrl.settings import group_config
from hpcddrl.types import Answer, Array, State

FLOAT = 4  # bytes
REPETITIONS = 7  # of a timing, of which the least counts: other ranks start on the same cores meanwhile
OR = ", or "  # between the names of what may come to act
Unpack = Callable[[Array], None]


class Standing(NamedTuple):
    """What follows a learner's network."""

    packing: Packing
    answer: Answer  # acts, where this learner does


def with_choice(rank: Rank) -> Rank:
    """Return a rank that knows what its group's automatic choice has come to. Collective over the job.

    In each group that leaves the choice, the first rank that chooses actions tries all candidates, on its own
    processors, on the network that the group starts with, while the others wait. Where the run goes on from a
    checkpoint with a choice among them, that stays: students that begin anew would be far behind a network that has
    learned.
    """
    groups = range(rank.job.topology.groups or 1)
    if not any(isinstance(group_config(rank.job, group).compression, Auto) for group in groups):
        return rank
    auto, group = rank.config.compression, rank.place.group
    chosen: Auto | Uncompressed | None = None
    what = "compression auto" + f" of group {group}" * (len(groups) > 1)
    learns_first = rank.comms.world.rank in rank.learners[:1]
    kept = kept_choice(rank.saved, auto) if isinstance(auto, Auto) and learns_first else ()
    if kept:
        rank.lines.append(f"{what}: {_in_order(kept)}, as at the checkpoint; nothing is tried again")
    with rank.control.timing(Phase.WAIT):
        there = {of: found for of, found in rank.comms.world.allgather((group, kept)) if found}
    if isinstance(auto, Auto) and group in there:
        chosen = replace(auto, candidates=there[group])
    elif isinstance(auto, Auto) and _acts_first(rank):
        with rank.control.timing(Phase.COMPRESS):
            picked = _tried(rank, auto)
        chosen = replace(auto, candidates=picked.chosen) if picked.chosen else Uncompressed()
        rank.lines.extend(_table(picked, what))
    with rank.control.timing(Phase.WAIT):
        told = rank.comms.world.allgather((group, chosen))
    of_groups = {of: found for of, found in told if found}
    if not isinstance(auto, Auto) or group is None:
        return rank
    return replace(rank, config=replace(rank.config, compression=of_groups[group]))


def kept_choice(saved: State | None, auto: Auto) -> tuple[Candidate, ...]:
    """Return the candidates that a checkpoint's choice was of, in its order; none unless all can still be chosen."""
    before = (saved or {}).get("compression", {"of": ""})["of"]
    known = {name_of(candidate): candidate for candidate in auto.candidates}
    chosen = tuple(known[name] for name in before.split(OR) if name in known)
    return chosen if chosen and _called(replace(auto, candidates=chosen)) == before else ()


def _called(compression: Candidate | Auto) -> str:
    """Return the names of all that may come to act, in order."""
    return OR.join(name_of(candidate) for candidate in candidates_of(compression))


def standing(rank: Rank, group: int, network: AnyNetwork, values: torch.Tensor) -> Standing:
    """Return what follows this learner's network, whose parameters are ``values`` [P]."""
    config, compression, devices, here = rank.config, rank.config.compression, rank.devices, acts_here(rank)
    if isinstance(compression, Uncompressed):
        whole = AsTheyAre(values)
        if not here or learns_from_what_acted(config):
            return Standing(whole, answering_on(in_shares(network, rank.shares), devices.learner))
        acts = _held(rank, group, devices.inference)
        return Standing(
            Following(whole, partial(fill, acts)), answering_on(in_shares(acts, rank.shares), devices.inference)
        )
    followed = None
    if devices.learner != CPU:  # what is compressed is compressed on cores
        network = _on(rank, group, CPU)
        values = followed = flatten(network).values.copy_(values)
    blueprint = blueprint_of(config, rank.spec, config.seed * 1000 + group)
    compressor = (
        make_fallback(compression, blueprint)
        if isinstance(compression, Auto)
        else make_compressor(compression, blueprint)
    )
    recent = Recent(_first_observations(rank, network), states_of(compression))
    name = _called(compression)
    packing = Compressing(name, compressor, network, recent, likeness_of(network, rank.spec), rank.control)
    remember(rank, packing)
    if here:
        _tune(rank, compressor.stand_in)
    how = "act on the learner" if here else "are published"
    most = "at most " * isinstance(compression, Auto)
    rank.lines.append(f"compression {name}: {most}{packing.nbytes:,} bytes instead of {values.nbytes:,} {how}")
    if isinstance(compressor, Compressor):
        rank.lines.append(f"compression {name}: {_counted(compressor, blueprint)}")
    warnings = [warning_of(candidate, blueprint) for candidate in candidates_of(compression)]
    rank.lines.extend(f"warning: {warning}" for warning in warnings if warning)
    answer = answering(rank, compressor.stand_in)
    return Standing(packing if followed is None else Following(packing, followed.copy_), answer)


def answering(rank: Rank, stand_in: StandIn) -> Answer:
    """Return what answers with a stand-in on this rank: a learner that acts divides a batch as it does its own."""
    return AnswersInShares(stand_in, rank.shares) if acts_here(rank) and rank.shares > 1 else stand_in


def _counted(compressor: Compressor, blueprint: Blueprint) -> str:
    """Return what an answer costs in numbers, whatever the machine, beside what it costs the learner's network."""
    own, full = (cost_of(network, blueprint.spec) for network in (compressor.shape.network, blueprint.build()))
    binary = f" and {own.binary_macs:,} of one bit" * (own.binary_macs > 0)
    return (
        f"{own.parameters:,} parameters instead of {full.parameters:,}, {own.macs:,}{binary} multiply-accumulates an "
        f"observation instead of {full.macs:,}"
    )


def _held(rank: Rank, group: int, device: torch.device) -> AnyNetwork:
    """Return what acts on a device: a group's network in the format that it computes in, so that nothing is cast."""
    network = _on(rank, group, device)
    return held(network, network.precision)


def _on(rank: Rank, group: int, device: torch.device) -> AnyNetwork:
    """Return the network that a group starts with, on a device, computing as is fastest there for what acts."""
    network = network_of(rank, group).to(device)
    with_precision(rank, network, answered_at_once(rank.config, len(rank.actors)), trains=False)
    return network


def remember(rank: Rank, packing: Compressing) -> None:
    """Let checkpoints remember what acts; what they remember of another kind, or of none, is of no use."""
    saved = rank.saved
    if saved is not None and (before := saved.get("compression", {"of": "none"})["of"]) != packing.of:
        rank.lines.append(f"compression was {before} at the checkpoint: {packing.of} begins anew")
        saved.pop("compression", None)
    rank.remember("compression", packing)


def _acts_first(rank: Rank) -> bool:
    """Say whether this rank is the first of its group's that choose actions."""
    first = rank.learners[:1] if acts_here(rank) else rank.actors[:1]
    return rank.comms.world.rank in first


def acts_here(rank: Rank) -> bool:
    """Say whether a learner chooses the actions itself."""
    return isinstance(rank.config.acting, CentralActing) or not rank.actors


def at_once(rank: Rank) -> int:
    """Return how many observations one thread answers at once where actions are chosen: of a learner's, a share."""
    together = answered_at_once(rank.config, len(rank.actors))
    return -(-together // rank.shares) if acts_here(rank) else together


def what_acts(rank: Rank) -> tuple[Answer, int, Unpack]:
    """Return what answers observations on an actor, how many bytes it arrives in, and what takes them."""
    config, group = rank.config, rank.place.group
    if isinstance(config.compression, Uncompressed):
        assert group is not None, "an actor has one"
        network = _held(rank, group, CPU)

        def take(data: Array) -> None:
            fill(network, torch.from_numpy(data.view(np.float32)))

        return network, FLOAT * size(network), take
    stand_in = make_stand_in(config.compression, blueprint_of(config, rank.spec, seed=0))
    nbytes = len(stand_in.pack())
    _tune(rank, stand_in)
    return stand_in, nbytes, stand_in.unpack


def _tune(rank: Rank, stand_in: StandIn) -> None:
    """Let a stand-in answer as is fastest on this rank; say on the first that acts how fast that is.

    Of what was chosen by timing that is said already.
    """
    config = rank.config
    if not config.deterministic:  # a choice by the clock is not repeatable
        dtype = torch.from_numpy(np.empty(0, rank.spec.frame_dtype)).dtype
        observation = torch.zeros(at_once(rank), *rank.spec.observation_shape, dtype=dtype)
        if isinstance(config.compression, Uncompressed | Auto) or not _acts_first(rank):
            stand_in.tune(observation)
        else:
            name, blueprint = name_of(config.compression), blueprint_of(config, rank.spec, seed=0)
            timed = latencies({name: stand_in}, blueprint, blueprint.build(), observation, REPETITIONS, min)
            rank.lines.append(f"compression {name}: {timed[name]}")
    if isinstance(stand_in, XnorStandIn) and stand_in.simulated:
        rank.lines.append(f"compression binary: floats multiply signs on this rank ({stand_in.why_simulated})")


def _tried(rank: Rank, auto: Auto) -> Pick:
    group = rank.place.group
    assert group is not None
    network = network_of(rank, group)
    if rank.saved is not None:
        played = checkpoint.newest_of_all(rank.run.checkpoints(""))
        owner = "server-0000" if rank.config.topology.servers else rank.owner
        if owner in played:  # a group that was added has none
            network.load_state_dict(played[owner].network)
    blueprint = blueprint_of(rank.config, rank.spec, rank.config.seed * 1000 + group)
    return pick(auto, blueprint, network, _first_observations(rank, network)[: states_of(auto)], at_once(rank))


def _table(picked: Pick, what: str) -> list[str]:
    """Return what was measured of each candidate, for the log."""
    lines = [f"{what}: {_in_order(picked.chosen) if picked.chosen else 'nothing is compressed'}"]
    for row in picked.table:
        lines.append(
            f"{what} tried {row.name}: {row.latencies[0]}; KL {row.kl:.2g} nat, "
            f"{row.agreement:.0%} of greedy actions agree; {row.nbytes:,} bytes, {row.cost.macs:,} MACs"
        )
    return lines


def _in_order(chosen: Sequence[Candidate]) -> str:
    first, *others = map(name_of, chosen)
    return f"{first} acts{''.join(f', then {name}' for name in others)}"


def _first_observations(rank: Rank, network: AnyNetwork) -> torch.Tensor:
    """Return what may be seen at first [N, *observation_shape]: something to calibrate the first publication on.

    A rollout of environments made for it, which count for nothing.
    """
    config, stepper = rank.config, rank.actors[0] if rank.actors else rank.comms.world.rank
    unroll_length, num_envs = config.algorithm.unroll_length, config.env.num_envs
    game = next(g for g in games(config.env) if g.id == game_of(config, rank.places, stepper))
    envs = make(game, num_envs, env_seeds(config, rank.places, stepper), config.algorithm.discount, rank.threads)
    collector = Collector(envs, acting(rank, network, stepper), Timing(), counters_for(rank.spec.frame_skip, 1))
    _, rollout = rollout_layout(rank.spec, unroll_length, num_envs).allocate()
    collector.collect(rollout, 0)
    envs.close()
    return Batcher(rank.spec, unroll_length, num_envs, 1)([rollout]).observation.flatten(0, 2)
