"""One network from an ensemble, after a run: what it does, at the cost of a single member."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from hpcddrl.config import Config
from hpcddrl.networks.q_value import QNetwork
from hpcddrl.rl.ensemble import Moments, no_moments, updated_moments
from hpcddrl.rl.policies import Policy
from hpcddrl.roles.acting import LocalPolicy
from hpcddrl.runtime.evaluation import environments_for, played
from hpcddrl.runtime.export import EnsembleNetwork, Group, Outputs, PolicyNetwork

ENVS, STEPS = 16, 16  # a batch: so many steps of so many environments
DECAY = 0.99  # of the moments, a batch


def visited(config: Config, network: PolicyNetwork, policy: Policy, seed: int) -> Iterator[Tensor]:
    """Yield batches of observations [STEPS · ENVS, …] that a network comes to, as it is when it acts."""
    envs = environments_for(config, ENVS, seed)
    steps = played(envs, LocalPolicy(Outputs(network), policy, seed), ENVS)
    try:
        while True:
            yield torch.from_numpy(np.concatenate([seen for seen, _ in itertools.islice(steps, STEPS)]))
    finally:
        envs.close()


def moments_of(config: Config, groups: list[Group], policy: Policy, batches: int, seed: int) -> Moments:
    """Return the moments of each group's values on states that the groups come to, each the same number of times."""
    moments = no_moments(len(groups))
    for group in groups:
        for observation in itertools.islice(visited(config, group.network, policy, seed), batches):
            with torch.no_grad():
                values = torch.stack([member.network(observation)[1] for member in groups])
            moments = updated_moments(moments, range(len(groups)), values, DECAY)
    return moments


def distil(
    teacher: EnsembleNetwork,
    student: PolicyNetwork,
    policy: Policy,
    config: Config,
    updates: int,
    seed: int,
    learning_rate: float = 3e-4,
) -> list[float]:
    """Let a student become what an ensemble is, on states that the student itself comes to; return each update's KL.

        L = mean KL(π_ens ‖ π) + ½ mean (V_ens − V)²

    Source: Rusu et al. 2016, policy distillation, with the on-policy states of Ross et al. 2011 (DAgger). Action values
    are learned from the first term alone: their greatest is no value of a mixture.
    """
    optimizer = torch.optim.Adam(student.parameters(), learning_rate)
    with_value = not isinstance(student.network, QNetwork)
    divergences = []
    for observation in itertools.islice(visited(config, student, policy, seed), updates):
        with torch.no_grad():
            wanted, value_wanted = teacher(observation)
        params, value = student(observation)
        kl = policy.kl(wanted, params).mean()
        loss = kl + 0.5 * (value_wanted - value).square().mean() if with_value else kl
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        divergences.append(float(kl.detach()))
    return divergences
