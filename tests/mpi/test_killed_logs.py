"""A job whose ranks are all killed at a random moment: every file opens, and at most one logging interval is lost."""

import os
import random
import signal
import time

import h5py
import numpy as np
import pytest
from launch import running

from hpcddrl.logs.read import read_runs
from hpcddrl.logs.run_dir import RunDirectory

pytestmark = pytest.mark.mpi

INTERVAL_S = 0.5  # of launch.running
LATE_S = 0.5  # that a rank may write after its interval, on top of what its own rows show
MOMENTS = [0, 7, *(pytest.param(moment, marks=pytest.mark.slow) for moment in range(20) if moment not in (0, 7))]


@pytest.mark.parametrize("moment", MOMENTS)
def test_every_file_opens_and_an_interval_at_most_is_lost(moment, tmp_path):
    recipe, ranks = (("impala", 2), ("a3c", 2), ("paac", 2))[moment % 3]
    with running(tmp_path, ranks, recipe) as (job, out):
        pids = job.pids()
        time.sleep(random.Random(moment).uniform(0, 3 * INTERVAL_S))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        killed = time.time()
    with h5py.File(out / "run.h5", "r") as whole:
        assert len(whole["ranks"]) == ranks
    for rank in range(ranks):
        path = RunDirectory(out).rank_file(1, rank)
        with h5py.File(path, "r") as file:
            rows = {
                f"{table}/{name}": len(column)
                for table in ("timing", "progress")
                for name, column in file[table].items()
            }
            times, wall = file["progress/time"][:], file["timing/wall"][:]
        assert len(set(rows.values())) == 1, "a row is there as a whole or not at all"
        late = max(0.0, float(np.diff(times).max(initial=0.0)) - INTERVAL_S)
        assert killed - path.stat().st_mtime < INTERVAL_S + late + LATE_S, f"rank {rank} lost more than an interval"
        assert wall[1:].sum() == pytest.approx(times[-1] - times[0], abs=LATE_S), "and nothing from before is missing"
    read = read_runs([out])
    assert (len(read.ranks), read.problems) == (ranks, ())
