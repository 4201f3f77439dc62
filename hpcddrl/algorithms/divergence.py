"""The term of a loss that draws a policy to what others say."""

from __future__ import annotations

from torch import Tensor

from hpcddrl.rl.losses import masked_mean
from hpcddrl.rl.policies import Policy
from hpcddrl.types import Metrics, Opinion, Targets


def divergence(policy: Policy, own: Tensor, value: Tensor, valid: Tensor, targets: Targets) -> tuple[Tensor, Metrics]:
    """Return mean KL(π_mix ‖ π) over the valid of the rows that others saw, and what is worth logging of it.

    The mixture is a constant, this policy's own part in it too: the gradient is that of −E_mix[log π]. Source: the
    proposal, part 3; Schmitt et al. 2018, where a teacher speaks alone.

    Args:
        policy: the family.
        own: [..., size] π's parameters on those rows.
        value: [...] its values there.
        valid: [...] 0 where a row only reset the environment.
        targets: what others say.
    """
    mixture = targets.mix(Opinion(own.detach(), value.detach()))
    kl = masked_mean(policy.kl(mixture.policy, own), valid)
    return kl, {
        "kl": float(kl.detach()),
        "beta": targets.beta,
        "weight_own": mixture.own_weight,
        "disagreement": float(policy.differ(own.detach(), mixture.policy).float().mean()),
    }
