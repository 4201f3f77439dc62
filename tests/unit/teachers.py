"""Teachers with something to say, and states to say it of; shared by the tests of compressors."""

import numpy as np
import torch

from hpcddrl.compressors.compressed import Blueprint
from hpcddrl.compressors.distillation import likeness_of
from hpcddrl.config import ActorCritic, Network, QLearning
from hpcddrl.types import Continuous, Discrete, EnvSpec

IMAGE = EnvSpec((84, 84), np.dtype(np.uint8), 4, Discrete(6), 4)
SMALL = EnvSpec((42, 42), np.dtype(np.uint8), 2, Discrete(3), 1)
VECTOR = EnvSpec((5,), np.dtype(np.float32), 1, Discrete(3), 1)
BOX = EnvSpec((5,), np.dtype(np.float32), 1, Continuous(-np.ones(2, np.float32), np.ones(2, np.float32)), frame_skip=1)

KINDS = {  # every torso, every head
    "mlp on vectors": (VECTOR, "mlp", ActorCritic()),
    "mlp, Gaussian": (BOX, "mlp", ActorCritic()),
    "mlp on images": (SMALL, "mlp", ActorCritic()),
    "nips": (SMALL, "nips", ActorCritic()),
    "nature, Q": (SMALL, "nature", QLearning(dueling=True)),
    "resnet": (SMALL, "resnet", ActorCritic()),
}


def blueprint_of(kind, width=0.5):
    spec, torso, algorithm = KINDS[kind]
    return Blueprint(Network(torso=torso, width=width), algorithm, spec, seed=1)


def teacher_of(blueprint, seed=0):
    """Return a network whose parameters are all random: no zeros, no heads that start near uniform."""
    teacher = blueprint.build()
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in teacher.parameters():
            spread = 0.1 if p.dim() == 1 else 1.2 / p[0].numel() ** 0.5
            p.copy_(spread * torch.randn(p.shape, generator=g))
    return teacher


def states_of(spec, count=32, seed=0):
    g = torch.Generator().manual_seed(seed)
    if spec.frame_dtype == np.uint8:
        return torch.randint(0, 256, (count, *spec.observation_shape), dtype=torch.uint8, generator=g)
    return torch.randn(count, *spec.observation_shape, generator=g)


@torch.no_grad()
def kl_between(teacher, other, states, spec):
    """Return mean KL(teacher ‖ other) over states."""
    return float(likeness_of(teacher, spec).kl(teacher(states), other(states)).mean())


def size_of(network):
    return sum(p.numel() for p in network.parameters())
