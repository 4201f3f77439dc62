"""From a configuration to what tells and helps a run's stages."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import ConfigDict, TypeAdapter

from hpcddrl.config import NoDetector, Pretext
from hpcddrl.config.stages import Detector
from hpcddrl.logs.run_dir import RunDirectory
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.pretext.decoding import convolutions
from hpcddrl.rl.stages import State
from hpcddrl.roles.pretext import NoPretext, PretextTraining
from hpcddrl.roles.pretext import Pretext as LearnersPretext
from hpcddrl.roles.stages import Watch
from hpcddrl.runtime.pretext import task_for
from hpcddrl.runtime.rank import Rank

_states: TypeAdapter[State] = TypeAdapter(State, config=ConfigDict(ser_json_inf_nan="constants"))


def watch_of(detector: Detector, run: RunDirectory, say: Callable[[str], None]) -> Watch | None:
    """Make what tells stages, going on from what an earlier segment knew, if stages are told."""
    if isinstance(detector, NoDetector):
        return None
    known = run.stages()
    state = State() if known is None else _states.validate_json(known)
    return Watch(detector, state, say, lambda now: run.write_stages(_states.dump_json(now).decode()))


def pretext_of(rank: Rank, network: AnyNetwork, gradient: torch.Tensor) -> LearnersPretext:
    """Make what a learner's network learns beside rewards; ``gradient`` [P] is the vector of its gradients."""
    config, world = rank.config.stages.early, rank.comms.world
    if not isinstance(config, Pretext):
        return NoPretext()
    seed = rank.config.seed * 1000 + world.rank
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        task = task_for(config.task, network, rank.spec).to(rank.devices.learner)
    picture = rank.run.picture(f"{rank.owner}.png") if rank.place.number == 0 else None
    weights = sum(p.numel() for p in task.parameters())
    rank.lines.append(f"pretext {config.task.kind} with {weights:,} weights of its own")
    return PretextTraining(config, task, convolutions(network.torso), gradient, seed, picture, rank.control)
