"""Submitting a job: the script that is written, what Slurm is given, and what is refused before it is asked."""

import os
import shlex
import shutil
import subprocess

import pytest

BASH = shutil.which("bash") or "/bin/bash"
PAAC = ("submit", "paac", "--env", "CartPole-v1")


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """Return a function that puts a stand-in for sbatch on PATH, and is all there is on it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def make(body):
        (tmp_path / "sbatch").write_text(f"#!{BASH}\n{body}\n")
        (tmp_path / "sbatch").chmod(0o755)

    return make


def header_of(text):
    return [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH ")]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["--nodes=3", "--tasks_per_node=4"], ["nodes=3", "ntasks=12", "ntasks-per-node=4"]),
        (["--tasks-per-node=4"], ["nodes=1", "ntasks=4", "ntasks-per-node=4"]),
        (["--cpus_per_task=8"], ["cpus-per-task=8"]),
        (["--gpus_per_node=2"], ["gpus-per-node=2"]),
        (["--mem_gb=1.5"], ["mem=1536M"]),
        (["--timeout_min=90"], ["time=90"]),
        (["--name=other"], ["job-name=other"]),
        (["--slurm_partition=cpu", "--slurm-account=us"], ["partition=cpu", "account=us"]),
        (
            ["--slurm_qos=low", "--slurm_constraint=a&b", "--slurm_exclude=n1"],
            ["qos=low", "constraint=a&b", "exclude=n1"],
        ),
        (["--slurm_signal_delay_s=300"], ["signal=B:USR1@300"]),
        (["--slurm_additional_parameters", "mail_type=END"], ["mail-type=END"]),
        (["--seeds=1 2", "--games=CartPole-v1 Acrobot-v1 x", "--slurm_array_parallelism=4"], ["array=0-5%4"]),
        ([], ["job-name=paac", "requeue", "open-mode=append"]),
    ],
)
def test_what_is_asked_for_stands_in_the_header(command, asked, expected):
    code, out, err = command(*PAAC, *asked, "--dry-run")
    assert (code, err) == (0, "")
    assert set(expected) <= set(header_of(out))


def test_the_script_starts_what_run_would(command, tmp_path):
    options = ["--frames", "1e5", "--set", "optimization.learning_rate=0.1", "--target-return", "450"]
    code, out, _ = command(*PAAC, "--tasks-per-node", 2, "--seeds", "4 5", *options, "--dry-run")
    assert code == 0
    path = tmp_path / "a script.sh"
    path.write_text(out)
    env = os.environ | {"VENV": "", "LAUNCHER": "mpirun"}
    shown = subprocess.run([BASH, path, "--dry-run"], cwd=tmp_path, env=env, text=True, capture_output=True, check=True)
    runs = [shlex.split(line) for line in shown.stdout.splitlines() if not line.startswith("#")]
    for element, (words, seed) in enumerate(zip(runs, "45", strict=True)):
        assert words[words.index("-n") + 1] == "2"
        expected = ["paac", "--seed", seed, "--env", "CartPole-v1", *options]
        expected += ["--out", f"{tmp_path}/runs/paac-JOBID_{element}"]
        assert words[words.index("run") + 1 :] == expected


def test_the_script_is_kept_and_given_to_slurm(command, sbatch, tmp_path):
    sbatch('echo "$*" >sbatch.log; echo "12;cluster"')
    code, out, err = command(*PAAC, "--folder", "kept")
    assert (code, err) == (0, "")
    (path,) = (tmp_path / "kept").glob("paac-*.sh")
    assert out == f"{path} submitted as job 12\n"
    assert (tmp_path / "sbatch.log").read_text() == f"--parsable {path}\n"
    assert f"output={tmp_path}/kept/%x-%j.out" in header_of(path.read_text())
    subprocess.run([BASH, "-n", path], check=True)


def test_slurms_own_words_are_passed_on(command, sbatch, tmp_path):
    sbatch('echo "sbatch: error: invalid partition specified: nowhere" >&2; exit 1')
    code, out, err = command(*PAAC, "--slurm-partition", "nowhere")
    assert (code, out, err) == (1, "", "sbatch: error: invalid partition specified: nowhere\n")
    assert list((tmp_path / "submitted").iterdir()) == []


def test_without_slurm_it_says_so_and_writes_nothing(command, sbatch, tmp_path):
    code, out, err = command(*PAAC)
    assert (code, out) == (2, "")
    assert err == "hpcddrl: no sbatch on PATH: submit where Slurm is, or look at the script with --dry-run\n"
    assert not (tmp_path / "submitted").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nothing"], "recipe 'nothing'"),
        (["group_ensemble", "--tasks-per-node=1"], "counts that can"),
        (["impala", "--no-such-option"], "No such option"),
        (["impala", "--set", "no.such=1"], "no such option"),
        (["impala", "--frames", "many"], "many"),
        (["impala", "--out", "here"], "--out: the job's directory is"),
        (["impala", "--resume", "there"], "--resume: use RESUME=RUN"),
        (["impala", "--show-config"], "only those that train"),
        (["impala", "another"], "another"),
        (["impala", "--slurm-array-parallelism=2"], "there is one run"),
        (["impala", "--slurm-additional-parameters=exclusive"], "no value"),
        (["impala", "--scripts=/nowhere"], "no common.sh there"),
        (["impala", "--nodes=0"], "--nodes"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(command, sbatch, arguments, complaint):
    sbatch("echo 12")
    code, out, err = command("submit", *arguments)
    assert (code, out) == (2, "")
    assert complaint in err
    assert err.count("\n") == 1
