"""Coupling: what others say of a learner's batch."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from hpcddrl.comm.channel import Ending
from hpcddrl.config import Teacher
from hpcddrl.logs.timing import Phase, Timing
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.networks.policy_value import PolicyValueNetwork
from hpcddrl.networks.q_value import QNetwork
from hpcddrl.types import Batch, Mixture, Opinion, Output, Targets, Transitions, Weights, side_by_side


class Peers(Protocol):
    """The others, as seen by a learner."""

    def targets(self, batch: Any, weights: Weights) -> Targets | None:
        """Return what they say of a batch, or None; ``weights`` are the learner's."""

    def exchange(self, weights: Weights) -> None:
        """Tell them of new weights and take theirs, when it is time."""

    def end(self) -> Ending:
        """Part from them; return what is still to come."""


class NoPeers:
    """Groups that tell each other nothing."""

    def targets(self, batch: Any, weights: Weights) -> None:
        """See `Peers`."""

    def exchange(self, weights: Weights) -> None:
        """See `Peers`."""

    def end(self) -> Ending:
        """See `Peers`."""
        return Ending()


def opinion(network: AnyNetwork, batch: Batch | Transitions, rows: slice, q_temperature: float = 1.0) -> Opinion:
    """Return what a network thinks of some time steps of rollouts, or of some transitions.

    Action values stand for the policy softmax(Q / τ), whose value is max Q.
    """
    with torch.no_grad():
        if isinstance(batch, Transitions):
            output: Output = network(batch.observation[rows])
        else:
            observation = batch.observation[:, rows]
            rollouts, _, envs = observation.shape[:3]
            output = Output(*(side_by_side(x, rollouts, envs) for x in network(observation.flatten(0, 2))))
    policy = output.policy / q_temperature if isinstance(network, QNetwork) else output.policy
    return Opinion(policy, output.value)


class TeacherPeer:
    """A policy that was learned before, and counts for less and less: β falls linearly to 0 (Schmitt et al. 2018).

    Args:
        config: of the teacher.
        network: the teacher's.
        timing: of this rank.
    """

    def __init__(self, config: Teacher, network: PolicyValueNetwork, timing: Timing) -> None:
        self._config, self._network, self._timing = config, network.requires_grad_(False), timing

    def targets(self, batch: Batch, weights: Weights) -> Targets | None:
        """See `Peers`: every time step, while it counts."""
        beta = self._config.beta * max(0.0, 1.0 - weights.frames / self._config.anneal_frames)
        if beta == 0:
            return None
        rows = slice(len(batch.action))
        with self._timing(Phase.PEERS):
            taught = Mixture(opinion(self._network, batch, rows).policy)
        return Targets(rows, beta, lambda own: taught)

    def exchange(self, weights: Weights) -> None:
        """See `Peers`."""

    def end(self) -> Ending:
        """See `Peers`."""
        return Ending()
