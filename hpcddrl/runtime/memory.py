"""Whether what is asked for fits in the memory of the machines, before any of it is taken."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from hpcddrl.comm.messages import rollout_layout
from hpcddrl.comm.placement import Place, Role, dealt, ranks_of
from hpcddrl.config import Config, Proportional, QLearning, RankBased, Replay, RolloutReplay, Uniform
from hpcddrl.replay import priorities
from hpcddrl.replay.replay import replay_bytes
from hpcddrl.types import EnvSpec

if TYPE_CHECKING:
    from mpi4py import MPI


def rollouts_bytes(config: Config, spec: EnvSpec, role: Role) -> int:
    """Return the bytes of the rollouts that each rank of a role keeps to learn from again, 0 if none does. Pure."""
    middle = config.stages.middle
    if not isinstance(middle, RolloutReplay) or middle.held_by != role:
        return 0
    return rollout_layout(spec, config.algorithm.unroll_length, middle.capacity).nbytes


def replay_bytes_of(config: Config, spec: EnvSpec, places: tuple[Place, ...], rank: int) -> int:
    """Return the bytes of the replay that a rank will hold, of transitions or of rollouts; 0 if it has none. Pure."""
    if isinstance(config.stages.middle, RolloutReplay):
        return rollouts_bytes(config, spec, places[rank].role)
    if not isinstance(config.experience, Replay) or not isinstance(config.algorithm, QLearning):
        return 0
    me = places[rank]
    holders = Role.REPLAY if config.topology.replays_per_group else Role.LEARNER
    if me.role is not holders:
        return 0
    actors, shares = ranks_of(places, Role.ACTOR, me.group), ranks_of(places, holders, me.group)
    feeders = len(dealt(actors, me.number, len(shares))) if actors else 1
    kinds = {Uniform: priorities.Uniform, Proportional: priorities.Proportional, RankBased: priorities.RankBased}
    kind = kinds[type(config.experience.priorities)]
    streams, n_step = feeders * config.env.num_envs, config.algorithm.n_step
    return replay_bytes(spec, streams, config.experience.capacity, n_step, kind)


def require_memory(world: MPI.Comm, host: str, nbytes: int) -> None:
    """Check that what the ranks of each host ask for fits there. Collective over ``world``.

    Raises:
        ValueError: on every rank alike, with the bytes asked for and those that there are.
    """
    asked: dict[str, int] = {}
    free: dict[str, int] = {}
    for name, wanted, available in world.allgather((host, nbytes, available_bytes())):
        asked[name] = asked.get(name, 0) + wanted
        free[name] = min(free.get(name, available), available)
    for name, wanted in asked.items():
        if wanted > free[name]:
            raise ValueError(
                f"experience.capacity (or stages.middle.capacity): the replays on host {name} take {wanted:,} bytes "
                f"together and {free[name]:,} are free there; set a smaller capacity, or use more hosts"
            )


def available_bytes() -> int:
    """Return the memory that can still be taken here, in bytes: of the machine, or of this job's cgroup if less."""
    available = int(psutil.virtual_memory().available)
    try:
        group = Path("/sys/fs/cgroup")
        most, used = (group / "memory.max").read_text().strip(), (group / "memory.current").read_text()
        return available if most == "max" else min(available, int(most) - int(used))
    except (OSError, ValueError):
        return available
