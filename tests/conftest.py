"""Its presence puts this folder on the path, so that tests anywhere below can import ``launch``."""

import pytest


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config, log):
    """Give a worker a file of unit tests at a time, and one of them all the rest: never two jobs of ranks at once."""
    from xdist.scheduler import LoadScopeScheduling

    class JobsInTurn(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path = nodeid.partition("::")[0]
            return path if path.startswith("tests/unit/") else "jobs"

    return JobsInTurn(config, log)


def pytest_runtest_setup(item):
    """Skip what needs a GPU where torch sees none."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU that torch sees; here it sees none")
