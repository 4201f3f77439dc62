"""Its presence puts this folder on the path, so that tests anywhere below can import ``launch``."""

import pytest


def pytest_runtest_setup(item):
    """Skip what needs a GPU where torch sees none."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU that torch sees; here it sees none")
