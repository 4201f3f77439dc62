"""The job scripts: what they start, and what they make of its end.

Most tests need no Slurm: a job is a few variables, and its tools are stand-ins that write down how they were called.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import h5py
import pytest

from hpcddrl.comm.placement import Role, fit, place, ranks_of
from hpcddrl.recipes import RECIPES
from hpcddrl.settings import override

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "jobs" / "slurm"
ENSEMBLE = FOLDER / "ensemble_8x2.sh"
LAUNCHERS = ("mpirun", "srun-pmix", "srun-pmi2", "mpiexec")
BASH = shutil.which("bash") or "/bin/bash"

PYTHON = f"""exec {shlex.quote(sys.executable)} "$@" """
SCONTROL = """echo "$*" >>scontrol.log; kill -TERM "$PPID" """  # as Slurm ends a script that requeues its job
SQUEUE = """echo "${STATE-RUNNING}" """
MPIRUN = """
echo "$*" >>mpirun.log
for run; do :; done
mkdir -p "$run/segments/0001"
end() { [ -z "$1" ] || printf '{\\n  "exit_reason": "%s"\\n}\\n' "$1" >"$run/summary.json"; exit "$2"; }
trap 'end "signal SIGUSR1" 75' USR1
while [ -n "${WAIT:-}" ]; do touch waiting; sleep 0.05; done
end "${REASON:-}" "${EXIT:-0}"
"""


@pytest.fixture
def tools(tmp_path):
    """Return a folder that is a whole PATH, with nothing on it but what a node always has."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("dirname", "env", "find", "mkdir", "mv", "sed", "sleep", "sort", "touch", "tr", "wc"):
        (folder / name).symlink_to(shutil.which(name))
    stand_in(folder, "python", PYTHON)
    stand_in(folder, "scontrol", SCONTROL)
    stand_in(folder, "squeue", SQUEUE)
    return folder


def stand_in(folder, name, text):
    (folder / name).write_text(f"#!{BASH}\n{text}\n")
    (folder / name).chmod(0o755)


def variables(tools, **more):
    return {"PATH": str(tools), "VENV": "", "PYTHONPATH": str(ROOT), **more}


def job(tools, **more):
    """Return the environment of a job of 16 tasks that was submitted from the folder of the test."""
    slurm = {"JOB_ID": "7", "JOB_NAME": "ensemble_8x2", "NTASKS": "16", "SUBMIT_DIR": str(tools.parent)}
    return variables(tools, **{f"SLURM_{name}": value for name, value in slurm.items()}, **more)


def start(env, *arguments, cwd):
    return subprocess.Popen(
        [BASH, ENSEMBLE, *arguments], env=env, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def script(env, *arguments, cwd):
    process = start(env, *arguments, cwd=cwd)
    output, errors = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def header(name):
    return re.search(rf"^#SBATCH --{name}(?:=(.*))?$", ENSEMBLE.read_text(), re.MULTILINE)[1]


def saved_run(path, groups=8, reason=None):
    """Make what a segment leaves behind: a configuration and a checkpoint of each group."""
    (path / "segments" / "0001").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"topology": {"servers": 0, "groups": 8}}))
    for group in range(groups):
        folder = path / "checkpoints" / f"group-{group:04d}"
        folder.mkdir(parents=True)
        (folder / "version-00000100.pt").touch()
    if reason:
        (path / "summary.json").write_text(json.dumps({"exit_reason": reason}, indent=2))
    return path


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.sh")), ids=lambda path: path.name)
def test_bash_can_read_it(path):
    subprocess.run([BASH, "-n", path], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck on PATH")
def test_shellcheck_has_nothing_to_say():
    scripts = [str(path.relative_to(ROOT)) for path in sorted(FOLDER.glob("*.sh"))]
    subprocess.run(["shellcheck", "--external-sources", *scripts], cwd=ROOT, check=True)


def test_the_header_asks_for_the_ranks_that_the_experiment_takes(tools, tmp_path):
    printed = shlex.split(script(variables(tools), "--dry-run", cwd=tmp_path).stdout)
    recipe = printed[printed.index("run") + 1]
    settings = [value for option, value in pairwise(printed) if option == "--set"]
    topology = override(RECIPES[recipe](), settings).topology
    ranks = int(header("ntasks"))

    places = place(fit(topology, ranks))
    for group in range(8):
        assert len(ranks_of(places, Role.LEARNER, group)) == len(ranks_of(places, Role.ACTOR, group)) == 1
    assert len(places) == ranks == 16 == int(header("nodes")) * int(header("ntasks-per-node"))
    with pytest.raises(ValueError, match=r"counts that can: 16\b"):
        fit(topology, ranks + 1)

    command = [sys.executable, "-m", "hpcddrl", "ranks", recipe]
    command += [word for setting in settings for word in ("--set", setting)]
    table = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True).stdout
    rows = [[int(n) for n in re.findall(r"\d+", line)] for line in table.splitlines() if "│" in line]
    assert rows == [[16, 0, 8, 1, 1]]


def test_the_header_asks_for_a_warning_in_time_and_for_a_requeue():
    kind, seconds = header("signal").split("@")
    assert kind == "B:USR1"  # without B: it reaches the daemons of mpirun, which die of it
    assert int(seconds) >= 120  # Slurm looks every half minute
    assert header("requeue") is None
    assert header("open-mode") == "append"


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_dry_run_prints_the_command_and_starts_nothing(tools, tmp_path, launcher):
    for arguments, more in ((["--dry-run"], {}), ([], {"DRY_RUN": "1"})):
        env = variables(tools, LAUNCHER=launcher, RUNS="some where", **more)
        done = script(env, "--seed", "3 4", *arguments, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        printed = shlex.split(done.stdout)
        assert launcher.partition("-")[0] in printed
        assert printed[printed.index("-n") + 1] == "16"
        assert "OMP_NUM_THREADS=1" in printed
        assert printed[-4:] == ["--seed", "3 4", "--out", "some where/ensemble_8x2-JOBID"]
        program = printed[printed.index("python") :]
        assert program[:5] == ["python", "-m", "hpcddrl", "run", "group_ensemble"]
        assert "--dry-run" not in printed
    assert not (tmp_path / "some where").exists()


def test_threads_and_binding_follow_the_cpus_of_a_task(tools, tmp_path):
    for launcher, option in (("mpirun", "--map-by slot:pe=4"), ("srun-pmix", "--cpus-per-task=4")):
        env = job(tools, LAUNCHER=launcher, SLURM_CPUS_PER_TASK="4", DRY_RUN="1")
        printed = script(env, cwd=tmp_path).stdout
        assert option in printed
        assert "OMP_NUM_THREADS=4" in printed


def test_nodes_that_would_stay_empty_are_mentioned(tools, tmp_path):
    for nodes, mentioned in (("2", False), ("4", True)):
        env = job(tools, SLURM_JOB_NUM_NODES=nodes, SLURM_NTASKS_PER_NODE="8", DRY_RUN="1")
        assert ("lower --ntasks-per-node" in script(env, cwd=tmp_path).stdout) == mentioned


def test_outside_slurm_it_says_how_to_submit(tools, tmp_path):
    done = script(variables(tools), cwd=tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(r"jobs/slurm: this is no Slurm job: submit it with  sbatch .*\n", done.stderr)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_missing_launcher_is_named(tools, tmp_path, launcher):
    done = script(job(tools, LAUNCHER=launcher), cwd=tmp_path)
    assert done.returncode == 2
    assert f"LAUNCHER={launcher}: no {launcher.partition('-')[0]} on PATH" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"LAUNCHER": "aprun"}, "LAUNCHER=aprun: not one of"),
        ({"LAUNCHER": "srun-pmix"}, "LAUNCHER=srun-pmix: srun has no such plugin"),
        ({"VENV": "nowhere"}, "VENV=nowhere: no Python environment there"),
        ({"PYTHONPATH": "", "LAUNCHER": "srun-pmi2"}, "no hpcddrl in"),
        ({"RESUME": "runs/other"}, "RESUME=runs/other: no run with checkpoints"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(tools, tmp_path, more, complaint):
    stand_in(tools, "srun", "echo 'MPI plugin types are...'; echo none; echo cray_shasta; echo pmi2")
    stand_in(tools, "mpirun", MPIRUN)
    if more.get("PYTHONPATH") == "":
        stand_in(tools, "python", f'exec {shlex.quote(sys.executable)} -S -E -P "$@"')
    done = script(job(tools, **more), cwd=tmp_path)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert not (tmp_path / "mpirun.log").exists()


@pytest.mark.parametrize("option", ["--out", "--resume=runs/other"])
def test_the_job_chooses_the_directory(tools, tmp_path, option):
    done = script(job(tools), option, "x", cwd=tmp_path)
    assert done.returncode == 2
    assert option in done.stderr


@pytest.mark.parametrize(
    ("reason", "code", "requeued", "exits"),
    [
        ("frames", 0, False, 0),
        ("seconds", 1, False, 0),  # the run is right about its end, not its launcher
        ("signal SIGUSR1", 75, True, None),
        ("signal SIGTERM", 0, True, None),
        ("", 0, True, None),  # a node was lost, says Open MPI's mpirun
        ("", 137, True, None),
        ("", 1, False, 1),
        ("", 2, False, 2),
    ],
)
def test_the_end_is_what_the_run_says(tools, tmp_path, reason, code, requeued, exits):
    stand_in(tools, "mpirun", MPIRUN)
    done = script(job(tools, REASON=reason, EXIT=str(code)), cwd=tmp_path)
    log = tmp_path / "scontrol.log"
    assert (log.read_text() if log.exists() else "") == ("requeue 7\n" if requeued else "")
    assert requeued or done.returncode == exits
    assert (tmp_path / "mpirun.log").read_text().endswith(f"--out {tmp_path}/runs/ensemble_8x2-7\n")


@pytest.mark.parametrize("number", ["USR1", "TERM"])
def test_a_warning_becomes_usr1_for_the_launcher_then_a_requeue(tools, tmp_path, number):
    stand_in(tools, "mpirun", MPIRUN)
    process = start(job(tools, WAIT="1"), cwd=tmp_path)
    while not (tmp_path / "waiting").exists():
        time.sleep(0.05)
    subprocess.run(["kill", f"-{number}", str(process.pid)], check=True)
    output, _ = process.communicate(timeout=60)
    assert "stopped by signal SIGUSR1; requeue" in output
    assert (tmp_path / "scontrol.log").read_text() == "requeue 7\n"


@pytest.mark.parametrize(
    "more", [{"STATE": "COMPLETING"}, {"STATE": ""}, {"SLURM_RESTART_COUNT": "3", "MAX_RESTARTS": "3"}]
)
def test_cancelled_jobs_and_those_restarted_often_stay_down(tools, tmp_path, more):
    stand_in(tools, "mpirun", MPIRUN)
    done = script(job(tools, REASON="signal SIGTERM", **more), cwd=tmp_path)
    assert done.returncode == 75
    assert f"RESUME={tmp_path}/runs/ensemble_8x2-7 sbatch" in done.stdout
    assert not (tmp_path / "scontrol.log").exists()


def test_a_restart_resumes_and_does_not_take_the_old_summary_for_its_own(tools, tmp_path):
    stand_in(tools, "mpirun", MPIRUN)
    run = saved_run(tmp_path / "runs" / "ensemble_8x2-7", reason="signal SIGUSR1")
    done = script(job(tools, SLURM_RESTART_COUNT="1", EXIT="1"), cwd=tmp_path)
    assert done.returncode == 1
    assert (tmp_path / "mpirun.log").read_text().endswith(f"--resume {run}\n")
    assert not (run / "summary.json").exists()
    assert "SIGUSR1" in (run / "segments" / "0001" / "summary.json").read_text()


def test_a_restart_without_all_checkpoints_starts_anew_and_keeps_what_there_is(tools, tmp_path):
    stand_in(tools, "mpirun", MPIRUN)
    run = saved_run(tmp_path / "runs" / "ensemble_8x2-7", groups=7)
    done = script(job(tools, SLURM_RESTART_COUNT="2", REASON="frames"), cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "mpirun.log").read_text().endswith(f"--out {run}\n")
    assert (tmp_path / "runs" / "ensemble_8x2-7.lost-2" / "config.json").exists()


def test_a_run_that_has_ended_is_not_run_again(tools, tmp_path):
    stand_in(tools, "mpirun", MPIRUN)
    run = saved_run(tmp_path / "runs" / "ensemble_8x2-7", reason="seconds")
    for more in ({}, {"RESUME": str(run)}):
        done = script(job(tools, SLURM_RESTART_COUNT="1", **more), cwd=tmp_path)
        assert done.returncode == 0
        assert f"{run} has ended already (seconds)" in done.stdout
    assert not (tmp_path / "mpirun.log").exists()


def test_the_run_of_another_job_is_resumed_only_if_named(tools, tmp_path):
    stand_in(tools, "mpirun", MPIRUN)
    run = saved_run(tmp_path / "runs" / "ensemble_8x2-7", reason="frames")
    done = script(job(tools), cwd=tmp_path)
    assert done.returncode == 2
    assert "RESUME=" in done.stderr
    done = script(job(tools, RESUME=str(run), REASON="frames"), "--frames", "8e7", cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "mpirun.log").read_text().endswith(f"--frames 8e7 --resume {run}\n")


@pytest.fixture
def shared_folder():
    """Make a folder that all nodes see, as they do the program itself; skip where there is no Slurm."""
    if shutil.which("sbatch") is None:
        pytest.skip("no sbatch on PATH")
    if subprocess.run(["sinfo", "--noheader"], capture_output=True).returncode:
        pytest.skip("no Slurm controller answers")
    (ROOT / "runs").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "runs", prefix="test-") as folder:
        yield Path(folder)


def submit(folder, *arguments, **more):
    """Submit the experiment on a small environment for a few seconds; return the job's number."""
    env = os.environ | {"PYTHONPATH": str(ROOT), **more}
    command = ["sbatch", "--parsable", "--time=5", ENSEMBLE, "--env", "hpcddrl/Catch-v0", *arguments]
    done = subprocess.run(command, cwd=folder, env=env, text=True, capture_output=True, check=True)
    return done.stdout.strip().partition(";")[0]


def state(number):
    shown = subprocess.run(["scontrol", "show", "job", number], text=True, capture_output=True, check=True).stdout
    return dict(word.split("=", 1) for word in shown.split() if "=" in word)


def wait_for(folder, number, reached):
    """Wait for a job's state to be one of ``reached``; fail with its output at any other end."""
    while (now := state(number))["JobState"] not in reached:
        output = folder / f"ensemble_8x2-{number}.out"
        ended = now["JobState"] not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED")
        assert not ended, f"{now['JobState']}\n{output.read_text()}"
        time.sleep(0.5)
    return now


@pytest.mark.slurm
@pytest.mark.timeout(900)
@pytest.mark.parametrize("launcher", ["mpirun", "srun-pmix"])
def test_the_experiment_runs_on_two_nodes(shared_folder, launcher):
    number = submit(shared_folder, "--seconds", "10", LAUNCHER=launcher)
    wait_for(shared_folder, number, ["COMPLETED"])
    run = shared_folder / "runs" / f"ensemble_8x2-{number}"
    with h5py.File(run / "run.h5", "r") as file:
        ranks = [dict(rank.attrs) for rank in file["ranks"].values()]
    assert len(ranks) == 16
    assert len({rank["host"] for rank in ranks}) == 2
    assert {rank["slurm_job_id"] for rank in ranks} == {number}
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["recipe"], summary["ranks"], summary["exit_reason"]) == ("group_ensemble", 16, "seconds")
    assert summary["updates"] > 0


@pytest.mark.slurm
@pytest.mark.timeout(900)
def test_a_warned_job_comes_back_and_goes_on(shared_folder):
    number = submit(shared_folder, "--seconds", "15")
    run = shared_folder / "runs" / f"ensemble_8x2-{number}"
    wait_for(shared_folder, number, ["RUNNING"])
    while not list(run.glob("segments/0001/*.h5")):
        time.sleep(0.5)
    time.sleep(2)
    subprocess.run(["scancel", "--batch", "--signal=USR1", number], check=True)
    assert wait_for(shared_folder, number, ["COMPLETED"])["Restarts"] == "1"
    reasons = [json.loads(path.read_text())["exit_reason"] for path in sorted(run.rglob("summary.json"))]
    assert sorted(reasons) == ["seconds", "signal SIGUSR1"]
    assert (run / "segments" / "0002").is_dir()


@pytest.mark.slurm
@pytest.mark.timeout(900)
def test_a_cancelled_job_stays_cancelled(shared_folder):
    number = submit(shared_folder, "--seconds", "60")
    wait_for(shared_folder, number, ["RUNNING"])
    while not list(shared_folder.glob(f"runs/ensemble_8x2-{number}/segments/0001/*.h5")):
        time.sleep(0.5)
    subprocess.run(["scancel", number], check=True)
    wait_for(shared_folder, number, ["CANCELLED"])
    time.sleep(10)
    assert state(number)["JobState"] == "CANCELLED"
