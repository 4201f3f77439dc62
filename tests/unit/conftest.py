"""Unit tests start no MPI job and take one thread: they run beside other work."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)
