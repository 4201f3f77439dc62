"""Run this folder's checks on every rank of a job: mpirun -n 3 python tests/mpi/inside/run.py [pytest's arguments].

Rank 0 shows progress. A rank on which a check fails says so on stderr and ends the job, since the others may wait for
it; a check that takes too long is such a failure, and shows where each rank stands.
"""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from pathlib import Path

import pytest
from mpi4py import MPI

LIMIT_S = 60.0  # for one check
WORLD = MPI.COMM_WORLD


def end_job(title: str, text: str = "") -> None:
    sys.__stderr__.write(f"\n=== rank {WORLD.rank} of {WORLD.size}: {title}\n{text}\n")
    sys.__stderr__.flush()
    if not text:
        faulthandler.dump_traceback(sys.__stderr__)
    time.sleep(1.0)  # the other ranks may have something to say too
    WORLD.Abort(1)


class OnEveryRank:
    """Ends the job at the first failure on any rank."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        timer = threading.Timer(LIMIT_S, end_job, [f"{item.nodeid} took more than {LIMIT_S:.0f} s"])
        timer.daemon = True
        timer.start()
        try:
            return (yield)
        finally:
            timer.cancel()

    def pytest_runtest_logreport(self, report):
        if report.failed:
            end_job(f"{report.nodeid} failed in {report.when}", report.longreprtext)

    def pytest_collectreport(self, report):
        if report.failed:
            end_job(f"{report.nodeid} cannot be collected", report.longreprtext)


sys.path.insert(0, str(Path(__file__).parents[3]))  # where the package is not installed
options = ["-s", "-p", "no:cacheprovider", "-o", "python_files=check_*.py", "-o", "timeout=0", "-v", "--color=no"]
with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere if WORLD.rank else sys.stdout):
    code = pytest.main([str(Path(__file__).parent), *options, *sys.argv[1:]], [OnEveryRank()])
sys.exit(code)
