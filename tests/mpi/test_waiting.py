"""Ranks that wait leave the cores to those that work."""

import json
from pathlib import Path

import pytest
from launch import python

PROGRAM = Path(__file__).parent / "programs" / "waiting.py"
SECONDS = 5


@pytest.mark.mpi
def test_fifteen_waiting_ranks_take_less_than_a_tenth_of_a_core(tmp_path):
    done = python(16, PROGRAM, str(SECONDS), cwd=tmp_path)
    assert done.rc == 0, done.text
    shares = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"15 ranks that wait: {sum(shares['waiting']):.3f} cores together (most {max(shares['waiting']):.3f})")
    print(f"2 idle Horovod worlds' background threads: {', '.join(f'{s:.3f}' for s in shares['horovod'])} cores each")
    assert len(shares["waiting"]) == 15
    assert sum(shares["waiting"]) < 0.1, shares
