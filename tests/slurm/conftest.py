"""A Slurm to test on: the one that answers here, else one of ours on this machine, for as long as the tests run."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLUSTER = Path(__file__).with_name("cluster.sh")
NOT_HERE = 3


@pytest.fixture(scope="session")
def slurm():
    """Make sure that a controller answers; yield what switches nodes off and on, or None on somebody else's cluster."""
    if _answers():
        yield _ours if _is_ours() else None
        return
    up = subprocess.run([CLUSTER, "up"], text=True, capture_output=True, timeout=120)
    if up.returncode == NOT_HERE:
        pytest.skip(up.stderr.strip())
    assert up.returncode == 0, up.stderr
    name, _, value = up.stdout.strip().partition("=")
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield _ours
    finally:
        subprocess.run([CLUSTER, "down"], check=True, timeout=120)
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


@pytest.fixture
def shared_folder(slurm):
    """Make a folder that all nodes see, as they do the program itself."""
    (ROOT / "runs").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "runs", prefix="test-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _answers():
    try:
        return subprocess.run(["sinfo", "--noheader"], capture_output=True, timeout=60).returncode == 0
    except FileNotFoundError:
        return False


def _is_ours():
    shown = subprocess.run(["scontrol", "show", "config"], text=True, capture_output=True, check=True).stdout
    return "= hpcddrl\n" in shown  # its ClusterName


def _ours(command, node):
    subprocess.run([CLUSTER, command, node], check=True, timeout=60)
