"""What can be said about a configuration before there is a job: whether it can be laid out, and run here."""

from __future__ import annotations

from dataclasses import asdict

from hpcddrl.comm.placement import fit, place
from hpcddrl.config import Config, Teacher
from hpcddrl.envs.make import probe
from hpcddrl.networks.make import make_network
from hpcddrl.roles.counters import steppers
from hpcddrl.runtime.parts import published_bytes
from hpcddrl.runtime.teacher import teacher_network
from hpcddrl.settings import dump, load
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
    network = make_network(config.network, config.algorithm, spec, seed=0)
    parameters = sum(p.numel() for p in network.parameters())
    if config.topology.servers > parameters:
        raise ValueError(
            f"topology.servers = {config.topology.servers}: more shards than the network's {parameters:,} weights; "
            "set fewer"
        )
    published_bytes(config, spec, parameters)
    if isinstance(config.coupling, Teacher):
        teacher_network(config.coupling.run, spec)
    games_to_step, stepping = len(config.env.ids), len(steppers(place(config.topology)))
    if games_to_step > stepping:
        raise ValueError(
            f"env.id = {config.env.id!r}: {games_to_step} environments for {stepping} ranks that step any; name fewer, "
            "or start more ranks"
        )
    return spec
