"""Actor-critic: policy gradient with value targets from rollouts, corrected or not for the age of the data."""

from __future__ import annotations

import torch
from torch import Tensor

from hpcddrl.config import ActorCritic as ActorCriticConfig
from hpcddrl.networks.policy_value import PolicyValueNetwork
from hpcddrl.rl.ensemble import mixture_weights
from hpcddrl.rl.losses import log_with_floor, masked_mean, normalised, policy_gradient_loss, value_loss
from hpcddrl.rl.policies import Policy
from hpcddrl.rl.returns import importance_ratios, value_targets
from hpcddrl.types import Batch, Metrics, Targets, side_by_side


class ActorCritic:
    """Computes the gradient of an actor-critic loss.

        L = −mean(ρ A log π) + k_v mean(½ (v − V)²) − k_H mean(H(π)) + β mean(KL(π_ens ‖ π))

    with v, A and ρ from `rl.returns` (Espeholt et al. 2018; with all ratios 1, Mnih et al. 2016), the last term
    where groups are coupled (the proposal, part 3). Means are over the valid steps of a batch.

    Args:
        config: the coefficients.
        network: whose parameters are learned.
        gradient: [P] the vector that the parameters' gradients are views of.
        policy: the family that the network's outputs parametrise.
    """

    def __init__(
        self, config: ActorCriticConfig, network: PolicyValueNetwork, gradient: Tensor, policy: Policy
    ) -> None:
        self._config = config
        self._network = network
        self._gradient = gradient
        self._policy = policy

    def gradients(self, batch: Batch, targets: Targets | None) -> Metrics:
        """Write the gradient of a batch's loss to the gradient vector; return what is worth logging."""
        c, policy = self._config, self._policy
        rollouts, _, envs = batch.observation.shape[:3]
        output = self._network(batch.observation.flatten(0, 2))
        params = side_by_side(output.policy, rollouts, envs)[:-1]
        value = side_by_side(output.value, rollouts, envs)

        log_pi = policy.log_prob(params, batch.action)
        ratios = importance_ratios(
            log_pi=log_pi.detach(),
            log_mu=batch.log_mu,
            valid=batch.valid,
            correction=c.correction,
            rho_bar=c.rho_bar,
            c_bar=c.c_bar,
            trace_decay=c.trace_decay,
        )
        goals = value_targets(
            value=value.detach(), reward=batch.reward, discount=c.discount * batch.discount, ratios=ratios
        )
        advantage = normalised(goals.advantage, batch.valid) if c.normalise_advantages else goals.advantage
        learned_log_pi = log_with_floor(log_pi) if c.correction == "eps" else log_pi
        policy_term = policy_gradient_loss(
            log_pi=learned_log_pi, advantage=advantage, ratio=ratios.policy, valid=batch.valid
        )
        value_term = value_loss(value=value[:-1], target=goals.target, valid=batch.valid)
        entropy = masked_mean(policy.entropy(params), batch.valid)
        loss = policy_term + c.value_coefficient * value_term - c.entropy_coefficient * entropy
        metrics: Metrics = {}
        if targets is not None:
            kl, metrics = self._ensemble(params, value, batch.valid, targets)
            loss = loss + targets.beta * kl

        self._gradient.zero_()
        loss.backward()  # type: ignore[no-untyped-call]
        ratio = torch.exp(log_pi.detach() - batch.log_mu)
        return metrics | {
            "loss": float(loss.detach()),
            "policy_loss": float(policy_term.detach()),
            "value_loss": float(value_term.detach()),
            "entropy": float(entropy.detach()),
            "rho_mean": float(masked_mean(ratio, batch.valid)),
            "rho_clipped": float(masked_mean((ratio > c.rho_bar).float(), batch.valid)),
            "value_mean": float(masked_mean(value[:-1].detach(), batch.valid)),
        }

    def _ensemble(self, params: Tensor, value: Tensor, valid: Tensor, targets: Targets) -> tuple[Tensor, Metrics]:
        """Return mean KL(π_ens ‖ π) on the rows that the peers saw; π_ens includes this group's own policy."""
        own = params[targets.rows]
        members = torch.stack([own.detach(), *(peer.policy for peer in targets.peers)])
        values = torch.stack([value[:-1][targets.rows].detach(), *(peer.value for peer in targets.peers)])
        weights = mixture_weights(values, targets.temperature)
        ensemble = self._policy.mixture(members, weights)
        kl = masked_mean(self._policy.kl(ensemble, own), valid[targets.rows])
        greedy, greedy_ensemble = self._policy.greedy(own.detach()), self._policy.greedy(ensemble)
        differ = (greedy != greedy_ensemble).float()
        return kl, {
            "kl": float(kl.detach()),
            "weight_own": float(weights[0].mean()),
            "disagreement": float(differ.mean()),
        }
