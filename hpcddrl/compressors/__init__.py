"""Cheaper stand-ins for a network that is being learned: narrower, pruned, quantised, binary."""
