"""The job scripts: what they start, and what they make of its end.

These tests need no Slurm: a job is a few variables, and its tools are stand-ins that write down how they were called.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from hpcddrl.comm.placement import Role, fit, place, ranks_of
from hpcddrl.commands.run import run as run_command
from hpcddrl.recipes import RECIPES
from hpcddrl.runtime.checks import fitted
from hpcddrl.settings import override

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "jobs" / "slurm"
ENSEMBLE = FOLDER / "ensemble_8x2.sh"
SCRIPTS = sorted([*ROOT.glob("jobs/*/*.sh"), Path(__file__).with_name("cluster.sh")])
EXPERIMENTS = sorted(path for path in FOLDER.glob("*.sh") if re.search(r"^train ", path.read_text(), re.MULTILINE))
PBS = ROOT / "jobs" / "pbs" / "ensemble_8x2.sh"
LAUNCHERS = ("mpirun", "srun-pmix", "srun-pmi2", "mpiexec")
BASH = shutil.which("bash") or "/bin/bash"

# The program's own commands take seconds to start, and have tests of their own.
PYTHON = f"""
case "$*" in *hpcddrl*) echo "$*" >>python.log; exit "${{LAYOUT:-0}}" ;; esac
exec {shlex.quote(sys.executable)} "$@"
"""
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
    for name in ("dirname", "env", "find", "mkdir", "mv", "sed", "seq", "sleep", "sort", "tee", "touch", "tr", "wc"):
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
    return variables(tools, **{f"SLURM_{name}": value for name, value in slurm.items()} | more)


def start(env, *arguments, cwd, path=ENSEMBLE):
    return subprocess.Popen(
        [BASH, path, *arguments], env=env, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def script(env, *arguments, cwd, path=ENSEMBLE):
    process = start(env, *arguments, cwd=cwd, path=path)
    output, errors = process.communicate(timeout=240)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def headers(path, name):
    """Return an option's values in a script's header, one a component of the job that has it."""
    return re.findall(rf"^#SBATCH --{name}(?:=(.*))?$", path.read_text(), re.MULTILINE)


def printed_runs(output):
    """Return the words of each command that a dry run has printed."""
    return [shlex.split(line) for line in output.splitlines() if not line.startswith("#")]


def program_of(words):
    """Return what follows `run` in a printed command, up to the next component's part."""
    words = words[words.index("run") + 1 :]
    return words[: words.index(":")] if ":" in words else words


def saved_run(path, marked=True, reason=None):
    """Make what a segment leaves behind: a configuration, what is played, and a checkpoint of the whole job."""
    for folder in ("segments/0001", "checkpoints/group-0000", "restart/000003"):
        (path / folder).mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "checkpoints" / "group-0000" / "version-00000100.pt").touch()
    (path / "restart" / "000003" / "node-0000.bin").touch()
    if marked:
        (path / "restart" / "000003" / "DONE").touch()
    if reason:
        (path / "summary.json").write_text(json.dumps({"exit_reason": reason}, indent=2))
    return path


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_bash_can_read_it(path):
    subprocess.run([BASH, "-n", path], check=True)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck on PATH")
def test_shellcheck_has_nothing_to_say(path):
    subprocess.run(["shellcheck", "--exclude=SC1091,SC2153", path], cwd=ROOT, check=True)  # what other files set


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_the_header_asks_for_ranks_on_which_every_run_can_be_laid_out(tools, tmp_path, path):
    done = script(variables(tools, LAUNCHER="srun-pmix"), "--dry-run", cwd=tmp_path, path=path)
    assert (done.returncode, done.stderr) == (0, "")
    runs = printed_runs(done.stdout)
    array = headers(path, "array")
    assert [f"0-{len(runs) - 1}"] == [value.partition("%")[0] for value in array or ["0-0"]]
    ranks = sum(map(int, headers(path, "ntasks")))
    for words in runs:
        given = run_command.make_context("run", program_of(words)).params  # refuses unknown options
        fitted(override(RECIPES[given["recipe"]](), list(given["settings"])), ranks)
        asked = [int(count) for option, count in pairwise(words) if option == "-n"]
        assert sum(asked) == ranks
    assert len({tuple(words) for words in runs}) == len(runs)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_the_header_asks_for_a_warning_in_time_and_for_a_requeue(path):
    (warning,) = headers(path, "signal")
    kind, seconds = warning.split("@")
    assert kind == "B:USR1"  # without B: it reaches the daemons of mpirun, which die of it
    assert int(seconds) >= 120  # Slurm looks every half minute
    assert headers(path, "requeue") == [""]
    assert headers(path, "open-mode") == ["append"]
    assert headers(path, "job-name") == [path.stem]
    assert headers(path, "output") == ["%x-%A_%a.out" if headers(path, "array") else "%x-%j.out"]


@pytest.mark.parametrize(
    ("name", "learners", "actors"), [("ensemble_8x2", 1, 1), ("ensemble_4x4", 2, 2), ("learners_and_actors", 2, 14)]
)
def test_a_scripts_name_is_its_layout(tools, tmp_path, name, learners, actors):
    path = FOLDER / f"{name}.sh"
    (words,) = printed_runs(script(variables(tools, LAUNCHER="srun-pmix"), "--dry-run", cwd=tmp_path, path=path).stdout)
    recipe, *options = program_of(words)
    settings = [value for option, value in pairwise(options) if option == "--set"]
    places = place(fit(override(RECIPES[recipe](), settings).topology, 16))
    for group in range(16 // (learners + actors)):
        assert len(ranks_of(places, Role.LEARNER, group)) == learners
        assert len(ranks_of(places, Role.ACTOR, group)) == actors
    if name == "learners_and_actors":  # the first component's ranks are the learners
        assert ranks_of(places, Role.LEARNER) == list(range(int(headers(path, "ntasks")[0])))


def test_the_program_says_whether_the_layout_fits(tools, tmp_path):
    stand_in(tools, "mpirun", MPIRUN)
    stand_in(tools, "python", f'exec {shlex.quote(sys.executable)} "$@"')
    done = script(job(tools, SLURM_NTASKS="15"), cwd=tmp_path)
    assert done.returncode == 2
    assert "15 ranks cannot be laid out as 8 groups of 1 learners and 1 actors" in done.stderr
    assert re.search(r"counts that can: 16\b", done.stderr)
    assert not (tmp_path / "mpirun.log").exists()


def test_an_element_of_an_array_is_an_arm_a_game_and_a_seed(tools, tmp_path):
    env = {"LAUNCHER": "mpirun", "SEEDS": "5 6 7", "GAMES": "a/A b/B", "DRY_RUN": "1", "SLURM_ARRAY_JOB_ID": "9"}
    found = []
    for element in range(12):
        done = script(job(tools, **env, SLURM_ARRAY_TASK_ID=str(element)), "--frames", "1e6", cwd=tmp_path)
        (words,) = printed_runs(done.stdout)
        assert words[-4:] == ["--frames", "1e6", "--out", f"{tmp_path}/runs/ensemble_8x2-9_{element}"]
        found.append(("coupling=uncoupled" in words, words[words.index("--env") + 1], words[words.index("--seed") + 1]))
    assert found == [(arm, env, seed) for seed in "567" for env in ("a/A", "b/B") for arm in (False, True)]
    done = script(job(tools, **env, SLURM_ARRAY_TASK_ID="12"), cwd=tmp_path)
    assert done.returncode == 2
    assert "array element 12: there are 12 runs (2 arms, 2 games, 3 seeds)" in done.stderr


@pytest.mark.parametrize("option", ["--seed", "--seed=3", "--env", "--env=x"])
def test_an_array_of_seeds_or_games_takes_no_single_one(tools, tmp_path, option):
    env = job(tools, SLURM_ARRAY_TASK_ID="1", SLURM_ARRAY_JOB_ID="7", GAMES="a/A b/B")
    done = script(env, option, "3", cwd=tmp_path)
    assert done.returncode == 2
    assert option in done.stderr


def test_an_element_resumes_the_run_of_its_number(tools, tmp_path):
    stand_in(tools, "mpirun", MPIRUN)
    run = saved_run(tmp_path / "runs" / "ensemble_8x2-3_1", reason="signal SIGUSR1")
    env = {"RESUME": f"{tmp_path}/runs/ensemble_8x2-3", "SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "1"}
    done = script(job(tools, **env, REASON="frames"), cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "mpirun.log").read_text().endswith(f"--resume {run}\n")


def test_an_element_requeues_itself_and_not_its_array(tools, tmp_path):
    stand_in(tools, "mpirun", MPIRUN)
    element = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}  # whose own number is the array's
    script(job(tools, **element, REASON="signal SIGUSR1"), cwd=tmp_path)
    assert (tmp_path / "scontrol.log").read_text() == "requeue 7_2\n"
    ended = script(
        job(tools, **element, REASON="signal SIGUSR1", SLURM_JOB_ID="9", RUNS="r", MAX_RESTARTS="0"), cwd=tmp_path
    )
    assert ended.stdout.strip().endswith("go on with  RESUME=r/ensemble_8x2-7 sbatch --array=2 ...")


def test_each_size_is_a_job_of_its_own(tools, tmp_path):
    stand_in(tools, "sbatch", 'echo "$*" >>sbatch.log')
    path = FOLDER / "scaling.sh"
    done = script(variables(tools, SIZES="4 20"), "--seconds", "9", cwd=tmp_path, path=path)
    assert (done.returncode, done.stderr) == (0, "")
    expected = [f"--nodes=1 --ntasks=4 --ntasks-per-node=4 {path} --seconds 9"]
    expected += [f"--nodes=3 --ntasks=20 --ntasks-per-node=7 {path} --seconds 9"]
    assert (tmp_path / "sbatch.log").read_text().splitlines() == expected
    shown = script(variables(tools, SIZES="4 20"), "--dry-run", "--seconds", "9", cwd=tmp_path, path=path).stdout
    assert [line.removeprefix("# sbatch ").strip() for line in shown.splitlines()[:2]] == expected


@pytest.mark.parametrize("path", [FOLDER / "ensemble_scaling.sh", FOLDER / "scaling.sh"], ids=lambda path: path.stem)
def test_every_arm_can_be_laid_out_at_every_size(tools, tmp_path, path):
    for arm in range(len(re.findall(r"^arm ", path.read_text(), re.MULTILINE))):
        env = variables(tools, SLURM_ARRAY_TASK_ID=str(arm))
        done = script(env, "--dry-run", cwd=tmp_path, path=path)
        sizes = [int(n) for n in re.findall(r"^# sbatch .*--ntasks=(\d+)", done.stdout, re.MULTILINE)]
        assert len(sizes) >= 5
        (words,) = printed_runs(done.stdout)
        recipe, *options = program_of(words)
        settings = [value for option, value in pairwise(options) if option == "--set"]
        for size in sizes:
            fitted(override(RECIPES[recipe](), settings), size)


def test_components_of_a_job_have_their_own_tasks_and_threads(tools, tmp_path):
    path = FOLDER / "learners_and_actors.sh"
    sizes = {"NTASKS": "2", "HET_SIZE": "2", "NTASKS_HET_GROUP_0": "2", "NTASKS_HET_GROUP_1": "6"}
    cpus = {"CPUS_PER_TASK_HET_GROUP_0": "8", "CPUS_PER_TASK_HET_GROUP_1": "1"}
    env = {f"SLURM_{name}": value for name, value in (sizes | cpus).items()}
    done = script(job(tools, **env, LAUNCHER="srun-pmi2", DRY_RUN="1"), cwd=tmp_path, path=path)
    (words,) = printed_runs(done.stdout)
    first, second = words[: words.index(":")], words[words.index(":") :]
    for part, group, tasks, threads in ((first, 0, 2, 8), (second, 1, 6, 1)):
        assert f"--het-group={group}" in part
        assert f"--cpus-per-task={threads}" in part
        assert f"OMP_NUM_THREADS={threads}" in part
        assert part[part.index("-n") + 1] == str(tasks)
        assert part[part.index("hpcddrl") - 2 :][:4] == ["python", "-m", "hpcddrl", "run"]
    done = script(job(tools, **env, LAUNCHER="mpirun"), cwd=tmp_path, path=path)
    assert done.returncode == 2
    assert "choose srun-pmix or srun-pmi2" in done.stderr


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_dry_run_prints_the_command_and_starts_nothing(tools, tmp_path, launcher):
    for arguments, more in ((["--dry-run"], {}), ([], {"DRY_RUN": "1"})):
        env = variables(tools, LAUNCHER=launcher, RUNS="some where", **more)
        done = script(env, "--seed", "3 4", *arguments, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        (printed,) = printed_runs(done.stdout)
        assert all(f"#SBATCH --nodes={n}" in done.stdout for n in headers(ENSEMBLE, "nodes"))
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
        ({"RESUME": "runs/other"}, "RESUME=runs/other: no run with a checkpoint"),
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
        ("", 75, True, None),  # lost what it cannot do without
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
    output, _ = process.communicate(timeout=240)
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


def test_a_restart_without_a_whole_checkpoint_starts_anew_and_keeps_what_there_is(tools, tmp_path):
    stand_in(tools, "mpirun", MPIRUN)
    run = saved_run(tmp_path / "runs" / "ensemble_8x2-7", marked=False)
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


def test_the_end_has_an_account_of_the_processors(tools, tmp_path):
    stand_in(tools, "mpirun", MPIRUN + "\n")
    stand_in(tools, "sacct", "echo 'Slurm says' $1")
    run = saved_run(tmp_path / "runs" / "ensemble_8x2-7", reason="signal SIGUSR1")
    (run / "run.h5").touch()
    cpus = {"SLURM_JOB_CPUS_PER_NODE": "8(x2),4", "SLURM_RESTART_COUNT": "1"}
    done = script(job(tools, **cpus, REASON="frames"), cwd=tmp_path)
    assert done.returncode == 0
    assert f"-m hpcddrl efficiency {run} --cpus 20\n" in (tmp_path / "python.log").read_text()
    assert "Slurm says --jobs=7" in done.stdout


@pytest.mark.parametrize("variable", ["OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID"])
def test_a_ranks_words_are_kept_and_passed_on(tools, tmp_path, variable):
    program = "trap : USR1; echo out; echo err >&2; kill -USR1 0; echo late; exit 3"
    command = [BASH, FOLDER / "rank.sh", "logs", BASH, "-c", program]
    env = variables(tools, **{variable: "12"})
    done = subprocess.run(command, env=env, cwd=tmp_path, text=True, capture_output=True, start_new_session=True)
    assert done.returncode == 3
    assert sorted(done.stdout.split()) == ["err", "late", "out"]
    assert sorted((tmp_path / "logs" / "rank-0012.log").read_text().split()) == ["err", "late", "out"]


def test_rank_logs_and_words_for_the_launcher_are_asked_for(tools, tmp_path):
    env = job(tools, RANK_LOGS="yes", LAUNCHER_OPTIONS="--mca btl ^openib", DRY_RUN="1")
    (words,) = printed_runs(script(env, cwd=tmp_path).stdout)
    assert words[words.index("mpirun") :][:6] == ["mpirun", "-n", "16", "--mca", "btl", "^openib"]
    assert words[words.index("bash") + 1 :][:3] == [
        f"{FOLDER}/rank.sh",
        f"{tmp_path}/runs/ensemble_8x2-7.ranks",
        "python",
    ]


@pytest.mark.parametrize("has", ["yes", "no"])
@pytest.mark.parametrize("ulfm", ["yes", "auto", "no"])
def test_ulfm_is_asked_of_an_mpirun_that_has_it(tools, tmp_path, ulfm, has):
    stand_in(tools, "mpirun", MPIRUN)
    stand_in(tools, "ompi_info", f"echo '   FT MPI support: {has}'")
    done = script(job(tools, ULFM=ulfm, FAST_NETWORKS="", REASON="frames"), cwd=tmp_path)
    if (ulfm, has) == ("yes", "no"):
        assert done.returncode == 2
        assert "ULFM=yes: this mpirun is not" in done.stderr
    else:
        assert done.returncode == 0
        assert ("--with-ft ulfm" in (tmp_path / "mpirun.log").read_text()) == (ulfm != "no" and has == "yes")


@pytest.mark.parametrize(("ulfm", "asked"), [({}, False), ({"ULFM": "yes"}, True)])
def test_ulfm_takes_no_fast_network_away_unless_it_is_asked_for(tools, tmp_path, ulfm, asked):
    stand_in(tools, "ompi_info", "echo 'FT MPI support: yes'")
    (tmp_path / "networks" / "mlx5_0").mkdir(parents=True)
    env = job(tools, DRY_RUN="1", FAST_NETWORKS=f"{tmp_path}/none {tmp_path}/networks", **ulfm)
    assert ("--with-ft ulfm" in script(env, cwd=tmp_path).stdout) == asked


@pytest.mark.parametrize(
    ("array", "numbers", "elements"),
    [((), ["41"], []), (("--array=1,3",), ["41_1", "41_3"], ["1", "3"]), ((), ["41+0", "41+1"], [])],
)
def test_a_chain_plays_each_run_and_writes_a_page_on_all(tools, tmp_path, array, numbers, elements):
    stand_in(tools, "sbatch", 'n=$(wc -l <sbatch.log); echo "$PAGE $*" >>sbatch.log; echo "$((41 + n))"')
    stand_in(tools, "squeue", "\n".join(f"echo 'name {number}'" for number in numbers))
    stand_in(tools, "scontrol", 'echo "$*" >>scontrol.log')
    (tmp_path / "sbatch.log").touch()
    env = variables(tools, RUNS="r", PAGE="p.html")
    done = script(env, *array, "some.sh", "--frames", "1", cwd=tmp_path, path=FOLDER / "chain.sh")
    assert (done.returncode, done.stderr) == (0, "")
    train, evaluate, report = (tmp_path / "sbatch.log").read_text().splitlines()
    runs = " ".join([f"r/name-41_{element}" for element in elements] or ["r/name-41"])
    assert train == f"p.html --parsable --hold {' '.join(array)}{' ' * bool(array)}some.sh --frames 1"
    assert "--dependency=aftercorr:41 --kill-on-invalid-dep=yes" in evaluate
    assert ("--array=1,3" in evaluate) == bool(elements)
    assert evaluate.endswith(f"{FOLDER}/evaluate.sh {runs}")
    assert "p.html --parsable --dependency=afterany:41:42" in report
    assert report.endswith(f"{FOLDER}/report.sh {runs}")
    assert (tmp_path / "scontrol.log").read_text() == "release 41\n"


def test_what_follows_training_takes_runs(tools, tmp_path):
    runs = [saved_run(tmp_path / f"some-41_{k}") for k in (0, 1, 11)]
    for name, env, expected in (
        ("evaluate", {"SLURM_ARRAY_TASK_ID": "1"}, [f"evaluate --episodes 30 {runs[1]}"]),
        ("evaluate", {}, [f"evaluate --episodes 30 {run}" for run in runs]),
        ("report", {"PAGE": "p.html"}, [f"report --out p.html {runs[0]} {runs[1]} {runs[2]}"]),
    ):
        (tmp_path / "python.log").unlink(missing_ok=True)
        arguments = [*map(str, runs), *["nowhere"] * (name == "report")]
        done = script(job(tools, **env), *arguments, cwd=tmp_path, path=FOLDER / f"{name}.sh")
        assert (done.returncode, done.stderr) == (0, "")
        called = (tmp_path / "python.log").read_text().splitlines()
        assert [line.removeprefix("-m hpcddrl ") for line in called] == expected
        assert script(job(tools), cwd=tmp_path, path=FOLDER / f"{name}.sh").returncode == 2


@pytest.fixture
def pbs_job(tools):
    """Return the environment of a job under PBS, whose commands are stand-ins."""
    stand_in(tools, "mpirun", MPIRUN)
    stand_in(tools, "qsub", 'echo "$*" >>qsub.log; echo 8.server')
    stand_in(tools, "qstat", 'echo "    Resource_List.walltime = 00:02:0${LEFT:-9}"')
    folder = tools.parent
    (folder / "nodes").write_text("a\n" * 8 + "b\n" * 8)
    (folder / "jobs").symlink_to(ROOT / "jobs")
    pbs = {"O_WORKDIR": str(folder), "JOBID": "7.server", "JOBNAME": "ensemble_8x2", "NODEFILE": f"{folder}/nodes"}
    return variables(tools, **{f"PBS_{name}": value for name, value in pbs.items()})


def test_the_pbs_twin_runs_the_same(pbs_job, tmp_path):
    slurm = script(job(tmp_path / "bin", SEEDS="", DRY_RUN="1"), "--frames", "8", cwd=tmp_path)
    (words,) = printed_runs(slurm.stdout)
    done = script(pbs_job | {"REASON": "frames", "OPTIONS": "--frames 8"}, cwd="/", path=PBS)
    assert (done.returncode, done.stderr) == (0, "")
    called = (tmp_path / "mpirun.log").read_text().split()
    assert called[:4] == ["-n", "16", "--hostfile", f"{tmp_path}/nodes"]
    assert called[4:] == words[words.index("python") :]
    assert not (tmp_path / "qsub.log").exists()


def test_the_pbs_twin_warns_itself_and_submits_itself_again(pbs_job, tmp_path):
    saved_run(tmp_path / "runs" / "ensemble_8x2-7", reason="signal SIGUSR1")
    resume = f"{tmp_path}/runs/ensemble_8x2-7"
    done = script(pbs_job | {"WAIT": "1", "LEFT": "1", "RESTARTS": "1", "RESUME": resume}, cwd="/", path=PBS)
    assert done.returncode == 75
    assert "submitted again: 8.server" in done.stdout
    expected = f"-l walltime=00:02:01 -v RESUME={resume},RESTARTS=2,OPTIONS= jobs/pbs/ensemble_8x2.sh\n"
    assert (tmp_path / "qsub.log").read_text() == expected


@pytest.mark.parametrize("restarts", ["0", "10"])
def test_the_pbs_twin_stays_down_where_it_should(pbs_job, tmp_path, restarts):
    ends = {"0": {"REASON": "signal SIGTERM"}, "10": {"EXIT": "137"}}[restarts]
    done = script(pbs_job | ends | {"RESTARTS": restarts}, cwd="/", path=PBS)
    assert done.returncode == 75
    assert "go on with  qsub -v RESUME=" in done.stdout
    assert not (tmp_path / "qsub.log").exists()
