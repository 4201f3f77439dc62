"""Environments: from an id and a count to one vector environment, whatever its origin."""
