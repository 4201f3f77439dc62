"""Mixing the groups' opinions into one policy, and keeping an account of who counted for how much."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from hpcddrl.rl.diversity import between_others, pairwise_disagreement, pairwise_divergence
from hpcddrl.rl.ensemble import Moments, no_moments, updated_moments
from hpcddrl.rl.policies import Policy
from hpcddrl.types import Array, Mixture, Opinion, State

DECAY = 0.99  # of the moments, a batch
Weigh = Callable[[Tensor, Moments, Tensor], Tensor]  # the members' values [members, ...], moments, scores -> weights c


class Account:
    """What was seen since the last exchange: weights, divergences and disagreement of each group; NaN if not asked."""

    def __init__(self, groups: int) -> None:
        self._sums, self._batches = np.zeros(groups), np.zeros(groups)
        self.divergence = self.disagreement = np.nan  # mean over all pairs
        self.kl = np.nan  # KL(ensemble ‖ this group's policy)
        self.from_own = np.full(groups, np.nan)  # KL(its policy ‖ this group's)
        self.differs = np.full(groups, np.nan)  # share of states where it would act differently

    def state(self) -> State:
        """See `Stateful`."""
        return {name.removeprefix("_"): value for name, value in vars(self).items()}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        for name in list(vars(self)):
            value = state[name.removeprefix("_")]
            setattr(self, name, value.copy() if isinstance(value, np.ndarray) else value)

    @property
    def weights(self) -> Array:
        """Return each group's mean weight c [groups] where it was asked."""
        return np.divide(self._sums, self._batches, where=self._batches > 0, out=np.full_like(self._sums, np.nan))

    @property
    def measured(self) -> bool:
        """Say whether divergence and disagreement are there."""
        return not np.isnan(self.divergence)

    def weigh(self, members: Sequence[int], weights: Tensor) -> None:
        """Note the weights [members, ...] of one batch."""
        self._sums[members] += weights.flatten(1).mean(1).cpu().numpy()
        self._batches[members] += 1

    def measure(self, members: Sequence[int], policy: Policy, policies: Tensor, mixture: Tensor) -> None:
        """Note how different the members' policies are, of which the first is this group's."""
        self.kl = float(policy.kl(mixture, policies[0]).mean())
        divergence, differ = pairwise_divergence(policy, policies), pairwise_disagreement(policy, policies)
        self.divergence, self.disagreement = between_others(divergence), between_others(differ)
        self.from_own[members], self.differs[members] = divergence[:, 0].cpu().numpy(), differ[:, 0].cpu().numpy()


class Mixer:
    """Mixes this group's opinion and others' into π_ens.

    Values are weighed by moments and scores that all learners of a group agree on at each exchange; what a learner has
    seen since stays aside until then, and so every learner's loss uses the same ensemble.

    Args:
        policy: the family.
        weigh: from values to c.
        groups: of the job.
        group: this one.
    """

    def __init__(self, policy: Policy, weigh: Weigh, groups: int, group: int) -> None:
        self._policy, self._weigh, self._groups, self._group = policy, weigh, groups, group
        self._agreed = self._seen = no_moments(groups)
        self._scores = torch.full((groups,), torch.nan)
        self.account = Account(groups)

    def state(self) -> State:
        """See `Stateful`."""
        return {
            "agreed": tuple(self._agreed),
            "seen": tuple(self._seen),
            "scores": self._scores,
            "account": self.account.state(),
        }

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self._agreed, self._seen = (Moments(*(x.clone() for x in state[name])) for name in ("agreed", "seen"))
        self._scores = state["scores"].clone()
        self.account.restore(state["account"])

    @torch.no_grad()
    def mix(self, groups: Sequence[int], opinions: Sequence[Opinion], own: Opinion) -> Mixture:
        """Return the mixture of this group's opinion and those of others."""
        members, everyone = [self._group, *groups], [own, *opinions]
        values = torch.stack([opinion.value for opinion in everyone])
        policies = torch.stack([opinion.policy for opinion in everyone])
        weights = self._weigh(values, self._agreed.of(members), self._scores[members])
        self._seen = updated_moments(self._seen, members, values, DECAY)
        mixture = self._policy.mixture(policies, weights)
        self.account.weigh(members, weights)
        if not self.account.measured:  # once an exchange: it is quadratic in the members
            self.account.measure(members, self._policy, policies, mixture)
        return Mixture(mixture, float(weights[0].mean()))

    def close_account(self) -> Account:
        """Return the account, and begin a new one."""
        account, self.account = self.account, Account(self._groups)
        return account

    @property
    def seen(self) -> Array:
        """Return the moments that this learner has seen, as numbers [3 · groups] for `agree`."""
        return torch.cat(list(self._seen)).numpy()

    def agree(self, seen: Array, scores: Array) -> None:
        """Use the moments that the leader has seen, and the scores [groups] that it knows."""
        self._scores = torch.from_numpy(scores.copy())
        self._agreed = self._seen = Moments(*torch.from_numpy(seen.copy()).chunk(3))
