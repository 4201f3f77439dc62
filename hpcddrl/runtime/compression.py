"""What is published and what acts on one rank, by the axis of compression."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from hpcddrl.comm.messages import rollout_layout
from hpcddrl.compressors.distillation import likeness_of
from hpcddrl.compressors.make import make_compressor, make_stand_in, name_of, warning_of
from hpcddrl.compressors.xnor_network import XnorStandIn
from hpcddrl.config import Uncompressed
from hpcddrl.config.compression import Whole
from hpcddrl.envs.make import games, make
from hpcddrl.logs.timing import Timing
from hpcddrl.networks.flat import size
from hpcddrl.networks.held import fill, held
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.roles.compressing import Compressing, Recent
from hpcddrl.roles.counters import counters_for
from hpcddrl.roles.publishing import AsTheyAre, Packing
from hpcddrl.roles.rollouts import Batcher, Collector
from hpcddrl.runtime.parts import blueprint_of, states_of
from hpcddrl.runtime.rank import Rank, acting, env_seeds, game_of, network_of, with_precision
from hpcddrl.types import Array, Output

FLOAT = 4  # bytes
Answer = Callable[[torch.Tensor], Output]
Unpack = Callable[[Array], None]


def packing(rank: Rank, group: int, network: AnyNetwork, values: torch.Tensor) -> Packing:
    """Return what this learner publishes of its network, whose parameters are ``values`` [P]."""
    config, compression = rank.config, rank.config.compression
    if isinstance(compression, Uncompressed) or not rank.actors:
        return AsTheyAre(values)
    blueprint = blueprint_of(config, rank.spec, config.seed * 1000 + group)
    compressor = make_compressor(compression, blueprint)
    made = Compressing(
        compressor,
        network,
        None if isinstance(compression, Whole) else compression.distillation.trigger,
        Recent(_first_observations(rank, network), states_of(compression)),
        likeness_of(network, rank.spec),
        rank.control,
    )
    rank.lines.append(
        f"compression {name_of(compression)}: {made.nbytes:,} bytes instead of {values.nbytes:,} are published"
    )
    warning = warning_of(compression, blueprint)
    if warning:
        rank.lines.append(f"warning: {warning}")
    return made


def what_acts(rank: Rank) -> tuple[Answer, int, Unpack]:
    """Return what answers observations on an actor, how many bytes it arrives in, and what takes them."""
    config, num_envs = rank.config, rank.config.env.num_envs
    if isinstance(config.compression, Uncompressed):
        learned = network_of(rank, 0)
        with_precision(rank, learned, num_envs, trains=False)
        network = held(learned, learned.precision)

        def take(data: Array) -> None:
            fill(network, torch.from_numpy(data.view(np.float32)))

        return network, FLOAT * size(network), take
    stand_in = make_stand_in(config.compression, blueprint_of(config, rank.spec, seed=0))
    if not config.deterministic:  # a choice by the clock is not repeatable
        dtype = torch.from_numpy(np.empty(0, rank.spec.frame_dtype)).dtype
        stand_in.tune(torch.zeros(num_envs, *rank.spec.observation_shape, dtype=dtype))
    if isinstance(stand_in, XnorStandIn) and stand_in.simulated:
        rank.lines.append(f"compression binary: floats multiply signs on this rank ({stand_in.why_simulated})")
    return stand_in, len(stand_in.pack()), stand_in.unpack


def _first_observations(rank: Rank, network: AnyNetwork) -> torch.Tensor:
    """Return what an actor may see at first [N, *observation_shape]: something to calibrate the first publication on.

    A rollout of environments made for it, which count for nothing.
    """
    config, actor = rank.config, rank.actors[0]
    unroll_length, num_envs = config.algorithm.unroll_length, config.env.num_envs
    game = next(g for g in games(config.env) if g.id == game_of(config, rank.places, actor))
    envs = make(game, num_envs, env_seeds(config, rank.places, actor), config.algorithm.discount, rank.threads)
    collector = Collector(envs, acting(rank, network, actor), Timing(), counters_for(rank.spec.frame_skip, 1))
    _, rollout = rollout_layout(rank.spec, unroll_length, num_envs).allocate()
    collector.collect(rollout, 0)
    envs.close()
    return Batcher(rank.spec, unroll_length, num_envs, 1)([rollout]).observation.flatten(0, 2)
