"""Torsos, heads, and the one flat vector that all of a network's parameters are views of."""
