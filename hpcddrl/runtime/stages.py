"""From a configuration to what tells and helps a run's stages."""

from __future__ import annotations

from collections.abc import Callable

import torch

from hpcddrl.config import Config, ParameterServer, Pretext, StagesByFrames
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.pretext.decoding import convolutions
from hpcddrl.rl.stages import stage_at
from hpcddrl.roles.pretext import NoPretext, PretextTraining
from hpcddrl.roles.pretext import Pretext as LearnersPretext
from hpcddrl.runtime.pretext import task_for
from hpcddrl.runtime.rank import Rank
from hpcddrl.types import Stage


def exact_stage(config: Config) -> Callable[[float], Stage] | None:
    """Return what tells a deterministic run's stage by the frames behind weights, if stages are told by frames.

    Rank 0 hears of frames when it does; those behind weights are the same in every run.
    """
    detector = config.stages.detector
    if not (config.deterministic and isinstance(detector, StagesByFrames)):
        return None
    shares = 1 if isinstance(config.update, ParameterServer) else config.topology.groups or 1
    return lambda frames: stage_at(frames * shares, detector)


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
