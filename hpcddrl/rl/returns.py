"""Value targets from rollouts: n-step returns, V-trace, and the corrections between them, as one recursion."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Correction = Literal["none", "eps", "ratio", "vtrace"]


class Ratios(NamedTuple):
    """How much each step counts, [T, B] each; zero on steps that only reset an environment."""

    value: Tensor  # ρ of the temporal differences
    trace: Tensor  # c, times λ
    policy: Tensor  # ρ of the policy gradient


def importance_ratios(
    *,
    log_pi: Tensor,
    log_mu: Tensor,
    valid: Tensor,
    correction: Correction,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
    trace_decay: float = 1.0,
) -> Ratios:
    """Return the ratios that `value_targets` and the policy gradient weigh their steps with.

    With π(a|x)/μ(a|x) = exp(log_pi − log_mu):

    - ``vtrace``: ρ = min(ρ̄, π/μ), c = λ min(c̄, π/μ) (Espeholt et al. 2018, section 4.1);
    - ``ratio``: only the policy gradient is weighed, by min(ρ̄, π/μ) (there "1-step importance sampling"; also the
      proposal's ρ_t);
    - ``none`` and ``eps``: nothing is weighed (``eps`` acts inside the loss, see `log_with_floor`).

    Args:
        log_pi: [T, B] log-probability of the taken actions under the policy being learned.
        log_mu: [T, B] the same under the policy that acted, when it acted.
        valid: [T, B] 0 on steps that only reset an environment.
        correction: which of the above.
        rho_bar: bound on ρ.
        c_bar: bound on c.
        trace_decay: λ.
    """
    one = torch.ones_like(log_pi) * valid
    if correction in ("none", "eps"):
        return Ratios(value=one, trace=trace_decay * one, policy=one)
    ratio = torch.where(valid > 0, torch.exp(log_pi - log_mu), 0.0)  # not a product: 0 · ∞ is no number
    rho = ratio.clamp(max=rho_bar)
    if correction == "ratio":
        return Ratios(value=one, trace=trace_decay * one, policy=rho)
    return Ratios(value=rho, trace=trace_decay * ratio.clamp(max=c_bar), policy=rho)


class ValueTargets(NamedTuple):
    """What the value and the policy learn from, [T, B] each."""

    target: Tensor  # v_t, for the value of observation t
    advantage: Tensor  # r + γ v_{t+1} − V_t, before its ratio


def value_targets(*, value: Tensor, reward: Tensor, discount: Tensor, ratios: Ratios) -> ValueTargets:
    """Return V-trace targets; with all ratios 1 they are n-step returns, with c = λ they are λ-returns.

        v_t = V_t + ρ_t δ_t + γ_t c_t (v_{t+1} − V_{t+1}),   δ_t = r_t + γ_t V_{t+1} − V_t

    A terminated step has γ_t = 0 and so bootstraps from nothing. A truncated one keeps its γ: the next observation
    in the stream is the episode's own last one, and the reset step after it, with ratios 0, has v = V there: the
    step bootstraps from V of its own final observation, and no trace crosses into the next episode.

    Source: Espeholt et al. 2018 (arXiv:1802.01561), equation 1 and remark 1. No gradient flows.

    Args:
        value: [T + 1, B] V of every observation.
        reward: [T, B].
        discount: [T, B] γ (1 − terminated).
        ratios: from `importance_ratios`.
    """
    with torch.no_grad():
        delta = ratios.value * (reward + discount * value[1:] - value[:-1])
        decay = discount * ratios.trace
        correction = torch.zeros_like(value)  # v_t − V_t
        for t in reversed(range(len(reward))):
            correction[t] = delta[t] + decay[t] * correction[t + 1]
        target = value + correction
        advantage = reward + discount * target[1:] - value[:-1]
    return ValueTargets(target=target[:-1], advantage=advantage)
