"""Actor-critic: policy gradient with value targets from rollouts, corrected or not for the age of the data."""

from __future__ import annotations

import torch
from torch import Tensor

from hpcddrl.algorithms.divergence import divergence
from hpcddrl.config import ActorCritic as ActorCriticConfig
from hpcddrl.config import ClippedSurrogate
from hpcddrl.rl.losses import (
    clipped_surrogate_loss,
    effective_share,
    log_with_floor,
    masked_mean,
    normalised,
    policy_gradient_loss,
    value_loss,
)
from hpcddrl.rl.policies import Policy
from hpcddrl.rl.returns import importance_ratios, value_targets
from hpcddrl.types import Answer, Batch, Learned, Metrics, Output, Targets, Tuning, Weights, side_by_side


class ActorCritic:
    """Computes the gradient of an actor-critic loss.

        L = −mean(ρ A log π) + k_v mean(½ (v − V)²) − k_H mean(H(π)) + β mean(KL(π_mix ‖ π))

    with v, A and ρ from `rl.returns` (Espeholt et al. 2018; with all ratios 1, Mnih et al. 2016), the first term
    possibly a clipped surrogate (Schulman et al. 2017), the last where others have something to say (the proposal,
    part 3; Schmitt et al. 2018). Means are over the valid steps of a batch; the first three weigh rollouts that were
    drawn from a replay by how they were drawn.

    Args:
        config: the coefficients.
        network: whose parameters are learned.
        gradient: [P] the vector that the parameters' gradients are views of.
        policy: the family that the network's outputs parametrise.
        tuning: factor on k_H, read at each batch.
    """

    def __init__(
        self,
        config: ActorCriticConfig,
        network: Answer,
        gradient: Tensor,
        policy: Policy,
        tuning: Tuning | None = None,
    ) -> None:
        self._tuning = tuning or Tuning()
        self._config = config
        self._network = network
        self._gradient = gradient
        self._policy = policy

    def gradients(self, batch: Batch, targets: Targets | None, weights: Weights) -> Learned:
        """See `Algorithm`."""
        c, policy = self._config, self._policy
        params, value = self._outputs(batch)
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
        reward, valid, weight = batch.reward, batch.valid, 1.0 if batch.weight is None else batch.weight
        if not c.learn_from_terminal:  # the step is still where the return of those before it ends
            reward, valid = reward * batch.discount, valid * batch.discount
        goals = value_targets(value=value.detach(), reward=reward, discount=c.discount * batch.discount, ratios=ratios)
        advantage = normalised(goals.advantage, valid) if c.normalise_advantages else goals.advantage
        if isinstance(c.surrogate, ClippedSurrogate):
            policy_term = clipped_surrogate_loss(
                log_pi=log_pi, log_mu=batch.log_mu, advantage=advantage, clip=c.surrogate.clip, valid=valid
            )
        else:
            learned_log_pi = log_with_floor(log_pi) if c.correction == "eps" else log_pi
            policy_term = policy_gradient_loss(
                log_pi=learned_log_pi, advantage=advantage, ratio=ratios.policy * weight, valid=valid
            )
        value_term = value_loss(value=value[:-1], target=goals.target, valid=valid, weight=weight)
        entropy = masked_mean(policy.entropy(params) * weight, valid)
        entropy_coefficient = c.entropy_coefficient * self._tuning.entropy
        loss = policy_term + c.value_coefficient * value_term - entropy_coefficient * entropy
        metrics: Metrics = {}
        if targets is not None:
            rows = targets.rows
            kl, metrics = divergence(policy, params[rows], value[:-1][rows], valid[rows], targets)
            loss = loss + targets.beta * kl
        if c.reduction == "sum":
            loss = loss * valid.sum()

        self._gradient.zero_()
        loss.backward()  # type: ignore[no-untyped-call]
        ratio = torch.exp(log_pi.detach() - batch.log_mu)
        if batch.weight is not None:
            metrics |= {"replay_effective": effective_share(ratio * batch.weight, valid)}
        error = (goals.target - value[:-1].detach()).abs() * valid
        return Learned(
            metrics
            | {
                "loss": float(loss.detach()),
                "policy_loss": float(policy_term.detach()),
                "value_loss": float(value_term.detach()),
                "entropy": float(entropy.detach()),
                "rho_mean": float(masked_mean(ratio, valid)),
                "rho_clipped": float(masked_mean((ratio > c.rho_bar).float(), valid)),
                "value_mean": float(masked_mean(value[:-1].detach(), valid)),
            },
            errors=(error.sum(0) / valid.sum(0).clamp(min=1.0)).cpu().numpy(),
        )

    def _outputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the policy's parameters [T, N, size] and the values [T + 1, N] of a batch's observations."""
        rollouts, _, envs = batch.observation.shape[:3]
        with torch.no_grad():  # the observation after the last step is only where the return ends
            last = self._network(batch.observation[:, -1].flatten(0, 1)).value.unsqueeze(0)
        if batch.output is not None:
            return batch.output.policy, torch.cat([batch.output.value, last])
        output: Output = self._network(batch.observation[:, :-1].flatten(0, 2))
        policy, value = (side_by_side(part, rollouts, envs) for part in output)
        return policy, torch.cat([value, last])
