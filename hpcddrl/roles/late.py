"""What learners that go on apart in the late stage hear from each other, and the one model that comes of them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hpcddrl.comm.channel import Ending
from hpcddrl.config import Optimization
from hpcddrl.logs.timing import Phase, Timing
from hpcddrl.networks.flat import flatten
from hpcddrl.networks.policy_value import PolicyValueNetwork
from hpcddrl.rl.distillation import student_loss
from hpcddrl.rl.policies import Policy
from hpcddrl.roles.ensemble import EnsemblePeers
from hpcddrl.roles.updates import OptimizerStep, clip
from hpcddrl.types import Batch, Mixture, Opinion, Output, State, Targets, Weights, side_by_side


@dataclass
class Spell:
    """How far a learner is in a late stage, for all its parts to see."""

    number: int = 0  # of late stages so far
    updates: int | None = None  # of its own in this one; None: it is in none
    since: int = 0  # the server's version that this one began with


class OneModel:
    """One network that learns to answer like the ensemble, on the states that its learner comes to.

    L = mean(KL(π_ens ‖ π) + ½ (V − Σ cᵢ Vᵢ)²), as a student learns from its teacher (`rl.distillation`).

    Args:
        network: of the shape that all have.
        policy: the family.
        optimization: of its steps.
        budget_frames: at which a linear schedule ends.
        timing: of this rank.
    """

    def __init__(
        self,
        network: PolicyValueNetwork,
        policy: Policy,
        optimization: Optimization,
        budget_frames: float | None,
        timing: Timing,
    ) -> None:
        self._network, self._policy, self._timing = network, policy, timing
        self._flat, self._most = flatten(network), optimization.max_gradient_norm
        self._step = OptimizerStep(self._flat.values, optimization, budget_frames)
        self.learned = False  # of an ensemble, in this late stage
        self.loss = 0.0

    @property
    def values(self) -> Tensor:
        """Return its weights [P]."""
        return self._flat.values

    def state(self) -> State:
        """See `Stateful`."""
        return {"step": self._step.state(), "learned": self.learned}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self._step.restore(state["step"])
        self.learned = bool(state["learned"])

    def begin(self, weights: Weights) -> None:
        """Begin as these weights."""
        with torch.no_grad():
            self._flat.values.copy_(weights.flat)
        self._step.restart()
        self._step.frames, self.learned = weights.frames, False

    def learn(self, batch: Batch, rows: slice, mixture: Mixture) -> None:
        """Take one step towards a mixture [S, N] on some time steps of a batch's rollouts."""
        assert mixture.value is not None, "an ensemble has one"
        with self._timing(Phase.PEERS):
            observation = batch.observation[:, rows]
            rollouts, _, envs = observation.shape[:3]
            made = self._network(observation.flatten(0, 2))
            student = Output(*(side_by_side(x, rollouts, envs) for x in made))
            teacher = Output(mixture.policy, mixture.value)
            loss = student_loss(policy=self._policy, teacher=teacher, student=student, entropy_coefficient=0.0)
            self._flat.gradient.zero_()
            loss.backward()  # type: ignore[no-untyped-call]
            clip(self._flat.gradient, self._most)
            self._step(self._flat.gradient, 0)
        self.learned, self.loss = True, float(loss.detach())


class LatePeers:
    """The other learners, heard in the late stage only; one of all learners teaches the one model beside.

    Args:
        ensemble: of the learners while they are apart, each a group of its own.
        one: the one model.
        leads: says whether it is this learner that teaches it.
        spell: how far this learner is in a late stage.
    """

    def __init__(self, ensemble: EnsemblePeers, one: OneModel, leads: Callable[[], bool], spell: Spell) -> None:
        self._ensemble, self._one, self._leads, self._spell = ensemble, one, leads, spell
        self._number = 0  # of the late stage that they were last met in

    def state(self) -> State:
        """See `Stateful`."""
        return {"ensemble": self._ensemble.state(), "number": self._number}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self._ensemble.restore(state["ensemble"])
        self._number = int(state["number"])

    def targets(self, batch: Batch, weights: Weights) -> Targets | None:
        """See `Peers`."""
        if self._spell.updates is None:
            return None
        self._ensemble.hear()
        found = self._ensemble.targets(batch, weights)
        if found is None or not self._leads():
            return found
        rows, mix = found.rows, found.mix

        def taught(own: Opinion) -> Mixture:
            mixture = mix(own)
            self._one.learn(batch, rows, mixture)
            return mixture

        return found._replace(mix=taught)

    def exchange(self, weights: Weights) -> None:
        """See `Peers`. Rounds are counted by this learner's updates since it went on alone."""
        if self._spell.updates is None:
            return
        if self._number != self._spell.number:
            self._number = self._spell.number
            self._ensemble.begin_anew()
        if self._spell.updates:  # before the first, all are alike
            self._ensemble.exchange(weights._replace(version=self._spell.updates))

    def end(self) -> Ending:
        """See `Peers`."""
        return self._ensemble.end()
