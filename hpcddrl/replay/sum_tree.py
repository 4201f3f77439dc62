"""Drawing from many weights in logarithmic time: a binary tree whose nodes hold the sums of what is below."""

from __future__ import annotations

import numpy as np

from hpcddrl.types import Array


class SumTree:
    """Non-negative weights of ``size`` items, all 0 at first.

    One array holds the tree: the root is node 1, the children of node i are 2i and 2i + 1, the weights are the
    leaves. A sum is always made anew from its two children, never changed by a difference, so rounding errors do
    not pile up however often weights change.

    Args:
        size: items.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._leaves = _leaves(size)  # also the index of the first leaf
        self._nodes = np.zeros(2 * self._leaves)

    @property
    def total(self) -> float:
        """Return the sum of all weights."""
        return float(self._nodes[1])

    @property
    def nbytes(self) -> int:
        """Return the memory held."""
        return self._nodes.nbytes

    @staticmethod
    def bytes_for(size: int) -> int:
        """Return what `nbytes` will be."""
        return 2 * _leaves(size) * np.dtype(np.float64).itemsize

    @property
    def weights(self) -> Array:
        """Return the weights [size] f64 of all items, as they stand."""
        return self._nodes[self._leaves : self._leaves + self.size]

    def get(self, indices: Array) -> Array:
        """Return the weights [N] f64 of items [N]."""
        weights: Array = self._nodes[self._leaves + indices]
        return weights

    def set(self, indices: Array, values: Array) -> None:
        """Give items [N] new weights [N]; of an item named twice the last one stays."""
        assert np.all((indices >= 0) & (indices < self.size)), "an item that is not there"
        assert np.all(np.isfinite(values) & (values >= 0)), "weights are finite and not negative"
        nodes, changed, width = self._nodes, self._leaves + indices, self._leaves
        nodes[changed] = values
        while width > 1:
            width //= 2
            if len(changed) < width:
                changed = changed // 2
                nodes[changed] = nodes[2 * changed] + nodes[2 * changed + 1]
            else:  # as many changed as there are at this level and all above: whole levels are cheaper
                nodes[width : 2 * width] = nodes[2 * width : 4 * width : 2] + nodes[2 * width + 1 : 4 * width : 2]

    def find(self, prefix_sums: Array) -> Array:
        """Return the items [N] i64 at which the running sum of the weights first exceeds ``prefix_sums`` [N].

        Drawn uniformly from [0, total), prefix sums find each item as often as it weighs. Rounding may lead a step
        past the last item of a sub-tree (so may a prefix sum of ``total`` itself), and then the nearest item before
        is found: while any weight is positive, an item of weight 0 never is.
        """
        rest = np.maximum(prefix_sums, 0.0)
        node = np.ones(len(rest), np.int64)
        for _ in range(self._leaves.bit_length() - 1):
            node *= 2
            left = self._nodes[node]
            right = (rest >= left) & (self._nodes[node + 1] > 0)  # a side that is empty is never entered
            rest = np.where(right, rest - left, rest)
            node += right
        return node - self._leaves


def _leaves(size: int) -> int:
    """Return the least power of two that is at least ``size``."""
    return 1 << (size - 1).bit_length()
