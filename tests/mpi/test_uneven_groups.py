"""Groups that are slow, stand still and say nothing cost the others nothing but their opinion.

Environments sleep instead of computing, so that how busy the machine is hardly matters.
"""

import os
import re
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
    failures__silent_after_s=2,
)
STOPPED_S = 4.5  # half of it as a group that counts as silent
LIMIT = 0.05  # of their time, that the others may lose to it


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Run three groups, the third slow; stop it for some seconds; return each group's tables and what was said."""
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
    return tables, (out / "run.log").read_text()


@pytest.fixture
def tables(ran):
    """Return the tables of each group."""
    return ran[0]


def stood(tables):
    """Return when the third group stood still: the longest time between two of its rows."""
    times = tables[2]["progress"]["time"]
    longest = 1 + int(np.diff(times[1:]).argmax())  # but for the start
    assert times[longest + 1] - times[longest] > 0.8 * STOPPED_S
    return times[longest] + 0.5, times[longest + 1] - 0.5


def within(table, begin, end):
    """Return which of a group's rows, but for the first, are of time between two moments."""
    times = table["progress"]["time"]
    rows = (times[:-1] >= begin) & (times[1:] <= end)
    assert rows.sum() >= 2
    return rows


def held_up(table, rows):
    """Return the share of a group's time that it spent on the exchange and on waiting for others."""
    seconds = {phase: table["timing"][phase][1:][rows].sum() for phase in ("exchange", "wait", "wall")}
    return (seconds["exchange"] + seconds["wait"]) / seconds["wall"]


def test_the_slow_group_is_slow(tables):
    updates = [table["progress"]["updates"][-1] for table in tables]
    assert updates[2] < 0.3 * updates[0]
    assert updates[2] > 2


@pytest.mark.parametrize("group", [0, 1])
def test_a_group_that_is_ten_times_as_slow_holds_nobody_up(tables, group):
    table, (begin, _) = tables[group], stood(tables)
    rows = within(table, table["progress"]["time"][0], begin)
    print(f"{len(table['exchange']['seconds'])} exchanges, held up {held_up(table, rows):.2%} of the time")
    assert len(table["exchange"]["seconds"]) > 10
    assert held_up(table, rows) < LIMIT


@pytest.mark.parametrize("group", [0, 1])
def test_a_group_that_stands_still_holds_nobody_up(tables, group):
    rows = within(tables[group], *stood(tables))
    print(f"held up {held_up(tables[group], rows):.2%} of the time")
    assert held_up(tables[group], rows) < LIMIT


@pytest.mark.parametrize("group", [0, 1])
def test_the_others_go_on_as_fast_while_it_stands_still(tables, group):
    """As far as a machine that others use, too, lets one see it."""
    time_s, updates = (tables[group]["progress"][name] for name in ("time", "updates"))
    begin, end = stood(tables)
    rates = np.diff(updates) / np.diff(time_s)
    during, before = within(tables[group], begin, end), within(tables[group], time_s[0], begin)
    print(f"updates/s: {np.median(rates[before]):.1f} before, {np.median(rates[during]):.1f} while it stood")
    assert np.median(rates[during]) > 0.8 * np.median(rates[before])


def test_it_was_missed_while_it_stood_and_taken_back(ran):
    missed, back = (re.search(f"{what}: rank 2, learner 0 of group 2", ran[1]) for what in ("silent", "back"))
    assert missed is not None, ran[1]
    assert back is not None, ran[1]
    assert missed.start() < back.start()


@pytest.mark.parametrize("group", [0, 1])
def test_they_pass_it_over_and_drop_what_has_become_old(tables, group):
    exchange, peers = tables[group]["exchange"], tables[group]["peers"]
    assert exchange["skipped"][-1] > 3
    assert exchange["dropped"][-1] >= 1
    assert np.nanmax(exchange["since"]) <= 8
    assert (exchange["refused"] == 0).all()
    assert set(peers["group"]) == {0, 1, 2}
    last = peers["version"] == peers["version"].max()
    assert peers["weight"][last].sum() == pytest.approx(1.0, abs=1e-5)
