"""A part of an algorithm of one's own: actions weighed by the exponential of their advantage.

The learner's loop (`hpcddrl/roles/learner.py`) asks an algorithm for one thing: to write the gradient of a batch's loss
into a vector. This one takes V-trace's targets as they are and has another policy term,

    L = −mean(min(exp(A / τ), w) log π) + ½ mean((v − V)²)

(after Peng et al. 2019, arXiv:1910.00177, whose data are from a replay; here they are as fresh as the recipe's).

To make it an answer that recipes and --set know: give it a frozen dataclass with its own ``kind`` in
`hpcddrl/config/algorithm.py`, add that to the union `Algorithm` there, and one ``case`` to `algorithm_for` in
`hpcddrl/runtime/parts.py`. The types then show every other place that has to know of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hpcddrl.networks.policy_value import PolicyValueNetwork
from hpcddrl.rl.losses import masked_mean, value_loss
from hpcddrl.rl.policies import Policy
from hpcddrl.rl.returns import importance_ratios, value_targets
from hpcddrl.types import Batch, Learned, Output, Targets, Weights, side_by_side


def weighted_loss(*, log_pi: Tensor, advantage: Tensor, temperature: float, most: float, valid: Tensor) -> Tensor:
    """Return −mean(min(exp(A / τ), w) log π), the weights constants to the gradient. All [T, B]."""
    weight = torch.exp(advantage / temperature).clamp(max=most).detach()
    return -masked_mean(weight * log_pi, valid)


class AdvantageWeighted:
    """Computes the gradient of that loss; has the interface of `hpcddrl.algorithms.algorithm.Algorithm`.

    Args:
        network: whose parameters are learned.
        gradient: [P] the vector that the parameters' gradients are views of (`hpcddrl.networks.flat.flatten`).
        policy: the family that the network's outputs parametrise.
        temperature: τ.
        most: w, the greatest weight.
        discount: γ.
    """

    def __init__(
        self,
        network: PolicyValueNetwork,
        gradient: Tensor,
        policy: Policy,
        temperature: float = 1.0,
        most: float = 20.0,
        discount: float = 0.99,
    ) -> None:
        self._network, self._gradient, self._policy = network, gradient, policy
        self._temperature, self._most, self._discount = temperature, most, discount

    def gradients(self, batch: Batch, targets: Targets | None, weights: Weights) -> Learned:
        """Write the gradient of a batch's loss to the vector, and tell what is worth logging."""
        assert targets is None, "there is no term for what peers say"
        rollouts, _, envs = batch.observation.shape[:3]
        output: Output = self._network(batch.observation.flatten(0, 2))
        params, value = (side_by_side(x, rollouts, envs) for x in (output.policy, output.value))
        log_pi = self._policy.log_prob(params[:-1], batch.action)
        ratios = importance_ratios(log_pi=log_pi.detach(), log_mu=batch.log_mu, valid=batch.valid, correction="vtrace")
        discount = self._discount * batch.discount
        goals = value_targets(value=value.detach(), reward=batch.reward, discount=discount, ratios=ratios)
        policy_term = weighted_loss(
            log_pi=log_pi, advantage=goals.advantage, temperature=self._temperature, most=self._most, valid=batch.valid
        )
        value_term = value_loss(value=value[:-1], target=goals.target, valid=batch.valid)
        loss = policy_term + value_term
        self._gradient.zero_()
        loss.backward()  # type: ignore[no-untyped-call]
        parts = {"loss": loss, "policy_loss": policy_term, "value_loss": value_term}
        return Learned({name: float(part.detach()) for name, part in parts.items()})
