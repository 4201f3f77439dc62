"""Starts the checks in ``inside/`` on 1, 2, 3 and 5 ranks."""

from pathlib import Path

import pytest
from launch import python

INSIDE = Path(__file__).parent / "inside" / "run.py"


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3)), 5])
def test_messages_and_collectives(ranks, tmp_path):
    done = python(ranks, INSIDE, cwd=tmp_path, limit_s=200)
    assert done.rc == 0, done.text
    assert "failed" not in done.stdout, done.text
    assert " passed" in done.stdout, done.text
