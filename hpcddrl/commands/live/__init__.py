"""Runs while they go on, from their files: a picture for the terminal, scalars for TensorBoard."""
