"""Whole rollouts to learn from again: kept one environment's at a time, drawn by priority, dropped when too old."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hpcddrl.config import RolloutReplay
from hpcddrl.replay.sum_tree import SumTree
from hpcddrl.types import Array, Rollout

OF_ALL = ("number", "last")  # fields that say nothing of an environment


class Drawn(NamedTuple):
    """n rollouts of one environment each, side by side as one rollout of n environments."""

    rollout: Rollout  # its version is [n]
    slots: Array  # [n] i64
    weight: Array  # [n] f32: importance weights (N · P)^−β


class RolloutMemory:
    """Keeps the newest rollouts; whoever inserts some gives them their priority when they have been learned from.

    A draw takes a share s of its n from the rollouts with negative rewards, so P = (1 − s) p / Σp + s q / Σq with the
    priorities p of `RolloutReplay` and q = (Σ max(−r, 0))^α. The mean of n · w · f over draws of n is then that of f
    over all N rollouts, with β = 1 (multiple importance sampling by the balance heuristic, Veach and Guibas 1995).

    Args:
        config: of the replay.
        like: a rollout of the shapes and types that are kept; nothing is read from it.
        seed: of the draws.
    """

    def __init__(self, config: RolloutReplay, like: Rollout, seed: int) -> None:
        self._config, self._generator = config, np.random.default_rng(seed)
        capacity = config.capacity
        kept = {
            name: np.zeros((len(x), capacity, *x.shape[2:]), x.dtype)
            for name, x in like._asdict().items()
            if name not in (*OF_ALL, "version")
        }
        self._kept = Rollout(version=np.full(capacity, -1), number=like.number, last=like.last, **kept)
        self._priorities, self._negatives = SumTree(capacity), SumTree(capacity)
        self._gains, self._losses = np.zeros(capacity), np.zeros(capacity)  # Σ|r| and Σ max(−r, 0)
        self._there = np.zeros(capacity, bool)
        self._next = 0

    def __len__(self) -> int:
        """Return how many rollouts can be drawn."""
        return int(np.count_nonzero(self._there))

    def insert(self, rollout: Rollout) -> Array:
        """Keep each environment's part of a rollout, for the oldest; return where [B]. It is drawn after `learned`."""
        envs = rollout.reward.shape[1]
        slots: Array = (self._next + np.arange(envs)) % self._config.capacity
        self._next = int(slots[-1] + 1) % self._config.capacity
        self.remove(slots)
        for name in self._kept._fields:
            if name == "version":
                self._kept.version[slots] = rollout.version
            elif name not in OF_ALL:
                getattr(self._kept, name)[:, slots] = getattr(rollout, name)
        reward = np.where(rollout.first[-len(rollout.reward) :], 0.0, rollout.reward)
        self._gains[slots], self._losses[slots] = np.abs(reward).sum(0), np.maximum(-reward, 0.0).sum(0)
        return slots

    def learned(self, slots: Array, errors: Array) -> None:
        """Say how wrong the value was about rollouts [n]: they can be drawn from now on."""
        match self._config.priority:
            case "td_error":
                priority = np.asarray(errors, np.float64)
            case "reward":
                priority = self._gains[slots]
            case "negative_reward":
                priority = self._losses[slots]
        alpha, losses = self._config.alpha, self._losses[slots]
        self._priorities.set(slots, (priority + self._config.epsilon) ** alpha)
        self._negatives.set(slots, np.where(losses > 0, losses**alpha, 0.0))
        self._there[slots] = True

    def remove(self, slots: Array) -> None:
        """Let rollouts [n] be drawn no more."""
        self._priorities.set(slots, np.zeros(len(slots)))
        self._negatives.set(slots, np.zeros(len(slots)))
        self._there[slots] = False

    def drop_before(self, version: int) -> int:
        """Remove the rollouts that older weights acted in; return how many."""
        old = np.flatnonzero(self._there & (self._kept.version < version))
        if len(old):
            self.remove(old)
        return len(old)

    def draw(self, n: int) -> Drawn:
        """Draw n rollouts with replacement; there must be one at least. Valid until one of them is replaced."""
        negative = self._negatives.total
        share = self._config.negative_share if negative > 0 else 0.0
        of_negatives = int(share * n + self._generator.random())  # share · n on average
        parts = ((self._priorities, n - of_negatives), (self._negatives, of_negatives))
        slots = np.concatenate([_stratified(tree, count, self._generator) for tree, count in parts if count])
        probability = (1 - share) * self._priorities.get(slots) / self._priorities.total
        if share:
            probability = probability + share * self._negatives.get(slots) / negative
        weight = (len(self) * probability) ** -self._config.beta
        columns = {
            name: getattr(self._kept, name)[:, slots] for name in self._kept._fields if name not in (*OF_ALL, "version")
        }
        rollout = self._kept._replace(version=self._kept.version[slots], **columns)
        return Drawn(rollout, slots, np.asarray(weight, np.float32))


def _stratified(tree: SumTree, n: int, generator: np.random.Generator) -> Array:
    """Draw one item from each of n equal shares of a tree's total."""
    return tree.find((np.arange(n) + generator.random(n)) * (tree.total / n))
