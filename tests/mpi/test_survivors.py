"""Ranks that die or stop answering, environments that hang: who goes on, and what is said of it."""

import os
import re
import signal
import time

import h5py
import pytest
from launch import hpcddrl, read_json, running, settings

pytestmark = pytest.mark.mpi

FAULTY = "hpcddrl/Faulty-v0"
SOON_S = 10.0
QUICK = settings(precision="fp32", env__num_envs=4)
OFTEN = settings(logging__checkpoint_interval_s=2)
GROUPS = settings(coupling__exchange_every=5)


def said(job, out, text):
    """Wait until the log says something of this form; return where in the log."""
    log = out / "run.log"
    job.wait_for(lambda: re.search(text, log.read_text()) is not None, f"the log says {text}")
    return re.search(text, log.read_text()).end()


def goes_on(job, out, after, reports=3):
    """Wait until updates have been made since a place in the log."""

    def updated():
        counts = re.findall(r"\[Updates ([\d.]+k?)\]", (out / "run.log").read_text()[after:])
        return len(counts) >= reports and counts[-1] != counts[0]

    job.wait_for(updated, "it made updates since")


def ended(job, pids):
    """Stop the job by a signal to rank 0; return what became of it and the seconds that it took."""
    sent = time.monotonic()
    os.kill(pids[0], signal.SIGUSR1)
    done = job.finish()
    return done, time.monotonic() - sent


def summary_of(done, out, **expected):
    """Return the summary of a job that was stopped, which says what is expected and whose account of data closes."""
    assert done.rc == 75, done.text
    summary = read_json(out / "summary.json")
    found = {name: summary[name] for name in expected}
    assert found == expected, done.text
    for counts in (summary["transitions"], summary["since_start"]):
        assert counts["produced"] == counts["used"] + counts["dropped"] + counts["pending"] + counts["lost"], counts
    return summary


def killed(tmp_path, ranks, recipe, victims, *options, lost):
    """Run, kill some ranks, wait until the job has gone on without those that are lost, and stop it.

    Returns:
        Its summary, and the ranks that the progress line and rank 0's file say were lost.
    """
    with running(tmp_path, ranks, recipe, *QUICK, *OFTEN, *options, seconds=600, survives=True) as (job, out):
        pids = job.pids()
        for victim in victims:
            os.kill(pids[victim], signal.SIGKILL)
        goes_on(job, out, max(said(job, out, rf"lost: rank {rank}, .* has died") for rank in lost))
        said(job, out, rf"checkpoint \d+ at version .*; without {len(lost)} ranks")
        done, seconds = ended(job, pids)
    assert seconds < 2 * SOON_S, done.text
    shown = [int(rank) for rank in re.findall(r"\[Lost ([\d, ]+)\]", done.stdout)[-1].split(",")]
    with h5py.File(out / "run.h5", "r") as run:
        rows = run["ranks/0000/failures"]
        assert set(rows["what"]) == {0}
        recorded = sorted(rows["rank"][:].astype(int).tolist())
        for file in run["ranks"].values():
            assert len(file["timing/wall"])
    return summary_of(done, out, silent_ranks=[]), shown, recorded


def resumed(tmp_path, ranks):
    """Let a run that has lost ranks go on with all of them; return what it prints, and both summaries."""
    out = tmp_path / "run"
    before = read_json(out / "summary.json")
    done = hpcddrl(ranks, "run", "--resume", out, "--seconds", "3", cwd=tmp_path)
    assert done.rc == 0, done.text
    return done.stdout, before, read_json(out / "summary.json")


def goes_on_with_the_account(before, now):
    """Say whether what was lost stays so, and what was used since adds up."""
    then, all_in_all = before["since_start"], now["since_start"]
    used = all_in_all["used"] - then["used"]
    return all_in_all["lost"] == then["lost"] and used == now["transitions"]["used"] > 0


def test_an_actor_that_is_killed_is_done_without(tmp_path):
    summary, shown, recorded = killed(tmp_path, 3, "impala", [2], lost=[2])
    assert summary["lost_ranks"] == shown == recorded == [2]
    assert 0 <= summary["transitions"]["lost"] < 0.5 * summary["transitions"]["produced"]
    printed, before, now = resumed(tmp_path, 3)
    assert "redistributed: 2 ranks in 1 groups then, 3 in 1 now" in printed
    assert now["lost_ranks"] == []
    assert goes_on_with_the_account(before, now), (before, now)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["paac", "elf", "apex"])
def test_an_actor_that_is_killed_is_done_without_by_every_kind_of_experience(recipe, tmp_path):
    learns_soon = settings(experience__learning_starts=200) if recipe == "apex" else []
    summary, shown, recorded = killed(tmp_path, 4, recipe, [3], *learns_soon, lost=[3])
    assert summary["lost_ranks"] == shown == recorded == [3]


@pytest.mark.slow
@pytest.mark.parametrize(("victims", "lost"), [([2], [2, 3]), ([3], [2, 3]), ([2, 3], [2, 3])])
def test_a_group_that_is_killed_leaves_the_others_running(victims, lost, tmp_path):
    """Whether its learner dies, its only actor, or both: what is left of it has nothing to do, and ends too."""
    summary, shown, recorded = killed(tmp_path, 6, "group_ensemble", victims, *GROUPS, lost=lost)
    assert summary["lost_ranks"] == shown == recorded == lost
    printed, before, now = resumed(tmp_path, 6)
    assert "redistributed: new groups begin as copies: 1 as group 2" in printed
    assert now["lost_ranks"] == []
    assert goes_on_with_the_account(before, now), (before, now)


@pytest.mark.slow
def test_a_learner_of_a_server_that_is_killed_leaves_the_others_running(tmp_path):
    summary, shown, recorded = killed(tmp_path, 4, "a3c", [2], lost=[2])
    assert summary["lost_ranks"] == shown == recorded == [2]


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "overlap"), [("mpi", "false"), ("horovod", "false"), ("mpi", "true")])
def test_a_learner_that_is_killed_is_done_without_by_the_others_of_its_group(backend, overlap, tmp_path):
    options = settings(topology__learners_per_group=3, update__backend=backend, update__overlap=overlap)
    summary, shown, recorded = killed(tmp_path, 5, "impala", [1], *options, lost=[1])
    assert summary["lost_ranks"] == shown == recorded == [1]


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "what"), [("impala", "learner 0 of group 0"), ("a3c", "server 0")])
def test_without_its_first_rank_a_job_ends_soon_and_says_so(recipe, what, tmp_path):
    with running(tmp_path, 3, recipe, *QUICK, seconds=600, survives=True) as (job, _):
        sent = time.monotonic()
        os.kill(job.pids()[0], signal.SIGKILL)
        done = job.finish()
        assert time.monotonic() - sent < SOON_S, done.text
    assert done.rc == 75, done.text
    assert f"rank 0, {what}, has died" in done.stderr, done.text


@pytest.mark.slow
def test_a_job_that_could_have_lost_ranks_but_did_not_leaves_soon(tmp_path):
    """MPI's own end would be a barrier that spins."""
    arguments = ["--env", "hpcddrl/Catch-v0", "--seconds", "3", "--out", tmp_path / "run", *QUICK]
    done = hpcddrl(8, "run", "group_ensemble", *arguments, cwd=tmp_path, survives=True)
    took_s = time.time() - (tmp_path / "run" / "summary.json").stat().st_mtime
    assert done.rc == 0, done.text
    assert took_s < SOON_S, done.text


@pytest.mark.slow
def test_a_failure_that_ends_the_job_is_not_taken_for_a_death(tmp_path):
    wrong = {"env.options.how": "nan", "env.options.at": 400, "env.options.only_seed": 100_000}
    arguments = ["--env", FAULTY, "--seconds", "60", "--out", tmp_path / "run", *QUICK, *settings(**wrong)]
    done = hpcddrl(3, "run", "impala", *arguments, cwd=tmp_path, survives=True)
    assert done.rc == 1, done.text
    assert "the gradient is not finite" in done.stderr, done.text


@pytest.mark.slow
def test_an_actor_whose_environment_raises_is_lost_alone(tmp_path):
    wrong = {"env.options.how": "raise", "env.options.at": 200, "env.options.only_seed": 100_004}
    with running(tmp_path, 3, "impala", *QUICK, *settings(**wrong), seconds=600, env=FAULTY, survives=True) as (
        job,
        out,
    ):
        pids = job.pids()
        goes_on(job, out, said(job, out, r"lost: rank 2, actor 1 of group 0"))
        done, _ = ended(job, pids)
    summary_of(done, out, lost_ranks=[2])
    assert "Faulty: raised on demand" in done.stderr
    assert "this rank ends because of rank 2" in done.stderr


@pytest.mark.slow
def test_what_fails_before_the_start_ends_the_job_also_where_ranks_may_die(tmp_path):
    (tmp_path / "fragile.py").write_text(
        "import os, signal\nfrom hpcddrl.envs.toy import Catch\n\n\n"
        "class Fragile(Catch):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        if 'run' in os.listdir('.') and os.environ['OMPI_COMM_WORLD_RANK'] == '1':\n"
        "            raise RuntimeError('no licence left')\n"
    )
    arguments = ["--env", "fragile:Fragile", "--seconds", "40", "--out", tmp_path / "run", *QUICK]
    done = hpcddrl(3, "run", "impala", *arguments, cwd=tmp_path, survives=True)
    assert done.rc != 0, done.text
    assert "no licence left" in done.stderr, done.text


@pytest.mark.parametrize("survives", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_actor_that_stops_answering_is_reported_and_done_without(survives, tmp_path):
    """In lockstep, where all would wait for it; it comes back, and stops for good later on."""
    options = [*QUICK, *settings(failures__silent_after_s=3)]
    with running(tmp_path, 4, "paac", *options, seconds=600, survives=survives) as (job, out):
        pids = job.pids()
        os.kill(pids[2], signal.SIGSTOP)
        place = said(job, out, r"silent: rank 2, actor 1 of group 0, host .* has said nothing since .* UTC")
        goes_on(job, out, place)
        os.kill(pids[2], signal.SIGCONT)
        goes_on(job, out, said(job, out, "back: rank 2, actor 1 of group 0"))
        os.kill(pids[1], signal.SIGSTOP)
        goes_on(job, out, said(job, out, r"silent: rank 1"))
        done, seconds = ended(job, pids)
    assert seconds < 2 * SOON_S, done.text
    assert "[Silent 2]" in done.stdout
    summary_of(done, out, lost_ranks=[], silent_ranks=[1])


@pytest.mark.slow
def test_a_job_that_waits_with_a_checkpoint_for_a_silent_rank_can_be_stopped(tmp_path):
    """It may fall silent just before, so that the others come to rest without it."""
    options = [*QUICK, *settings(failures__silent_after_s=3, logging__checkpoint_interval_s=1)]
    with running(tmp_path, 3, "impala", *options, seconds=600) as (job, out):
        pids = job.pids()
        said(job, out, "checkpoint 2 at")
        os.kill(pids[2], signal.SIGSTOP)
        said(job, out, "silent: rank 2")
        time.sleep(2)
        done, seconds = ended(job, pids)
    assert seconds < 2 * SOON_S, done.text
    assert "; without 1 ranks" in done.stdout, done.text
    summary_of(done, out, lost_ranks=[], silent_ranks=[2])


@pytest.mark.slow
def test_a_group_that_stops_answering_does_not_stop_the_others(tmp_path):
    options = [*QUICK, *GROUPS, *settings(failures__silent_after_s=3)]
    with running(tmp_path, 4, "group_ensemble", *options, seconds=600) as (job, out):
        pids = job.pids()
        for rank in (2, 3):
            os.kill(pids[rank], signal.SIGSTOP)
        goes_on(job, out, max(said(job, out, rf"silent: rank {rank}") for rank in (2, 3)), reports=6)
        done, seconds = ended(job, pids)
    assert seconds < 2 * SOON_S, done.text
    summary_of(done, out, lost_ranks=[], silent_ranks=[2, 3])


@pytest.mark.slow
def test_a_first_rank_that_stops_answering_is_reported_by_the_second(tmp_path):
    options = [*QUICK, *settings(failures__silent_after_s=3)]
    with running(tmp_path, 3, "impala", *options, seconds=600) as (job, _):
        pids = job.pids()
        os.kill(pids[0], signal.SIGSTOP)
        time.sleep(8)
        os.kill(pids[0], signal.SIGCONT)
        done, _ = ended(job, pids)
    assert done.rc == 75, done.text
    assert done.stderr.count("hpcddrl: silent: rank 0, learner 0 of group 0, host") == 1, done.text


HANGS = {"env.options.how": "hang", "env.options.at": 200, "env.options.only_seed": 100_000, "env.step_timeout_s": 3}


@pytest.mark.slow
def test_a_hung_environment_of_the_ranks_own_process_ends_the_job_by_name(tmp_path):
    arguments = ["--env", FAULTY, "--seconds", "60", "--out", tmp_path / "run", *QUICK, *settings(**HANGS)]
    done = hpcddrl(2, "run", "impala", *arguments, cwd=tmp_path)
    assert done.rc == 1, done.text
    assert "### rank 1, actor 0 of group 0, host" in done.stderr, done.text
    assert "environment 0 of this rank, seed 100000 hangs: a step has taken 3 s" in done.stderr, done.text
    assert "Traceback" not in done.stderr, done.text


@pytest.mark.slow
def test_a_hung_isolated_environment_is_replaced_and_counted(tmp_path):
    options = [*QUICK, *settings(env__isolated=True, **HANGS)]
    with running(tmp_path, 2, "impala", *options, seconds=600, env=FAULTY) as (job, out):
        goes_on(job, out, said(job, out, r"\[Restarted environments 1\]"))
        done, _ = ended(job, job.pids())
    summary_of(done, out, lost_ranks=[], env_restarts=1)
    who = "hpcddrl: rank 1, actor 0 of group 0, host .*: environment 0 of this rank, seed 100000"
    assert re.search(f"{who}, hung: killed and started anew", done.stderr), done.text
