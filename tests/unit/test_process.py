"""What is asked of a process: freed memory is kept for the next batch, and what is all but zero is zero."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from hpcddrl.runtime.process import keep_freed
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

SMALL = """
import threading
import torch
from hpcddrl.runtime.process import prepare_process
small, found = torch.full((64,), 1e-40), []
look = lambda: found.append(float((small * 0.5).abs().sum()))
look()
prepare_process()
look()
there = threading.Thread(target=look)
there.start()
there.join()
print(found[0] > 0, *found[1:])
"""


def said(program: str, *arguments: str) -> str:
    """Return what a program prints, run in a process of its own."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_what_is_freed_is_kept() -> None:
    """Page faults of 20 times two arrays of 6 MiB."""
    assert int(said(FAULTS, "kept")) < 100 < int(said(FAULTS, "given back"))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="torch does so on x86")
def test_numbers_too_small_for_their_exponent_are_zero_in_later_threads_too() -> None:
    assert said(SMALL) == "True 0.0 0.0"
