"""Who tells whom, in every round."""

from collections import Counter

import pytest

from hpcddrl.comm.partners import neighbours, partners

TOPOLOGIES = ["all_to_all", "ring", "random_pairs"]


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("groups", [3, 4, 7, 64])
def test_whoever_sends_to_a_group_is_expected_there_and_nobody_else(topology, groups):
    for number in range(20):
        found = [partners(topology, groups, g, number, seed=1) for g in range(groups)]
        sent = {(g, to) for g in range(groups) for to in found[g].to}
        assert sent == {(by, g) for g in range(groups) for by in found[g].by}
        assert all(one != other for one, other in sent)
        for g in range(groups):
            ever = neighbours(topology, groups, g)
            assert set(found[g].to) <= set(ever.to)
            assert set(found[g].by) <= set(ever.by)


def test_a_ring_goes_round():
    assert [partners("ring", 4, g, 5, 0) for g in range(4)] == [((1,), (3,)), ((2,), (0,)), ((3,), (1,)), ((0,), (2,))]


def test_everyone_tells_everyone():
    assert partners("all_to_all", 3, 1, 0, 0) == ((0, 2), (0, 2))


@pytest.mark.parametrize("groups", [6, 7])
def test_random_pairs_meet_all_about_equally_often_and_an_odd_one_sits_out(groups):
    met, alone = Counter(), Counter()
    for number in range(2000):
        pairs = [partners("random_pairs", groups, g, number, seed=3).to for g in range(groups)]
        assert sum(not pair for pair in pairs) == groups % 2
        for g, pair in enumerate(pairs):
            met.update((g, other) for other in pair)
            alone[g] += not pair
    expected = 2000 * (groups // 2 * 2) / groups / (groups - 1)
    assert len(met) == groups * (groups - 1)
    assert all(0.8 * expected < count < 1.2 * expected for count in met.values())
    assert groups % 2 == 0 or all(200 < alone[g] < 380 for g in range(groups))


def test_pairs_depend_on_seed_and_round_alone():
    def drawn(seed, number):
        return [partners("random_pairs", 16, g, number, seed).to for g in range(16)]

    assert drawn(1, 5) == drawn(1, 5)
    assert drawn(1, 5) != drawn(1, 6)
    assert drawn(1, 5) != drawn(2, 5)
