"""Whole rollouts to learn from again: kept one environment's at a time, drawn by priority, dropped when too old."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hpcddrl.config import RolloutReplay
from hpcddrl.replay.sum_tree import SumTree
from hpcddrl.types import Array, Rollout, State

OF_ALL = ("number", "last")  # fields that say nothing of an environment


class Drawn(NamedTuple):
    """n rollouts of one environment each, side by side as one rollout of n environments."""

    rollout: Rollout  # its version is [n]
    keys: Array  # [n] i64: by which the memory knows them
    weight: Array  # [n] f32: importance weights (N · P)^−β


class RolloutMemory:
    """Keeps the newest rollouts; whoever inserts some gives them their priority when they have been learned from.

    Rollouts are known by keys, which count up. What is said of one that another has replaced meanwhile, or that
    was dropped for its age, is ignored.

    A draw takes a share s of its n from the rollouts with negative rewards, so P = (1 − s) p / Σp + s q / Σq with the
    priorities p of `RolloutReplay` and q = (Σ max(−r, 0))^α. The mean of n · w · f over draws of n is then that of f
    over all N rollouts, with β = 1 (multiple importance sampling by the balance heuristic, Veach and Guibas 1995).

    Args:
        config: of the replay.
        like: a rollout of the shapes and types that are kept; nothing is read from it.
        seed: of the draws.
    """

    def __init__(self, config: RolloutReplay, like: Rollout, seed: int) -> None:
        self._config, self.generator = config, np.random.default_rng(seed)
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
        self._dropped = np.zeros(capacity, bool)  # for their age, and not replaced yet
        self._next = 0  # key
        self.stale = 0  # rollouts dropped for their age

    def state(self) -> State:
        """See `Stateful`: what can be drawn, oldest first, and where it stands."""
        capacity = self._config.capacity
        slots = (self._next + np.arange(capacity)) % capacity
        slots = slots[self._there[slots]]
        return {
            "kept": {name: getattr(self._kept, name)[:, slots] for name in self._columns},
            "of_each": {name: column[slots] for name, column in self._of_each.items()},
            "priorities": self._priorities.get(slots),
            "negatives": self._negatives.get(slots),
            "slots": slots,
            "next": self._next,
            "stale": self.stale,
            "capacity": capacity,
            "generator": self.generator.bit_generator.state,
        }

    def restore(self, state: State) -> None:
        """See `Stateful`. With another capacity the newest stay; of rollouts of another length none can be drawn."""
        self.generator.bit_generator.state, self.stale = state["generator"], int(state["stale"])
        kept, capacity = state["kept"], self._config.capacity
        if any(kept[name].shape[0] != len(getattr(self._kept, name)) for name in self._columns):
            return
        count = len(state["priorities"])
        chosen, slots, self._next = np.arange(count), state["slots"], int(state["next"])
        if state["capacity"] != capacity:
            chosen = chosen[-capacity:]
            slots, self._next = np.arange(len(chosen)), len(chosen)
        for name in self._columns:
            getattr(self._kept, name)[:, slots] = kept[name][:, chosen]
        for name, column in self._of_each.items():
            column[slots] = state["of_each"][name][chosen]
        self._priorities.set(slots, state["priorities"][chosen])
        self._negatives.set(slots, state["negatives"][chosen])
        self._there[slots] = True

    @property
    def _columns(self) -> list[str]:
        """Return the fields that have a column for each rollout kept."""
        return [name for name in self._kept._fields if name not in (*OF_ALL, "version")]

    @property
    def _of_each(self) -> dict[str, Array]:
        """Return what there is one number of for each rollout kept."""
        return {"version": self._kept.version, "gains": self._gains, "losses": self._losses}

    def __len__(self) -> int:
        """Return how many rollouts can be drawn."""
        return int(np.count_nonzero(self._there))

    def insert(self, rollout: Rollout) -> Array:
        """Keep each environment's part of a rollout, for the oldest; return the keys [B]. Drawn after `learned`."""
        keys: Array = self._next + np.arange(rollout.reward.shape[1])
        self._next = int(keys[-1]) + 1
        slots = keys % self._config.capacity
        self._withdraw(slots)
        self._dropped[slots] = False
        self._kept.version[slots] = rollout.version
        for name in self._columns:
            getattr(self._kept, name)[:, slots] = getattr(rollout, name)
        reward = np.where(rollout.first[-len(rollout.reward) :], 0.0, rollout.reward)
        self._gains[slots], self._losses[slots] = np.abs(reward).sum(0), np.maximum(-reward, 0.0).sum(0)
        return keys

    def learned(self, keys: Array, errors: Array) -> None:
        """Say how wrong the value was about rollouts [n]: they can be drawn from now on, but for dropped ones."""
        capacity = self._config.capacity
        kept = (keys >= self._next - capacity) & ~self._dropped[keys % capacity]
        slots, errors = keys[kept] % capacity, errors[kept]
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

    def _withdraw(self, slots: Array) -> None:
        """Let what stands in some slots be drawn no more."""
        self._priorities.set(slots, np.zeros(len(slots)))
        self._negatives.set(slots, np.zeros(len(slots)))
        self._there[slots] = False

    def drop_before(self, version: int) -> None:
        """Remove the rollouts that older weights acted in."""
        old = np.flatnonzero(self._there & (self._kept.version < version))
        self.stale += len(old)
        if len(old):
            self._withdraw(old)
            self._dropped[old] = True

    def draw(self, n: int) -> Drawn:
        """Draw n rollouts with replacement; there must be one at least. Valid until one of them is replaced."""
        negative = self._negatives.total
        share = self._config.negative_share if negative > 0 else 0.0
        of_negatives = int(share * n + self.generator.random())  # share · n on average
        parts = ((self._priorities, n - of_negatives), (self._negatives, of_negatives))
        slots = np.concatenate([_stratified(tree, count, self.generator) for tree, count in parts if count])
        probability = (1 - share) * self._priorities.get(slots) / self._priorities.total
        if share:
            probability = probability + share * self._negatives.get(slots) / negative
        weight = (len(self) * probability) ** -self._config.beta
        columns = {name: getattr(self._kept, name)[:, slots] for name in self._columns}
        rollout = self._kept._replace(version=self._kept.version[slots], **columns)
        newest = self._next - 1
        return Drawn(rollout, newest - (newest - slots) % self._config.capacity, np.asarray(weight, np.float32))


def shared(states: Sequence[State], holders: int, number: int) -> State:
    """Return the share of one of so many holders of what some memories held: every n-th rollout, oldest first.

    The order of draws goes on from the first memory's.
    """
    versions = np.concatenate([state["of_each"]["version"] for state in states])
    mine = np.argsort(versions, kind="stable")[number::holders]

    def joined(arrays: Sequence[Array], axis: int) -> Array:
        return np.concatenate(arrays, axis=axis).take(mine, axis=axis)

    first = states[0]
    return first | {
        "kept": {name: joined([s["kept"][name] for s in states], 1) for name in first["kept"]},
        "of_each": {name: joined([s["of_each"][name] for s in states], 0) for name in first["of_each"]},
        "priorities": joined([s["priorities"] for s in states], 0),
        "negatives": joined([s["negatives"] for s in states], 0),
        "slots": np.arange(len(mine)),
        "stale": sum(state["stale"] for state in states) if number == 0 else 0,
        "capacity": 0,  # that of nobody: they are put in from the first slot on
    }


def _stratified(tree: SumTree, n: int, generator: np.random.Generator) -> Array:
    """Draw one item from each of n equal shares of a tree's total."""
    return tree.find((np.arange(n) + generator.random(n)) * (tree.total / n))
