"""A run on a disk that is full for a while, or for good: it goes on, says so, and nothing that was written breaks."""

import errno
import signal
import subprocess
import time

import h5py
import pytest
from launch import Job, hpcddrl, settings

from hpcddrl.logs.restart import RestartFolder

pytestmark = [pytest.mark.mpi, pytest.mark.slow]

CATCH = "hpcddrl/Catch-v0"
OFTEN = settings(logging__checkpoint_interval_s=1, logging__interval_s=0.5, env__num_envs=4, precision="fp32")


@pytest.fixture
def disk(tmp_path):
    """Mount a small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "none", folder]
    done = subprocess.run(mount, text=True, capture_output=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path):
    """Leave no room."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


@pytest.mark.parametrize("for_good", [False, True], ids=["for a while", "for good"])
def test_a_run_goes_on_while_its_disk_is_full(for_good, disk, tmp_path):
    out, filler = disk / "run", disk / "filler"
    folder = RestartFolder(out / "restart")
    with Job(
        3, "-m", "hpcddrl", "run", "impala", "--env", CATCH, "--seconds", "600", "--out", out, *OFTEN, cwd=tmp_path
    ) as job:
        job.wait_for(lambda: len(folder.numbers) > 1, "it saved twice")
        fill(filler)
        job.wait_for(lambda: "could not be written" in job.stdout, "it said that the disk is full")
        good = folder.numbers[0]
        time.sleep(3)
        if not for_good:
            filler.unlink()
            job.wait_for(lambda: folder.numbers[0] > good, "it saved again")
        job.signal(signal.SIGUSR1)
        done = job.finish()
    assert done.rc == 75, done.text
    assert "No space left on device" in done.stdout, done.text
    assert "Traceback" not in done.stdout + done.stderr, done.text
    assert done.stderr.count("cannot be written, its rows wait for room") <= 3 * 2, done.text
    for rank in range(3):
        with h5py.File(out / f"segments/0001/rank-{rank:04d}.h5") as file:
            seconds, known = file["timing/wall"][:].sum(), file["progress/time"][-1]
            assert seconds == pytest.approx(known, abs=0.1), "rows are missing"
    filler.unlink(missing_ok=True)
    more = hpcddrl(3, "run", "--resume", out, "--seconds", "2", cwd=tmp_path)
    assert more.rc == 0, more.text
    assert "is good" in more.stdout, more.text
    assert "damaged" not in more.stdout, more.text
