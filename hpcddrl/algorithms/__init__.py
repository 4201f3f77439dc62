"""Algorithms: from a batch to the gradient of a loss."""
