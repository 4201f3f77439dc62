"""From a configuration to a pretext task."""

from __future__ import annotations

import numpy as np
from torch import nn

from hpcddrl.config.helpers import Autoencoder, NextFrame, ObjectProposals, PretextTask, Segmentation
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.pretext import tasks
from hpcddrl.pretext.decoding import convolutions
from hpcddrl.types import Discrete, EnvSpec


def task_for(config: PretextTask, network: AnyNetwork, spec: EnvSpec) -> nn.Module:
    """Make a task for a network's torso.

    Raises:
        ValueError: it cannot be set for these observations, actions or torso.
    """
    name = f"stages.early.task.kind = {config.kind!r}"
    if spec.is_image and spec.frame_dtype != np.uint8:
        raise ValueError(
            f"{name}: needs images of uint8, the environment's are {spec.frame_dtype}; set stages.early=none"
        )
    shape = spec.observation_shape
    try:
        tasks.require_two_frames(shape, shape[0] // spec.frame_stack)
        return _task(config, convolutions(network.torso), spec)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _task(config: PretextTask, body: nn.Sequential, spec: EnvSpec) -> nn.Module:
    shape = spec.observation_shape
    channels = shape[0] // spec.frame_stack
    match config:
        case Autoencoder(weighting="attention"):
            return tasks.AttentiveAutoencoder(body, shape, channels)
        case Autoencoder(weighting=weighting):
            return tasks.Autoencoder(body, shape, channels, _weighting(weighting))
        case NextFrame(weighting=weighting):
            if not isinstance(spec.action, Discrete):
                raise ValueError("needs a choice among actions, the environment takes vectors; take another task")
            return tasks.NextFrame(body, shape, channels, spec.action.num_actions, _weighting(weighting))
        case Segmentation():
            return tasks.Segmentation(body, shape, channels)
        case ObjectProposals(points=points, weighting=weighting):
            return tasks.ObjectProposals(body, shape, channels, points, _weighting(weighting))


def _weighting(name: str) -> tasks.Weighting:
    return tasks.by_motion if name == "motion" else tasks.evenly
