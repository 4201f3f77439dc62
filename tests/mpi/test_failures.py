"""What goes wrong ends a job soon, with a message that says what and where; what was written stays readable."""

import os
import re
import signal
import socket
import time

import h5py
import pytest
from launch import hpcddrl, read_json, running, settings

from hpcddrl.logs import checkpoint

pytestmark = pytest.mark.mpi

CATCH, FAULTY = "hpcddrl/Catch-v0", "hpcddrl/Faulty-v0"
SOON_S = 10.0
SEEDS_PER_RUN, NUM_ENVS = 100_000, 4  # environment i of actor a in the run of seed s: s · 100,000 + a · 4 + i


def assert_files_open(out, ranks):
    files = sorted(out.glob("segments/0001/rank-*.h5"))
    assert len(files) == ranks
    for path in files:
        with h5py.File(path, "r") as file:
            assert len(file["timing/wall"]) >= 1
            assert file.attrs["recipe"]
    with h5py.File(out / "run.h5", "r") as whole:
        assert all(len(rank["timing/wall"]) >= 1 for rank in whole["ranks"].values())


@pytest.mark.parametrize(("recipe", "victim"), [("impala", 2), ("a3c", 0)])
def test_a_killed_rank_ends_the_job_and_no_file_is_lost(recipe, victim, tmp_path):
    with running(tmp_path, 3, recipe) as (job, out):
        killed = time.monotonic()
        os.kill(job.pids()[victim], signal.SIGKILL)
        done = job.finish()
        assert time.monotonic() - killed < SOON_S, done.text
    assert done.rc != 0, done.text
    assert f"rank {victim} with PID" in done.stderr, done.text  # in the launcher's words
    assert_files_open(out, 3)
    assert not (out / "summary.json").exists()


def faulty(folder, ranks, recipe, how, *options, only_actor=None, only_env=0, at=200, limit_s=60):
    """Run with an environment that fails in one place (or everywhere)."""
    wrong = {"env.options.how": how, "env.options.at": at, "env.num_envs": NUM_ENVS, "logging.interval_s": 0.5}
    if only_actor is not None:
        wrong["env.options.only_seed"] = SEEDS_PER_RUN + only_actor * NUM_ENVS + only_env
    arguments = ["run", recipe, "--env", FAULTY, "--seconds", "40", "--out", folder / "run", *options]
    return hpcddrl(ranks, *arguments, *settings(**wrong), cwd=folder, limit_s=limit_s)


@pytest.mark.parametrize(
    ("recipe", "ranks", "actor", "rank", "place"),
    [
        ("group_ensemble", 4, 1, 3, "actor 0 of group 1"),
        ("paac", 3, 1, 2, "actor 1 of group 0"),
        ("a3c", 3, 1, 2, "learner 0 of group 1"),
    ],
)
def test_an_environment_that_raises_is_named(recipe, ranks, actor, rank, place, tmp_path):
    done = faulty(tmp_path, ranks, recipe, "raise", only_actor=actor, only_env=3)
    assert done.rc == 1, done.text
    seed = SEEDS_PER_RUN + actor * NUM_ENVS + 3
    for part in (
        f"rank {rank}, {place}, host {socket.gethostname()}",
        "RuntimeError: Faulty: raised on demand at step 200",
        f"environment 3 of this rank, seed {seed}",
    ):
        assert part in done.stderr, done.text
    assert done.stderr.count("Traceback (most recent call last)") == 1, done.text


def test_a_value_error_in_mid_run_is_a_failure_and_not_the_users_mistake(tmp_path):
    (tmp_path / "fragile.py").write_text(
        "from hpcddrl.envs.toy import Catch\n\n\n"
        "class Fragile(Catch):\n"
        "    steps = 0\n\n"
        "    def step(self, action):\n"
        "        self.steps += 1\n"
        "        if self.steps == 300 and self.np_random_seed == 100_004:\n"
        "            raise ValueError('operands could not be broadcast')\n"
        "        return super().step(action)\n"
    )
    arguments = ["--env", "fragile:Fragile", "--seconds", "40", "--out", tmp_path / "run"]
    done = hpcddrl(3, "run", "impala", *arguments, *settings(env__num_envs=4), cwd=tmp_path, limit_s=60)
    assert done.rc == 1, done.text
    assert "rank 2, actor 1 of group 0" in done.stderr, done.text
    assert "ValueError: operands could not be broadcast" in done.stderr, done.text


def test_an_environment_that_exits_ends_the_job(tmp_path):
    done = faulty(tmp_path, 3, "impala", "exit", only_actor=1)
    assert done.rc != 0, done.text
    assert "ended by" not in done.stdout, done.text
    assert_files_open_or_new(tmp_path / "run", 3)


def assert_files_open_or_new(out, ranks):
    files = sorted(out.glob("segments/0001/rank-*.h5"))
    assert len(files) == ranks
    for path in files:
        h5py.File(path, "r").close()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["impala", "paac"])
def test_an_environment_that_hangs_is_waited_for_no_more_some_time_after_the_budget(recipe, tmp_path):
    wrong = {
        "env.options.how": "hang",
        "env.options.at": 200,
        "env.options.only_seed": SEEDS_PER_RUN,
        "env.num_envs": 4,
    }
    arguments = ["run", recipe, "--env", FAULTY, "--seconds", "8", "--out", tmp_path / "run", *settings(**wrong)]
    done = hpcddrl(2, *arguments, *settings(failures__silent_after_s=15), cwd=tmp_path, limit_s=200)
    assert done.rc == 0, done.text
    assert "silent: rank 1, actor 0 of group 0" in done.stdout, done.text
    assert read_json(tmp_path / "run/summary.json")["silent_ranks"] == [1]
    assert "Traceback" not in done.stderr, done.text


@pytest.mark.parametrize(("recipe", "ranks", "stepper"), [("impala", 2, 0), ("a3c", 3, 1)])
def test_a_reward_that_is_no_number_ends_the_job_in_one_line_with_good_weights_saved(recipe, ranks, stepper, tmp_path):
    done = faulty(tmp_path, ranks, recipe, "nan", only_actor=stepper, at=400)
    assert done.rc == 1, done.text
    assert "the gradient is not finite" in done.stderr, done.text
    assert "Traceback" not in done.stderr, done.text
    assert len([line for line in done.stderr.splitlines() if "not finite" in line]) == 1, done.text
    owners = list((tmp_path / "run/checkpoints").iterdir())
    assert owners
    for owner in owners:
        state = checkpoint.newest(owner)
        assert state.version > 0
        assert all(tensor.isfinite().all() for tensor in state.network.values())


def used(folder):
    folder.mkdir()
    (folder / "something").write_text("of somebody's")
    return folder


WRONG = {
    "recipe": (["run", "impalla"], "impala"),
    "command": (["rum"], "run"),
    "option": (["run", "impala", "--framse", "3"], "--frames"),
    "no number": (["run", "impala", "--frames", "many"], "many"),
    "field": (["run", "impala", "--set", "algorithm.unrol_length=3"], "algorithm.unroll_length"),
    "value": (["run", "impala", "--set", "algorithm.unroll_length=0"], "greater than or equal to 1"),
    "choice": (["run", "impala", "--set", "update.backend=gloo"], "horovod"),
    "environment": (["run", "impala", "--env", "hpcddrl/Cach-v0"], "hpcddrl/Catch-v0"),
    "module": (["run", "impala", "--env", "nowhere:Env"], "nowhere"),
    "environment's option": (["run", "impala", "--env", FAULTY, "--set", "env.options.how=explode"], "explode"),
    "spaces": (["run", "impala", "--env", "FrozenLake-v1"], "not supported"),
    "rank count": (["run", "impala", "--set", "topology.learners_per_group=3"], "counts that can: 3, 4"),
    "shards": (["run", "a3c", "--env", CATCH, "--set", "topology.servers=2"], "2 ranks cannot be laid out"),
    "rollouts": (
        ["run", "ga3c", "--env", CATCH, "--set", "algorithm.rollouts_per_batch=2"],
        "algorithm.rollouts_per_batch = 2: more than the 1 actors",
    ),
    "teacher": (["run", "kickstart", "--env", CATCH], "coupling.run is not set"),
    "memory": (["run", "dqn", "--env", CATCH, "--set", "experience.capacity=10000000000000"], " bytes together and "),
    "games": (["run", "impala", "--env", f"{CATCH},CartPole-v1"], "CartPole-v1 does not show and take the same"),
    "torso": (["run", "paac", "--env", "CartPole-v1", "--set", "network.torso=nature"], "network.torso"),
    "directory in use": (["run", "impala", "--env", CATCH, "--out", "used"], "--out used: exists and is not empty"),
    "directory not writable": (["run", "impala", "--env", CATCH, "--out", "used/something/run"], "cannot be written"),
    "nothing to resume": (["run", "--resume", "empty"], "no run here"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_users_mistake_is_one_line_once_and_exit_code_2(what, tmp_path):
    used(tmp_path / "used")
    (tmp_path / "empty").mkdir()
    arguments, needle = WRONG[what]
    done = hpcddrl(2, *arguments, cwd=tmp_path, limit_s=60)
    assert done.rc == 2, done.text
    lines = [line for line in done.stderr.splitlines() if line.startswith("hpcddrl: ")]
    assert len(lines) == 1, done.text
    assert needle in lines[0], done.text
    assert "Traceback" not in done.stdout + done.stderr, done.text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "used"], "it wrote something"
    assert [p.name for p in (tmp_path / "used").iterdir()] == ["something"]
    assert not list((tmp_path / "empty").iterdir())


def assert_stopped(done, out, number):
    name = signal.Signals(number).name
    assert done.rc == 75, done.text
    summary = read_json(out / "summary.json")
    assert summary["exit_reason"] == f"signal {name}"
    assert summary["wall_s"] < 60
    assert f"ended by signal {name}" in done.stdout
    counts = summary["transitions"]
    assert counts["produced"] == counts["trained"] + counts["dropped"]
    assert list((out / "checkpoints").glob("*/version-*.pt"))


@pytest.mark.parametrize(
    ("recipe", "rank", "number"),
    [
        pytest.param("impala", 0, signal.SIGTERM, marks=pytest.mark.slow),  # the learner, who decides
        ("impala", 2, signal.SIGINT),  # an actor
        ("paac", 1, signal.SIGUSR1),  # an actor that only steps
    ],
)
def test_a_signal_to_any_one_rank_stops_the_job(recipe, rank, number, tmp_path):
    with running(tmp_path, 3, recipe) as (job, out):
        os.kill(job.pids()[rank], number)
        done = job.finish()
    assert_stopped(done, out, number)


@pytest.mark.parametrize(
    ("recipe", "ranks", "rank", "number"),
    [
        ("impala", 3, None, signal.SIGUSR1),  # as a batch system's script sends it: to mpirun, who hands it on
        pytest.param("a3c", 3, 0, signal.SIGINT, marks=pytest.mark.slow),  # the server
        pytest.param("group_ensemble", 4, 2, signal.SIGTERM, marks=pytest.mark.slow),  # another group's learner
    ],
)
def test_a_stopped_run_goes_on_where_it_was(recipe, ranks, rank, number, tmp_path):
    with running(tmp_path, ranks, recipe, "--frames", "1e9") as (job, out):
        sent = time.monotonic()
        if rank is None:
            job.signal(number)
        else:
            os.kill(job.pids()[rank], number)
        stopped = job.finish()
        assert time.monotonic() - sent < 2 * SOON_S, stopped.text
    assert_stopped(stopped, out, number)
    assert_files_open(out, ranks)

    before = newest(out)
    more = hpcddrl(ranks, "run", "--resume", out, "--seconds", "4", cwd=tmp_path)
    assert more.rc == 0, more.text
    after = newest(out)
    assert before.keys() == after.keys()
    for owner, state in before.items():
        assert after[owner].frames > state.frames
        assert after[owner].version > state.version
        line = re.search(rf"resumed {owner} from version {state.version}, ([\d,]+) frames", more.stdout)
        assert line is not None, more.text
        assert int(line[1].replace(",", "")) == state.frames
    with h5py.File(out / "run.h5", "r") as whole:
        assert list(whole["segments"]) == ["0001", "0002"]
        assert len(whole["ranks"]) == ranks
        for name, now in whole["ranks"].items():
            assert len(now["timing/wall"])
            then = whole[f"segments/0001/ranks/{name}"]
            if then["progress/updates"][-1]:
                assert now["progress/updates"][-1] > then["progress/updates"][-1]
    assert read_json(out / "summary.json")["exit_reason"] == "seconds"


def newest(out):
    return {p.name: checkpoint.newest(p) for p in sorted((out / "checkpoints").iterdir())}
