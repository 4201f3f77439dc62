"""From a configuration to what a learner goes on with when it goes on apart."""

from __future__ import annotations

from typing import NamedTuple

import torch

from hpcddrl.comm.placement import leaders
from hpcddrl.config import LateEnsemble
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.networks.policy_value import PolicyValueNetwork
from hpcddrl.rl.policies import policy_for
from hpcddrl.roles.apart import Alone, Apart
from hpcddrl.roles.late import OneModel, Spell
from hpcddrl.roles.shards import ServerUpdate
from hpcddrl.roles.updates import LocalUpdate, OptimizerStep
from hpcddrl.runtime.rank import Rank, network_of
from hpcddrl.types import Weights


class Late(NamedTuple):
    """A learner's parts of the late ensemble."""

    config: LateEnsemble
    alone: Alone
    spell: Spell

    def update(self, rank: Rank, server: ServerUpdate) -> Apart:
        """Return how its gradients become weights, going on from where it was."""
        return rank.remember("apart", Apart(self.config, server, self.alone, self.spell, rank.control))

    def common(self, weights: Weights) -> torch.Tensor:
        """Return the weights [P] of all learners: its own, or while they are apart the one model's, if it makes it.

        The server takes them over at each round's end, with what they have learned by then.
        """
        return weights.flat if self.spell.updates is None else self.alone.one.values


def late_of(rank: Rank, group: int, network: AnyNetwork, values: torch.Tensor) -> Late | None:
    """Make a learner's parts of the late ensemble over its weights [P]; None without one, or without others."""
    config, workers = rank.config, rank.config.topology.groups or 1
    if not isinstance(config.stages.late, LateEnsemble):
        return None
    if workers == 1:
        rank.lines.append("stages.late.kind = 'ensemble': one learner is no ensemble, so it goes on with the server")
        return None
    one = network_of(rank, group)
    one.to(rank.devices.learner).precision = network.precision
    assert isinstance(one, PolicyValueNetwork), "checked when the configuration was made"
    optimization, timing, world = config.optimization, rank.control.timing, rank.comms.world
    step = OptimizerStep(values, optimization, config.budget.frames, 1, rank.tuning)
    heads = leaders(rank.places)
    alone = Alone(
        step=step,
        local=LocalUpdate(step, optimization, timing),
        one=OneModel(one, policy_for(rank.spec.action), optimization, config.budget.frames, timing),
        leads=lambda: next(head for head in heads if head not in world.gone) == world.rank,
        tuning=rank.tuning,
        entropy=config.stages.late.entropy_of(group, workers),
        workers=workers,
    )
    return Late(config.stages.late, alone, Spell())
