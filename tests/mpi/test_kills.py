"""A whole job that is killed again and again, at any moment: it goes on each time, from shortly before."""

import random
import re
import time

import h5py
import pytest
from launch import Job, hpcddrl, read_json, settings

from hpcddrl.logs.restart import RestartFolder

pytestmark = pytest.mark.mpi

CATCH = "hpcddrl/Catch-v0"
EVERY_S = 0.5  # between two checkpoints
SLACK_S = 2.0  # until a rank of a busy machine sees that the time has come
LONGEST_S = 4.0  # from a start's first checkpoint to the kill
OFTEN = settings(logging__checkpoint_interval_s=EVERY_S, logging__interval_s=0.25, env__num_envs=4, precision="fp32")


def assert_all_files_open(out):
    """Read everything in every file."""
    paths = sorted(out.rglob("*.h5"))
    assert paths
    for path in paths:
        with h5py.File(path) as file:
            file.visititems(lambda _, item: item[:] if isinstance(item, h5py.Dataset) else None)


def kill_in_training(job, folder, after_s):
    """Kill a job so long after it has made its first checkpoint; return how many seconds of training are lost."""
    before = folder.numbers[:1]
    job.wait_for(lambda: folder.numbers[:1] > before, "it has made a checkpoint")
    time.sleep(after_s)
    job.kill()
    return time.time() - (folder.name(folder.numbers[0]) / "DONE").stat().st_mtime


def slowest(log):
    """Return the seconds that the slowest checkpoint took, from the order to come to rest until it was written."""
    return max(float(seconds) for seconds in re.findall(r"^checkpoint .* MB in ([\d.]+) s,", log, re.MULTILINE))


@pytest.mark.parametrize(
    ("recipe", "ranks", "kills"),
    [("impala", 2, 2), pytest.param("group_ensemble", 4, 20, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
def test_a_job_that_is_killed_at_any_moment_goes_on_from_an_interval_before(recipe, ranks, kills, tmp_path):
    """One in four starts, but for the first, is killed before it can have trained."""
    out, chance = tmp_path / "run", random.Random(1)
    folder, lost, frames = RestartFolder(out / "restart"), [], [0.0]
    for number in range(kills):
        where = ["--resume", out] if number else [recipe, "--env", CATCH, "--out", out, *OFTEN]
        moment, early = chance.uniform(0, LONGEST_S), number > 0 and chance.random() < 0.25
        with Job(ranks, "-m", "hpcddrl", "run", *where, "--seconds", "600", cwd=tmp_path) as job:
            if early:
                time.sleep(moment)
                job.kill()
            else:
                lost.append(kill_in_training(job, folder, moment))
        assert_all_files_open(out)
        frames.append(folder.manifest(folder.numbers[0]).account["frames"])
    done = hpcddrl(ranks, "run", "--resume", out, "--seconds", "1", cwd=tmp_path)
    assert done.rc == 0, done.text
    log, summary = (out / "run.log").read_text(), read_json(out / "summary.json")
    assert max(lost) <= EVERY_S + slowest(log) + SLACK_S, lost
    assert frames == sorted(frames)
    assert frames[-1] > frames[1] > 0
    assert "damaged" not in log
    assert "begins anew" not in log
    assert summary["since_start"]["frames"] == frames[-1] + summary["frames"]
