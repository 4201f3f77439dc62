"""Freed memory is kept for the next batch."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from hpcddrl.runtime.heap import keep_freed
if sys.argv[1] == "kept":
    assert keep_freed()
def once():
    first = np.ones(6 << 20, np.uint8)
    second = first + 1
for _ in range(5):
    once()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    once()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Return the page faults of 20 times two arrays of 6 MiB, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, timeout=60, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_what_is_freed_is_kept() -> None:
    assert faults("kept") < 100 < faults("given back")
