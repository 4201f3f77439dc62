"""Groups that are slow, stand still or have gone cost the others nothing but their opinion.

Environments sleep instead of computing, so that how busy the machine is hardly matters.
"""

import os
import signal
import time

import h5py
import numpy as np
import pytest
from launch import Job, settings

pytestmark = pytest.mark.mpi

SLEEPY = """
import time

from gymnasium.envs.classic_control import CartPoleEnv


class Sleepy(CartPoleEnv):
    '''CartPole whose steps take 10 ms, ten times as long in the third group.'''

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.slow = seed >= 100_002
        return super().reset(seed=seed, options=options)

    def step(self, action):
        time.sleep(0.1 if self.slow else 0.01)
        return super().step(action)
"""
OPTIONS = settings(
    topology__groups=3,
    topology__actors_per_group=0,
    env__num_envs=1,
    algorithm__unroll_length=4,
    coupling__exchange_every=1,
    coupling__max_age=8,
    logging__interval_s=0.5,
)
STOPPED_S = 3.5


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Run three groups, the third slow; stop it for some seconds; return each group's tables, and when it stood."""
    folder = tmp_path_factory.mktemp("uneven")
    (folder / "sleepy.py").write_text(SLEEPY)
    log, out = folder / "run/run.log", folder / "run"
    arguments = ["run", "group_ensemble", "--env", "sleepy:Sleepy", "--seconds", "50", "--out", out, *OPTIONS]
    with Job(3, "-m", "hpcddrl", *arguments, cwd=folder) as job:
        job.wait_for(lambda: log.exists() and log.read_text().count("[Time") >= 5, "it reported progress")
        victim = job.pids()[2]
        os.kill(victim, signal.SIGSTOP)
        time.sleep(STOPPED_S)
        os.kill(victim, signal.SIGCONT)
        time.sleep(1.5)
        job.signal(signal.SIGUSR1)
        done = job.finish()
    assert done.rc == 75, done.text
    tables = []
    for rank in range(3):
        with h5py.File(out / f"segments/0001/rank-{rank:04d}.h5", "r") as file:
            names = ("exchange", "peers", "progress", "timing")
            tables.append({name: {column: data[:] for column, data in file[name].items()} for name in names})
    return tables


def standing(ran):
    """Return when the third group stood still: the longest time between two of its rows."""
    times = ran[2]["progress"]["time"]
    longest = 1 + int(np.diff(times[1:]).argmax())  # but for the start
    assert times[longest + 1] - times[longest] > 0.8 * STOPPED_S
    return times[longest] + 0.5, times[longest + 1] - 0.5


def test_the_slow_group_is_slow(ran):
    updates = [table["progress"]["updates"][-1] for table in ran]
    assert updates[2] < 0.3 * updates[0]
    assert updates[2] > 2


@pytest.mark.parametrize("group", [0, 1])
def test_an_exchange_costs_the_others_less_than_a_twentieth_of_their_time(ran, group):
    wall = ran[group]["timing"]["wall"][1:].sum()  # the first row is mostly of the start
    seconds = ran[group]["exchange"]["seconds"]
    print(f"{len(seconds)} exchanges in {wall:.1f} s, {1e3 * np.median(seconds):.2f} ms each")
    assert len(seconds) > 10
    assert np.median(seconds) * len(seconds) < 0.05 * wall


@pytest.mark.parametrize("group", [0, 1])
def test_the_others_go_on_as_fast_while_it_stands_still(ran, group):
    time_s, updates = (ran[group]["progress"][name] for name in ("time", "updates"))
    begin, end = standing(ran)
    rates = np.diff(updates) / np.diff(time_s)
    during = (time_s[1:] > begin) & (time_s[1:] < end)
    before = (time_s[:-1] > time_s[0]) & (time_s[1:] < begin)
    assert during.sum() >= 2
    print(f"updates/s: {np.median(rates[before]):.1f} before, {np.median(rates[during]):.1f} while it stood")
    assert np.median(rates[during]) > 0.8 * np.median(rates[before])


@pytest.mark.parametrize("group", [0, 1])
def test_they_pass_it_over_and_drop_what_has_become_old(ran, group):
    exchange, peers = ran[group]["exchange"], ran[group]["peers"]
    assert exchange["skipped"][-1] > 3
    assert exchange["dropped"][-1] >= 1
    assert np.nanmax(exchange["since"]) <= 8
    assert (exchange["refused"] == 0).all()
    assert set(peers["group"]) == {0, 1, 2}
    last = peers["version"] == peers["version"].max()
    assert peers["weight"][last].sum() == pytest.approx(1.0, abs=1e-5)
