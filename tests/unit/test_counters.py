"""What a rank counts, and what rank 0 makes of it."""

import math

import numpy as np
import pytest

from hpcddrl.comm.placement import place
from hpcddrl.config import Topology
from hpcddrl.roles.counters import COUNTERS, Counters, View, counters_for, steppers
from hpcddrl.types import Step


def step(returns, first=None):
    """Return a step of as many environments; those with a return end an episode of 7 steps."""
    returns = np.array(returns, float)
    count, ended = len(returns), ~np.isnan(returns)
    zeros = np.zeros(count, np.float32)
    first = np.zeros(count, bool) if first is None else np.array(first)
    return Step(zeros, first, zeros, zeros, returns, np.where(ended, 7, 0))


def test_resets_are_no_steps():
    counters = counters_for(4, 1)
    counters.stepped(step([math.nan, math.nan, math.nan], first=[True, False, False]))
    assert (counters.env_steps, counters.frames) == (2, 8)


def test_each_finished_episode_is_a_row_with_the_frames_until_then():
    counters = counters_for(4, 1)
    counters.stepped(step([math.nan, 5.0]))
    counters.stepped(step([-3.0, 2.0]))
    rows = counters.finished()
    assert [row["return"] for row in rows] == [5.0, -3.0, 2.0]
    assert [row["frames"] for row in rows] == [8, 16, 16]
    assert {row["length"] for row in rows} == {7}
    assert counters.finished() == []
    assert (counters.episodes, counters.return_best) == (3, 5.0)


@pytest.mark.parametrize(("ranks", "window"), [(1, 100), (8, 13), (1000, 1)])
def test_the_mean_return_is_over_this_ranks_share_of_the_last_100_episodes(ranks, window):
    counters = counters_for(1, ranks)
    for value in range(150):
        counters.stepped(step([value]))
    vector = dict(zip(COUNTERS, counters.vector(), strict=True))
    assert vector["return_count"] == window
    assert vector["return_mean"] == pytest.approx(np.mean(range(150 - window, 150)))


def test_private_fields_do_not_travel():
    assert not any(name.startswith("_") for name in COUNTERS)
    assert len(Counters().vector()) == len(COUNTERS)


def view(**columns):
    places = place(Topology(groups=2, learners_per_group=1, actors_per_group=1))
    table = np.full((len(places), len(COUNTERS)), np.nan)
    for name, values in columns.items():
        table[:, COUNTERS.index(name)] = values
    return View(places, 1.0, table)


def test_the_jobs_mean_return_weighs_each_rank_by_its_episodes():
    job = view(return_mean=[math.nan, 10.0, math.nan, 1.0], return_count=[0, 3, 0, 1])
    assert job.return_mean == pytest.approx((30 + 1) / 4)
    assert job.episodes_seen == 4
    assert math.isnan(view().return_mean)


def test_totals_pass_over_ranks_that_have_not_reported():
    assert view(frames=[math.nan, 3.0, math.nan, 4.0]).total("frames") == 7


def test_updates_of_groups_are_counted_once_for_all_learners_of_a_group():
    places = place(Topology(groups=2, learners_per_group=2, actors_per_group=1))
    table = np.zeros((6, len(COUNTERS)))
    table[:, COUNTERS.index("updates")] = [5, 5, 0, 7, 7, 0]
    assert View(places, 1.0, table).updates == 12


def test_updates_of_servers_are_counted_once_for_all_shards():
    places = place(Topology(groups=2, actors_per_group=0, servers=3))
    table = np.zeros((5, len(COUNTERS)))
    table[:, COUNTERS.index("updates")] = [9, 9, 9, 4, 4]
    assert View(places, 1.0, table).updates == 9


@pytest.mark.parametrize(
    ("topology", "expected"),
    [
        (Topology(groups=2, actors_per_group=2), [1, 2, 4, 5]),
        (Topology(groups=2, actors_per_group=0), [0, 1]),
        (Topology(groups=3, actors_per_group=0, servers=1), [1, 2, 3]),
    ],
)
def test_steppers_are_actors_or_learners_without_any(topology, expected):
    assert steppers(place(topology)) == expected
