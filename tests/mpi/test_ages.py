"""How old data are when they are learned from, in jobs whose actors are faster than their learner."""

import h5py
import numpy as np
import pytest
from launch import hpcddrl, settings

pytestmark = pytest.mark.mpi

ACTORS = 5
SATURATED = settings(algorithm__unroll_length=2, env__num_envs=1, topology__actors_per_group=ACTORS, precision="fp32")


def test_beside_a_slow_learner_they_are_as_old_as_the_actors_are_many(tmp_path):
    """Each is learned from about a round after it was begun, with the weights of that moment."""
    out = tmp_path / "run"
    arguments = ["--env", "hpcddrl/Catch-v0", "--seconds", "15", "--out", out, *settings(logging__interval_s=0.5)]
    done = hpcddrl(ACTORS + 1, "run", "impala", *arguments, *SATURATED, cwd=tmp_path, limit_s=60)
    assert done.rc == 0, done.text
    with h5py.File(out / "segments/0001/rank-0000.h5") as file:
        ages = file["learning/lag_mean"][1:]
    print(f"ages {ages}")
    assert ACTORS - 1 <= np.median(ages) <= ACTORS + 2.5
