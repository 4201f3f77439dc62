"""The doctor under mpirun: every rank looks around, and messages are timed."""

import re

import pytest
from launch import hpcddrl


@pytest.mark.mpi
def test_two_ranks(tmp_path):
    job = hpcddrl(2, "doctor", "--out", tmp_path / "runs", cwd=tmp_path)
    assert job.rc == 0, job.text
    assert re.search(r"ok +ranks +2 on \S+ \(ranks 0-1\)", job.stdout), job.text
    latency, speed = re.search(r"ok +messages +within \S+: (\d+) µs, (\S+) GB/s", job.stdout).groups()
    assert int(latency) < 100_000
    assert float(speed) > 0
    assert "by all ranks" in job.stdout
    assert job.stdout.count("jobs can run here: 0 errors") == 1, "one rank speaks"
    assert "\x1b" not in job.stdout
    assert list(tmp_path.iterdir()) == []
