"""MPI batch jobs for distributed deep reinforcement learning on HPC clusters."""

__version__ = "0.1.0"
