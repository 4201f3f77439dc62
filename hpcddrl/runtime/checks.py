"""What can be said about a configuration before there is a job: whether it can be laid out, and run here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from hpcddrl.comm.placement import fit, place
from hpcddrl.compressors.auto import checked_names
from hpcddrl.config import (
    Averaging,
    Config,
    Hindsight,
    NoHindsight,
    Population,
    Pretext,
    Replay,
    RolloutReplay,
    Teacher,
)
from hpcddrl.config.compression import Auto
from hpcddrl.envs.make import probe
from hpcddrl.networks.flat import architecture, size
from hpcddrl.networks.make import AnyNetwork, make_network
from hpcddrl.roles.counters import steppers
from hpcddrl.runtime.parts import columns_per_batch, published_bytes
from hpcddrl.runtime.pretext import task_for
from hpcddrl.runtime.teacher import teacher_network
from hpcddrl.settings import dump, group_config, load
from hpcddrl.types import EnvSpec


def fitted(config: Config, ranks: int) -> Config:
    """Return the configuration with its counts fitted to so many ranks; the rules hold for all of it.

    Raises:
        ValueError: that many cannot be laid out.
    """
    return load(dump(config) | {"topology": asdict(fit(config.topology, ranks))})


def checked(config: Config) -> EnvSpec:
    """Look at the environment and at whether the other parts suit it; pure but for making one of each.

    Args:
        config: fitted.

    Raises:
        ValueError: something does not; in one line.
    """
    spec = probe(config.env)
    kinds = [group_config(config, number) for number in range(max(1, len(config.group_settings)))]
    networks = [make_network(own.network, own.algorithm, spec, seed=0) for own in kinds]
    if isinstance(config.coupling, Averaging | Population) and len(set(map(architecture, networks))) > 1:
        raise ValueError(
            f"coupling.kind = {config.coupling.kind!r} with group_settings: only weights of the same network can be "
            "averaged or taken over; give all groups one, or set coupling=ensemble"
        )
    _check_stages(config, spec, networks)
    network = networks[0]
    parameters = size(network)
    if config.topology.servers > parameters:
        raise ValueError(
            f"topology.servers = {config.topology.servers}: more shards than the network's {parameters:,} weights; "
            "set fewer"
        )
    if isinstance(config.experience, Replay):
        _check_goal(config, spec, config.experience.hindsight, "experience.hindsight")
    if isinstance(config.stages.middle, RolloutReplay):
        _check_goal(config, spec, config.stages.middle.hindsight, "stages.middle.hindsight")
    for own, learned in zip(kinds, networks, strict=True):
        published_bytes(own, spec, size(learned))
        if isinstance(own.compression, Auto):
            checked_names(own.compression, (own.algorithm.unroll_length + 1) * own.env.num_envs)
    if isinstance(config.coupling, Teacher):
        teacher_network(config.coupling.run, spec)
    games_to_step, stepping = len(config.env.ids), len(steppers(place(config.topology)))
    if games_to_step > stepping:
        raise ValueError(
            f"env.id = {config.env.id!r}: {games_to_step} environments for {stepping} ranks that step any; name fewer, "
            "or start more ranks"
        )
    return spec


def _check_goal(config: Config, spec: EnvSpec, hindsight: Hindsight | NoHindsight, where: str) -> None:
    """Look at whether there is a goal where another is to take its place.

    Raises:
        ValueError: there is none.
    """
    if isinstance(hindsight, Hindsight) and not spec.goal:
        raise ValueError(
            f"{where}.kind = {hindsight.kind!r}: {config.env.id} has no goal (no observation, achieved_goal and "
            "desired_goal with compute_reward); name an environment that has one, such as hpcddrl/BitFlip-v0, or set "
            f"{where}=none"
        )


def _check_stages(config: Config, spec: EnvSpec, networks: Sequence[AnyNetwork]) -> None:
    """Look at whether what helps stages suits the environment and the groups' networks.

    Raises:
        ValueError: it does not.
    """
    if isinstance(config.stages.early, Pretext):
        for network in networks:
            task_for(config.stages.early.task, network, spec)
    columns = columns_per_batch(config, config.topology.actors_per_group or 0)
    if isinstance(config.stages.middle, RolloutReplay) and config.stages.middle.capacity < columns:
        raise ValueError(
            f"stages.middle.capacity = {config.stages.middle.capacity}: fewer than the {columns} rollouts of one "
            "environment in a batch; set more"
        )
