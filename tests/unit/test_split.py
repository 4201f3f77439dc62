"""How many ranks of a group learn."""

import pytest

from hpcddrl.recipes import RECIPES
from hpcddrl.runtime import split
from hpcddrl.runtime.pace import Pace
from hpcddrl.runtime.processors import Costs
from hpcddrl.runtime.split import fastest, with_split
from hpcddrl.settings import override


@pytest.mark.parametrize(
    ("ranks", "learn", "act", "expected"),
    [
        (1, 1.0, 1.0, 1),
        (2, 1.0, 1.0, 1),  # each a rank's work: nobody has to meet
        (4, 1.0, 3.0, 1),
        (4, 150, 446, 1),  # µs of a network with little to learn: one learner feeds on three
        (4, 411, 576, 4),  # µs of a network with more: neither one learner nor two would keep all four busy
        (4, 1.0, 1.0, 2),
        (16, 1.0, 7.0, 3),  # 2 could learn 1.8 of what 14 act, 3 all that 13 act: 13 / 7
        (16, 1.0, 2.0, 6),  # 10 / 2, as near to 0.9 · 6 as can be, and more than 0.9 · 16 / 3
        (4, 1.0, 1000.0, 4),  # a learner that only learned would have nothing to do
        (8, 9.0, 0.1, 8),
    ],
)
def test_the_split_is_the_fastest(ranks, learn, act, expected):
    assert fastest(ranks, Costs(learn, act)) == expected


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_no_split_is_faster_when_all_are_tried(ranks):
    of = Costs(1.0, 1.7)

    def rate(learners):
        meet = 0.9 if learners > 1 else 1.0
        if learners == ranks:
            return meet * learners / (of.learn_s + of.act_s)
        return min(meet * learners / of.learn_s, (ranks - learners) / of.act_s)

    assert rate(fastest(ranks, of)) == max(rate(learners) for learners in range(1, ranks + 1))


def impala(*settings):
    return override(RECIPES["impala"](), ["env.id=hpcddrl/Catch-v0", *settings])


def test_given_counts_stay(monkeypatch):
    monkeypatch.setattr(split, "measure", lambda job: pytest.fail("nothing needs to be timed"))
    assert with_split(impala(), 4) == impala()


@pytest.mark.parametrize(("samples", "counts"), [(3000.0, (1, 3)), (100.0, (4, 0))])
def test_counts_follow_what_is_timed(samples, counts, monkeypatch):
    monkeypatch.setattr(split, "measure", lambda job: Pace(steps=1000.0, answers=float("inf"), samples=samples))
    chosen = with_split(impala("topology.split=auto"), 4).topology
    assert (chosen.split, chosen.groups) == ("given", 1)
    assert (chosen.learners_per_group, chosen.actors_per_group) == counts


def test_one_rank_does_both():
    chosen = with_split(impala("topology.split=auto"), 1).topology
    assert (chosen.learners_per_group, chosen.actors_per_group) == (1, 0)


def test_groups_have_to_be_even():
    with pytest.raises(ValueError, match=r"topology.split = 'auto' with topology.groups = 2: 5 ranks"):
        with_split(impala("topology.split=auto", "topology.groups=2"), 5)
