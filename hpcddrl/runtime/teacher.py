"""The policy of another run, to learn from."""

from __future__ import annotations

from pathlib import Path

from hpcddrl.logs import checkpoint
from hpcddrl.logs.run_dir import RunDirectory
from hpcddrl.networks.make import make_network
from hpcddrl.networks.policy_value import PolicyValueNetwork
from hpcddrl.types import EnvSpec


def teacher_network(path: str | None, spec: EnvSpec) -> PolicyValueNetwork:
    """Return the network of a run's first owner (group or server) at its newest checkpoint.

    Raises:
        ValueError: no path, no run or no checkpoint there, or a network for other observations or actions.
    """
    if path is None:
        raise ValueError(
            "coupling.run is not set: a teacher is the directory of a run; --set coupling.run=runs/TEACHER"
        )
    run = RunDirectory(Path(path))
    run.config()
    owner, saved = next(iter(checkpoint.newest_of_all(run.checkpoints("")).items()), ("group-0000", None))
    config = run.config_of(owner)
    if config.algorithm.kind != "actor_critic":
        raise ValueError(
            f"coupling.run = {path!r}: a run of {config.recipe}, whose network has no policy; name a run of "
            "algorithm actor_critic"
        )
    if saved is None:
        raise ValueError(f"coupling.run = {path!r}: has no checkpoint; let the teacher's run reach one")
    network = make_network(config.network, config.algorithm, spec, seed=0)
    assert isinstance(network, PolicyValueNetwork)
    try:
        network.load_state_dict(saved.network)
    except RuntimeError as error:
        raise ValueError(
            f"coupling.run = {path!r}: learned {config.env.id}, whose observations or actions are not those of "
            "this run's environment; name a teacher of the same"
        ) from error
    return network
