"""Q-learning: towards bootstrapped targets by older weights, from replayed transitions."""

from __future__ import annotations

import torch
from torch import Tensor

from hpcddrl.algorithms.divergence import divergence
from hpcddrl.config import QLearning as QLearningConfig
from hpcddrl.networks.flat import flatten
from hpcddrl.networks.q_value import QNetwork
from hpcddrl.rl.policies import Categorical
from hpcddrl.rl.q_targets import huber, q_targets
from hpcddrl.types import Answer, Learned, Metrics, Output, State, Targets, Transitions, Weights


class QLearning:
    """Computes the gradient of a Q-learning loss.

        L = mean(w · huber(y − Q(x, a))) + β mean(KL(π_mix ‖ softmax(Q / τ))),   y = R + γᵐ Q⁻(x', a*)

    with n-step returns R, importance weights w of a prioritised replay (Schaul et al. 2015), and Q⁻ by target weights
    that are copied every ``target_every`` updates (Mnih et al. 2015). The last term is there where others have
    something to say; τ is from Rusu et al. 2016, policy distillation.

    Args:
        config: the choices.
        network: whose parameters are learned.
        target: of the same shape; its parameters are the target weights.
        gradient: [P] the vector that the network's gradients are views of.
        temperature: τ, where others are listened to.
    """

    def __init__(
        self, config: QLearningConfig, network: Answer, target: QNetwork, gradient: Tensor, temperature: float = 1.0
    ) -> None:
        self._config, self._network, self._target, self._gradient = config, network, target, gradient
        self._temperature = temperature
        self._target_values = flatten(target).values
        self._copied: int | None = None  # the version of the target weights

    def state(self) -> State:
        """See `Stateful`: the target weights."""
        return {"target": self._target_values, "copied": self._copied}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self._target_values.copy_(state["target"])
        self._copied = state["copied"]

    def gradients(self, batch: Transitions, targets: Targets | None, weights: Weights) -> Learned:
        """See `Algorithm`."""
        self._renew_target(weights)
        c = self._config
        with torch.no_grad():
            next_target: Output = self._target(batch.next_observation)
            next_own: Output = self._network(batch.next_observation) if c.double else next_target
        y = q_targets(
            reward=batch.reward,
            discount=batch.discount,
            next_q=next_own.policy,
            next_target_q=next_target.policy,
            double=c.double,
        )
        output: Output = self._network(batch.observation)
        q = output.policy
        taken = q.gather(-1, batch.action.unsqueeze(-1)).squeeze(-1)
        errors = y - taken
        loss = (batch.weight * huber(errors, c.huber)).mean()
        metrics: Metrics = {}
        if targets is not None:
            rows, policy = targets.rows, Categorical(q.shape[-1])
            own, value = q[rows] / self._temperature, output.value[rows]
            kl, metrics = divergence(policy, own, value, torch.ones_like(value), targets)
            loss = loss + targets.beta * kl
        self._gradient.zero_()
        loss.backward()  # type: ignore[no-untyped-call]
        found = errors.detach()
        return Learned(
            metrics
            | {
                "loss": float(loss.detach()),
                "td_error": float(found.abs().mean()),
                "value_mean": float(taken.detach().mean()),
                "weight_mean": float(batch.weight.mean()),
            },
            found.cpu().numpy(),
        )

    def _renew_target(self, weights: Weights) -> None:
        if self._copied is None or weights.version - self._copied >= self._config.target_every:
            self._target_values.copy_(weights.flat)
            self._copied = weights.version
