"""What a job can do without, and what becomes of the account of one that lost ranks."""

import numpy as np
import pytest

from hpcddrl.comm.placement import fit, place
from hpcddrl.comm.survival import lacking, stranded
from hpcddrl.config import Topology
from hpcddrl.roles.counters import COUNTERS, View, account

# Two groups of two learners, a replay and two actors: 0 and 1, 2, 3 and 4; 5 and 6, 7, 8 and 9.
TWO = place(fit(Topology(groups=2, learners_per_group=2, replays_per_group=1, actors_per_group=2), 10))
SERVED = place(fit(Topology(groups=3, actors_per_group=0, servers=2), 5))  # 0 and 1 serve


@pytest.mark.parametrize("lost", [[], [3], [6], [1, 6, 4, 9], [5], [7], [8, 9], [5, 6, 7, 8, 9]])
def test_a_job_goes_on_without_actors_learners_and_whole_groups(lost):
    assert lacking(TWO, lost, exact=False) is None


@pytest.mark.parametrize(
    ("lost", "why"),
    [
        ([0], "rank 0, learner 0 of group 0, has died"),
        ([2, 7], "no group is left: a replay of group 0, rank 2"),
        ([3, 4, 8, 9], "no group is left: all actors of group 0"),
    ],
)
def test_it_does_not_without_its_first_rank_or_any_group(lost, why):
    assert why in lacking(TWO, lost, exact=False)


def test_it_does_not_without_a_server_but_without_a_learner_of_one():
    assert "rank 1, server 1, has died" in lacking(SERVED, [1], exact=False)
    assert lacking(SERVED, [2, 3], exact=False) is None
    assert "no group is left" in lacking(SERVED, [2, 3, 4], exact=False)


def test_a_deterministic_run_does_without_nobody():
    assert "rank 9, actor 1 of group 1, has died: a deterministic run" in lacking(TWO, [9], exact=True)
    assert lacking(TWO, [], exact=True) is None


@pytest.mark.parametrize(
    ("lost", "alone"), [([8], []), ([5], [6, 7, 8, 9]), ([7], [5, 6, 8, 9]), ([8, 9], [5, 6, 7]), ([6], [])]
)
def test_who_has_nothing_left_to_do(lost, alone):
    left = [rank for rank in range(10) if rank not in lost]
    assert [rank for rank in left if stranded(TWO, lost, rank)] == alone


def view(lost=(), **counters):
    places = place(fit(Topology(groups=1, actors_per_group=2), 3))
    table = np.zeros((3, len(COUNTERS)))
    for name, values in counters.items():
        table[:, COUNTERS.index(name)] = values
    return View(places, 1.0, table, lost=frozenset(lost))


def test_what_is_produced_is_as_counted_while_nobody_died():
    found = view(produced=[0, 50, 40], used=[80, 0, 0], pending=[10, 0, 0]).produced_and_lost()
    assert found == {"produced": 90, "lost": 0}


@pytest.mark.parametrize(("came", "produced", "lost"), [(30, 90, 10), (45, 95, 0), (40, 90, 0)])
def test_what_died_with_an_actor_is_what_it_told_of_and_did_not_deliver(came, produced, lost):
    """Its last status said 40; more than that may have come since."""
    used = [50 + came, 0, 0]
    found = view([2], produced=[0, 50, 40], used=used, inherited=[came, 0, 0]).produced_and_lost()
    assert found == {"produced": produced, "lost": lost}
    assert found["produced"] == sum(used) + found["lost"]


def test_the_account_over_segments_has_what_was_lost():
    first = account({}, view(produced=[0, 50, 40], used=[60, 0, 0], pending=[30, 0, 0]))
    assert (first["produced"], first["pending"], first["lost"]) == (90, 30, 0)
    then = account(first, view([2], produced=[0, 10, 8], used=[37, 0, 0], pending=[8, 0, 0], inherited=[5, 0, 0]))
    assert (then["produced"], then["used"], then["pending"], then["lost"]) == (60 + 37 + 8 + 3, 97, 8, 3)


def test_the_account_closes_over_segments_when_a_rank_dies_that_held_transitions():
    before = account({}, view(produced=[0, 50, 40], used=[60, 0, 0], pending=[0, 30, 0]))
    after = account(before, view([0], produced=[0, 10, 8], used=[20, 9, 0], pending=[4, 7, 0]))
    assert (after["produced"], after["pending"]) == (108, 7)
    assert after["produced"] == after["used"] + after["dropped"] + after["pending"] + after["lost"]


def test_a_hole_in_the_account_is_not_hidden_by_a_dead_actor():
    """Of 50 that a living actor produced, 7 are nowhere."""
    used = [43 + 40, 0, 0]
    found = view([2], produced=[0, 50, 40], used=used, inherited=[40, 0, 0]).produced_and_lost()
    assert found["produced"] != sum(used) + found["lost"]
