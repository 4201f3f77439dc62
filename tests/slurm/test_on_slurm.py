"""The job scripts on a real Slurm, shortened by overrides alone: to their end, warned, preempted, without a node."""

import contextlib
import functools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import h5py
import psutil
import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "jobs" / "slurm"
CATCH = ("--env", "hpcddrl/Catch-v0")
FOUR_RANKS = (["--nodes=1", "--ntasks=4", "--ntasks-per-node=4"], ["--nodes=2", "--ntasks=4", "--ntasks-per-node=2"])
GOING_ON = ("PENDING", "CONFIGURING", "RUNNING", "SIGNALING", "COMPLETING", "REQUEUED", "PREEMPTED", "NODE_FAIL")

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1800)]


@functools.cache
def nodes():
    """Return how many nodes the default partition has."""
    command = ["sinfo", "--noheader", "--format=%P %D"]
    shown = subprocess.run(command, text=True, capture_output=True, check=True).stdout
    return sum(int(line.split()[1]) for line in shown.splitlines() if line.split()[0].endswith("*"))


def sbatch(folder, script, *arguments, slurm=(), **more):
    """Submit an experiment; return the job's number."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "VENV": os.environ.get("VIRTUAL_ENV", ""), **more}
    one = ["--nodes=1", "--ntasks-per-node=16"] if nodes() == 1 else []
    command = ["sbatch", "--parsable", "--time=20", *(slurm or one), FOLDER / f"{script}.sh", *arguments]
    done = subprocess.run(command, cwd=folder, env=env, text=True, capture_output=True, check=True)
    return done.stdout.strip().partition(";")[0]


def small(folder, *arguments, slurm=(), **more):
    """Submit one learner and three actors on two nodes, who save often."""
    often = ("--set", "logging.checkpoint_interval_s=5")
    return sbatch(folder, "scaling", *CATCH, *often, *arguments, slurm=[*FOUR_RANKS[nodes() > 1], *slurm], **more)


def state(number):
    command = ["scontrol", "show", "job", number]
    while (done := subprocess.run(command, text=True, capture_output=True)).returncode:
        assert "Invalid job id" not in done.stderr, number
        time.sleep(1)  # a busy controller may not answer
    return dict(word.split("=", 1) for word in reversed(done.stdout.split()) if "=" in word)  # a job's first component


def wait_for(folder, number, reached):
    """Wait for a job's state to be one of ``reached``; fail with its output at any other end."""
    while (now := state(number))["JobState"] not in reached:
        assert now["JobState"] in GOING_ON, f"{now['JobState']}\n{output_of(folder, number)}"
        time.sleep(0.5)
    return now


def output_of(folder, number):
    return "\n".join(path.read_text(errors="replace") for path in folder.glob(f"*-{number}*.out"))


def wait_until(folder, number, what):
    """Wait until something holds while a job is running."""
    while not what():
        now = state(number)["JobState"]
        assert now in GOING_ON, f"{now}\n{output_of(folder, number)}"
        time.sleep(0.5)


def summary_of(run):
    return json.loads((run / "summary.json").read_text())


def attributes_of(run, segment):
    """Return the attributes of every rank of a segment that has written its file."""
    found = []
    for path in sorted((run / "segments" / f"{segment:04d}").glob("rank-*.h5")):
        with h5py.File(path) as file:
            found.append(dict(file.attrs))
    return found


def frames_it_went_on_from(run):
    """Return the frames with which a run's second segment began, on every rank alike."""
    (before,) = {attributes["frames_before"] for attributes in attributes_of(run, 2)}
    return before


@pytest.mark.parametrize(
    ("script", "launcher"),
    [
        ("ensemble_8x2", "mpirun"),
        ("ensemble_8x2", "srun-pmix"),
        ("ensemble_4x4", "mpirun"),
        ("learners_and_actors", "srun-pmix"),
    ],
)
def test_an_experiment_runs_to_its_end(shared_folder, script, launcher):
    if script == "learners_and_actors" and nodes() < 3:
        pytest.skip("needs three nodes")
    number = sbatch(shared_folder, script, *CATCH, "--seconds", "10", LAUNCHER=launcher, RANK_LOGS="yes")
    wait_for(shared_folder, number, ["COMPLETED"])
    run = shared_folder / "runs" / f"{script}-{number}"
    ranks = attributes_of(run, 1)
    assert len(ranks) == 16
    assert {rank["slurm_job_id"] for rank in ranks} == {number}
    assert len({rank["host"] for rank in ranks}) >= min(2, int(state(number)["NumNodes"]))
    assert summary_of(run)["exit_reason"] == "seconds"
    assert summary_of(run)["updates"] > 0
    output = output_of(shared_folder, number)
    assert "efficiency: " in output
    assert len(list(run.with_name(f"{run.name}.ranks").glob("rank-*.log"))) == 16
    assert "ended by seconds" in (run.with_name(f"{run.name}.ranks") / "rank-0000.log").read_text()


@pytest.mark.parametrize("launcher", ["mpirun", "srun-pmix"])
def test_a_warned_job_comes_back_and_goes_on_until_it_is_cancelled(shared_folder, launcher):
    number = small(shared_folder, "--seconds", "1200", LAUNCHER=launcher)
    run = shared_folder / "runs" / f"scaling-{number}"
    wait_until(shared_folder, number, lambda: list(run.glob("restart/*/DONE")))
    subprocess.run(["scancel", "--batch", "--signal=USR1", number], check=True)
    wait_until(shared_folder, number, lambda: len(attributes_of(run, 2)) == 4)
    assert state(number)["Restarts"] == "1"
    assert json.loads((run / "segments" / "0001" / "summary.json").read_text())["exit_reason"] == "signal SIGUSR1"
    assert frames_it_went_on_from(run) > 0
    subprocess.run(["scancel", number], check=True)
    wait_for(shared_folder, number, ["CANCELLED"])
    time.sleep(10)
    assert state(number)["JobState"] == "CANCELLED"


def test_slurms_own_warning_before_the_limit_leads_to_restarts_that_are_bounded(shared_folder):
    number = small(shared_folder, "--seconds", "1200", slurm=["--time=4"], MAX_RESTARTS="1")
    now = wait_for(shared_folder, number, ["FAILED"])
    assert (now["Restarts"], now["ExitCode"]) == ("1", "75:0")
    run = shared_folder / "runs" / f"scaling-{number}"
    assert frames_it_went_on_from(run) > 0
    assert summary_of(run)["exit_reason"] == "signal SIGUSR1"
    assert "MAX_RESTARTS=1 are used up" in output_of(shared_folder, number)


def test_a_preempted_job_goes_on_later(shared_folder, slurm):
    if slurm is None:
        pytest.skip("not on somebody else's cluster: it fills all nodes")
    number = small(shared_folder, "--seconds", "1200", slurm=["--partition=scavenge"])
    run = shared_folder / "runs" / f"scaling-{number}"
    wait_until(shared_folder, number, lambda: list(run.glob("restart/*/DONE")))
    important = ["srun", "--partition=batch", f"--nodes={nodes()}", "--exclusive", "sleep", "1"]
    subprocess.run(important, check=True, capture_output=True, timeout=300)
    wait_until(shared_folder, number, lambda: len(attributes_of(run, 2)) == 4)
    assert state(number)["Restarts"] == "1"
    assert frames_it_went_on_from(run) > 0
    subprocess.run(["scancel", number], check=True)


def test_a_job_that_loses_a_node_goes_on_elsewhere(shared_folder, slurm):
    if slurm is None:
        pytest.skip("not on somebody else's cluster: it crashes a node")
    if nodes() < 3:
        pytest.skip("needs a node to spare")
    number = small(shared_folder, "--seconds", "45")
    run = shared_folder / "runs" / f"scaling-{number}"
    wait_until(shared_folder, number, lambda: list(run.glob("restart/*/DONE")))
    lost = sorted({rank["host"] for rank in attributes_of(run, 1)})[-1]
    slurm("crash", lost)
    try:
        assert wait_for(shared_folder, number, ["COMPLETED"])["Restarts"] == "1"
    finally:
        slurm("revive", lost)
    assert lost not in {rank["host"] for rank in attributes_of(run, 2)}
    assert frames_it_went_on_from(run) > 0


def kill_rank(number, rank):
    """Kill a rank of a job, on whichever node of this machine it is."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            env = process.environ()
            mine = (env.get("SLURM_JOB_ID"), env.get("PMIX_RANK")) == (number, str(rank))
            if mine and process.name().startswith("python"):
                process.kill()
                return
    pytest.fail(f"no rank {rank} of job {number}")


def test_a_killed_actor_is_done_without_and_a_killed_first_rank_restarts_the_job(shared_folder, slurm):
    if slurm is None:
        pytest.skip("not on somebody else's cluster: it looks for processes on this machine")
    number = small(shared_folder, "--seconds", "1200", ULFM="yes")
    run = shared_folder / "runs" / f"scaling-{number}"
    wait_until(shared_folder, number, lambda: list(run.glob("restart/*/DONE")))
    kill_rank(number, 3)
    wait_until(shared_folder, number, lambda: "; without 1 ranks" in (run / "run.log").read_text())
    assert re.search(r"lost: rank 3, .* has died", (run / "run.log").read_text())
    assert state(number)["Restarts"] == "0"
    kill_rank(number, 0)
    wait_until(shared_folder, number, lambda: len(attributes_of(run, 2)) == 4)
    assert state(number)["Restarts"] == "1"
    assert "exit code 75" in output_of(shared_folder, number)
    assert frames_it_went_on_from(run) > 0
    subprocess.run(["scancel", number], check=True)


def test_a_chain_trains_two_arms_plays_them_and_writes_a_page(shared_folder):
    names = {"PYTHONPATH": str(ROOT), "VENV": os.environ.get("VIRTUAL_ENV", ""), "PAGE": "page.html", "EPISODES": "2"}
    script = [FOLDER / "frameworks.sh", *CATCH, "--seconds", "5"]
    command = [FOLDER / "chain.sh", *FOUR_RANKS[nodes() > 1], "--array=6,8", *script]
    done = subprocess.run(
        command, cwd=shared_folder, env=os.environ | names, text=True, capture_output=True, check=True
    )
    numbers = [word.strip(",:") for word in done.stdout.split() if word.strip(",:").isdigit()]
    assert len(numbers) == 3
    wait_for(shared_folder, numbers[-1], ["COMPLETED"])
    for element, recipe in ((6, "paac"), (8, "impala")):
        run = shared_folder / "runs" / f"frameworks-{numbers[0]}_{element}"
        assert len(json.loads((run / "evaluation.json").read_text())) == 1
        assert summary_of(run)["recipe"] == recipe
    assert "frameworks" in (shared_folder / "page.html").read_text()


def test_submit_starts_a_job_and_passes_on_what_slurm_says(shared_folder):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "hpcddrl", "submit", "paac", "--nodes=1", "--tasks_per_node=1", "--timeout_min=10"]
    refused = subprocess.run(
        [*command, "--slurm_partition=nowhere"], cwd=shared_folder, env=env, text=True, capture_output=True
    )
    assert refused.returncode == 1
    assert "invalid partition specified: nowhere" in refused.stderr
    options = [*CATCH, "--seconds", "5"]
    done = subprocess.run([*command, *options], cwd=shared_folder, env=env, text=True, capture_output=True, check=True)
    number = done.stdout.split()[-1]
    wait_for(shared_folder, number, ["COMPLETED"])
    (run,) = (shared_folder / "runs").glob(f"*-{number}")
    assert summary_of(run)["exit_reason"] == "seconds"
