"""Which transitions are drawn how often: uniformly, or by their temporal-difference errors δ, in two ways.

The two ways, the importance weights and the stratified draws are those of Schaul et al. 2015 (arXiv:1511.05952),
section 3.3 and appendix B.2.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from hpcddrl.replay.sum_tree import SumTree
from hpcddrl.types import Array, State


class Priorities(Protocol):
    """Who of ``size`` slots can be drawn, and how likely each is; none can at first."""

    @property
    def nbytes(self) -> int:
        """Return the memory held."""

    @staticmethod
    def bytes_for(size: int) -> int:
        """Return what `nbytes` will be for ``size`` slots."""

    def set(self, slots: Array, errors: Array | None = None) -> None:
        """Let slots [N] be drawn, by their |δ| [N]; without, as if each had the largest seen so far."""

    def remove(self, slots: Array) -> None:
        """Let slots [N] be drawn no more."""

    def draw(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw ``n`` slots with replacement; return them [n] i64 and the probability [n] f64 of each draw."""

    def state(self) -> State:
        """See `Stateful`."""

    def restore(self, state: State) -> None:
        """See `Stateful`; of as many slots."""

    def adopt(self, slots: Array, rows: Mapping[str, Array]) -> None:
        """Let slots [N] be drawn as likely as they were elsewhere: ``rows`` [N] are of what `state` gave there."""


class Uniform:
    """All alike, and drawn independently; errors do not matter.

    Args:
        size: slots.
    """

    def __init__(self, size: int) -> None:
        self._tree = SumTree(size)  # of weights 1: any may be missing, and still a draw takes one descent

    @property
    def nbytes(self) -> int:
        """Return the memory held."""
        return self._tree.nbytes

    @staticmethod
    def bytes_for(size: int) -> int:
        """Return what `nbytes` will be for ``size`` slots."""
        return SumTree.bytes_for(size)

    def set(self, slots: Array, errors: Array | None = None) -> None:
        """Let slots [N] be drawn."""
        self._tree.set(slots, np.ones(len(slots)))

    def remove(self, slots: Array) -> None:
        """Let slots [N] be drawn no more."""
        self._tree.set(slots, np.zeros(len(slots)))

    def draw(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw ``n`` slots; see `Priorities`."""
        total = self._tree.total
        return self._tree.find(rng.random(n) * total), np.full(n, 1.0 / total)

    def state(self) -> State:
        """See `Stateful`."""
        return {"weights": self._tree.weights}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        _refill(self._tree, state["weights"])

    def adopt(self, slots: Array, rows: Mapping[str, Array]) -> None:
        """Let slots [N] be drawn; see `Priorities`."""
        self.set(slots)


class Proportional:
    """P ∝ (|δ| + ε)^α.

    Args:
        size: slots.
        alpha: α; 0 is uniform.
        epsilon: ε, in the units of δ: what keeps transitions without error in the game.
    """

    def __init__(self, size: int, alpha: float = 0.6, epsilon: float = 1e-6) -> None:
        _check_alpha(alpha)
        if not epsilon > 0:
            raise ValueError(f"epsilon = {epsilon}: must be positive, or transitions without error are never drawn")
        self._alpha, self._epsilon = alpha, epsilon
        self._tree = SumTree(size)
        self._largest = 1.0

    @property
    def nbytes(self) -> int:
        """Return the memory held."""
        return self._tree.nbytes

    @staticmethod
    def bytes_for(size: int) -> int:
        """Return what `nbytes` will be for ``size`` slots."""
        return SumTree.bytes_for(size)

    def set(self, slots: Array, errors: Array | None = None) -> None:
        """Let slots [N] be drawn, by their |δ| [N]; see `Priorities`."""
        errors, self._largest = _or_largest(errors, len(slots), self._largest)
        self._tree.set(slots, (errors + self._epsilon) ** self._alpha)

    def remove(self, slots: Array) -> None:
        """Let slots [N] be drawn no more."""
        self._tree.set(slots, np.zeros(len(slots)))

    def draw(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw ``n`` slots, stratified; see `Priorities`."""
        return _stratified(self._tree, n, rng)

    def state(self) -> State:
        """See `Stateful`."""
        return {"weights": self._tree.weights, "largest": self._largest}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        _refill(self._tree, state["weights"])
        self._largest = float(state["largest"])

    def adopt(self, slots: Array, rows: Mapping[str, Array]) -> None:
        """Let slots [N] be drawn; see `Priorities`."""
        self._tree.set(slots, rows["weights"])
        largest = float(np.max(rows["weights"], initial=0.0)) ** (1 / self._alpha) if self._alpha else 0.0
        self._largest = max(self._largest, largest - self._epsilon)


class RankBased:
    """P ∝ rank^−α, where the largest |δ| has rank 1: outliers count no more than their place.

    Ranks are those of the last sort. What got a new error since has the rank that it would have had there (so some
    share a rank, and what left keeps its place empty); a draw sorts anew once enough has changed. The draws are
    exactly from these ranks: right after a sort, the formula's distribution to the last digit.

    Args:
        size: slots.
        alpha: α; 0 is uniform.
        sort_after: changes that make the next draw sort, as a share of the slots ranked at the last sort; 0 sorts
            after any change.
    """

    def __init__(self, size: int, alpha: float = 0.7, sort_after: float = 0.1) -> None:
        _check_alpha(alpha)
        if not sort_after >= 0:
            raise ValueError(f"sort_after = {sort_after}: must not be negative; 0 sorts after any change")
        self._alpha, self._sort_after = alpha, sort_after
        self._tree = SumTree(size)  # of rank^−α
        self._errors = np.full(size, -1.0, np.float32)  # |δ|, −1 where nothing is
        self._sorted = np.zeros(size, np.float32)  # the first `_ranked` of them: |δ| at the last sort, ascending
        self._ranked = 0
        self._changes = 0
        self._largest = 1.0

    @property
    def nbytes(self) -> int:
        """Return the memory held."""
        return self._tree.nbytes + self._errors.nbytes + self._sorted.nbytes

    @staticmethod
    def bytes_for(size: int) -> int:
        """Return what `nbytes` will be for ``size`` slots."""
        return SumTree.bytes_for(size) + 2 * size * np.dtype(np.float32).itemsize

    def set(self, slots: Array, errors: Array | None = None) -> None:
        """Let slots [N] be drawn, by their |δ| [N]; see `Priorities`."""
        errors, self._largest = _or_largest(errors, len(slots), self._largest)
        errors = errors.astype(np.float32)
        self._errors[slots] = errors
        larger = self._ranked - np.searchsorted(self._sorted[: self._ranked], errors, side="right")
        self._tree.set(slots, (larger + 1.0) ** -self._alpha)
        self._changes += len(slots)

    def remove(self, slots: Array) -> None:
        """Let slots [N] be drawn no more."""
        self._errors[slots] = -1.0
        self._tree.set(slots, np.zeros(len(slots)))
        self._changes += len(slots)

    def draw(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw ``n`` slots, stratified, after a sort if it is time for one; see `Priorities`."""
        if self._changes > self._sort_after * self._ranked:
            self._sort()
        return _stratified(self._tree, n, rng)

    def state(self) -> State:
        """See `Stateful`."""
        return {
            "weights": self._tree.weights,
            "errors": self._errors,
            "sorted": self._sorted,
            "numbers": (self._ranked, self._changes, self._largest),
        }

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        _refill(self._tree, state["weights"])
        self._errors[:], self._sorted[:] = state["errors"], state["sorted"]
        self._ranked, self._changes, self._largest = state["numbers"]

    def adopt(self, slots: Array, rows: Mapping[str, Array]) -> None:
        """Let slots [N] be drawn; see `Priorities`."""
        self.set(slots, rows["errors"])

    def _sort(self) -> None:
        held = np.flatnonzero(self._errors >= 0)
        order = held[np.argsort(self._errors[held], kind="stable")]
        self._ranked, self._changes = len(order), 0
        self._sorted[: len(order)] = self._errors[order]
        weights = np.zeros(len(self._errors))
        weights[order] = np.arange(len(order), 0, -1.0) ** -self._alpha
        self._tree.set(np.arange(len(weights)), weights)


def importance_weights(probability: Array, beta: float) -> Array:
    """Return (N·P)^−β over the largest of the batch, [n] f32: at most 1, so that they only ever scale updates down.

    The largest is the batch's own, as in the paper's algorithm 1, and so N, how many could have been drawn, cancels.
    Other programs take the whole replay's largest, which asks for its least likely transition at every draw and
    differs by a factor common to the batch.

    Args:
        probability: [n] P of each draw.
        beta: β from 0, no correction, to 1, full correction.
    """
    return np.asarray((probability / probability.min()) ** -beta, np.float32)


def _stratified(tree: SumTree, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw one item from each of ``n`` equal shares of the total: the same expectation, less variance."""
    total = tree.total
    slots = tree.find((np.arange(n) + rng.random(n)) * (total / n))
    return slots, tree.get(slots) / total


def _refill(tree: SumTree, weights: Array) -> None:
    """Give all of a tree's items these weights."""
    tree.set(np.arange(tree.size), weights)


def _or_largest(errors: Array | None, n: int, largest: float) -> tuple[Array, float]:
    """Return the errors [n] f64, or n times the largest so far if there are none; and the new largest."""
    if errors is None:
        return np.full(n, largest), largest
    return np.asarray(errors, np.float64), max(largest, float(np.max(errors, initial=0.0)))


def _check_alpha(alpha: float) -> None:
    if not alpha >= 0:
        raise ValueError(f"alpha = {alpha}: must not be negative; 0 draws uniformly, 1 in full proportion")
