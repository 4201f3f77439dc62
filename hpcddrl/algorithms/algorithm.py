"""What every algorithm offers the learner's loop."""

from __future__ import annotations

from typing import Any, Protocol

from hpcddrl.types import Learned, Targets, Weights


class Algorithm(Protocol):
    """Computes the gradient of a loss with the network it was made with."""

    def gradients(self, batch: Any, targets: Targets | None, weights: Weights) -> Learned:
        """Write the gradient of a batch's loss to the gradient vector.

        Args:
            batch: of the kind that the algorithm learns from: a `types.Batch` or `types.Transitions`.
            targets: what others say of it.
            weights: that the gradient is of.

        Returns:
            What is worth logging, ``loss`` at least, and the temporal differences if a replay wants them.
        """
