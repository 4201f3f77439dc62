"""Who is where, for every recipe at many sizes, without MPI."""

import re

import pytest

from hpcddrl.comm.placement import Place, Role, fit, leaders, place, ranks_of
from hpcddrl.config import Topology
from hpcddrl.recipes import RECIPES

SIZES = [*range(1, 41), 63, 64, 65, 97, 100, 127, 128, 256, 509, 1000, 1024, 2048, 4095, 4096]
SMALLEST = {
    "a3c": 2,
    "staged": 2,
    "ddql": 2,
    "ensemble_hetero": 2,
    "group_ensemble": 2,
    "apex": 3,
    "nnc_apex": 3,
    "gorila": 3,
}  # the others: 1
TOPOLOGIES = {
    **{name: recipe().topology for name, recipe in RECIPES.items()},
    "two learners a group": Topology(learners_per_group=2),
    "learners alone": Topology(groups=2, learners_per_group=None, actors_per_group=0),
    "three groups": Topology(groups=3),
    "replays and actors": Topology(groups=2, learners_per_group=2, replays_per_group=3),
    "three groups of two learners": Topology(groups=3, learners_per_group=2),
    "groups of seven": Topology(actors_per_group=6),
    "a server and groups of three": Topology(actors_per_group=2, servers=1),
    "everything said": Topology(groups=2, learners_per_group=2, actors_per_group=3),
}


def fits(topology, ranks):
    try:
        return fit(topology, ranks)
    except ValueError:
        return None


def check(topology, ranks):
    """Check a fitted layout against the definitions, rank by rank."""
    fitted = fits(topology, ranks)
    for name in ("groups", "learners_per_group", "actors_per_group"):
        assert getattr(topology, name) in (None, getattr(fitted, name)), "what was said stays"
    assert (fitted.servers, fitted.replays_per_group) == (topology.servers, topology.replays_per_group)
    places = place(fitted)
    assert len(places) == ranks
    assert [p.role for p in places[: fitted.servers]] == [Role.SERVER] * fitted.servers
    assert all(p.group is None for p in places[: fitted.servers])
    at = fitted.servers
    for group in range(fitted.groups):
        for role, count in (
            (Role.LEARNER, fitted.learners_per_group),
            (Role.REPLAY, fitted.replays_per_group),
            (Role.ACTOR, fitted.actors_per_group),
        ):
            assert places[at : at + count] == tuple(Place(role, group, i) for i in range(count))
            if group in (0, 1, fitted.groups - 1):
                assert ranks_of(places, role, group) == list(range(at, at + count))
            at += count
    assert at == ranks
    size = fitted.learners_per_group + fitted.replays_per_group + fitted.actors_per_group
    assert leaders(places) == [fitted.servers + group * size for group in range(fitted.groups)]
    found = sorted(rank for role in Role for rank in ranks_of(places, role))
    assert found == list(range(ranks)), "every rank has one role"


@pytest.mark.parametrize("name", sorted(TOPOLOGIES))
def test_layouts_add_up_servers_first_and_learners_before_actors(name):
    checked = [n for n in SIZES if fits(TOPOLOGIES[name], n) is not None]
    assert checked
    for n in checked:
        check(TOPOLOGIES[name], n)


@pytest.mark.parametrize("name", sorted(RECIPES))
@pytest.mark.parametrize("ranks", SIZES)
def test_every_recipe_fits_every_count_from_its_smallest(name, ranks):
    assert (fits(RECIPES[name]().topology, ranks) is not None) is (ranks >= SMALLEST.get(name, 1))


@pytest.mark.parametrize(
    ("name", "ranks", "expected"),
    [
        ("group_ensemble", 16, (8, 1, 1, 0)),  # the proposal's
        ("group_ensemble", 9, (3, 1, 2, 0)),
        ("group_ensemble", 7, (1, 1, 6, 0)),
        ("impala", 4, (1, 1, 3, 0)),
        ("impala", 1, (1, 1, 0, 0)),
        ("paac", 9, (1, 1, 8, 0)),
        ("a3c", 17, (16, 1, 0, 1)),
        ("gorila", 18, (16, 1, 0, 2)),
        ("apex", 6, (1, 1, 4, 0)),
        ("ppo", 6, (1, 6, 0, 0)),
        ("learners alone", 6, (2, 3, 0, 0)),
        ("two learners a group", 12, (4, 2, 1, 0)),
        ("three groups of two learners", 12, (3, 2, 2, 0)),
        ("a server and groups of three", 13, (4, 1, 2, 1)),
    ],
)
def test_unset_counts_are_fitted_to_many_small_groups(name, ranks, expected):
    f = fit(TOPOLOGIES[name], ranks)
    assert (f.groups, f.learners_per_group, f.actors_per_group, f.servers) == expected


@pytest.mark.parametrize(
    ("topology", "ranks"),
    [
        (Topology(groups=3), 7),
        (Topology(groups=3), 2),
        (Topology(groups=2, learners_per_group=2, actors_per_group=3), 12),
        (Topology(learners_per_group=2), 1),
        (Topology(groups=2, learners_per_group=2), 5),
        (Topology(groups=1, replays_per_group=1), 2),
        (Topology(actors_per_group=6), 20),
        (Topology(actors_per_group=6), 4096),
        (Topology(actors_per_group=0, servers=1), 1),
        (RECIPES["group_ensemble"]().topology, 1),
        (RECIPES["a3c"]().topology, 1),
    ],
)
def test_a_count_that_cannot_be_laid_out_names_the_nearest_that_can(topology, ranks):
    with pytest.raises(ValueError, match=rf"^{ranks} ranks cannot be laid out as ") as caught:
        fit(topology, ranks)
    line = str(caught.value)
    assert "\n" not in line
    named = [int(n) for n in re.search(r"counts that can: ([\d, ]+);", line)[1].split(", ")]
    for count in named:
        check(topology, count)
    for distance in range(1, min(abs(count - ranks) for count in named)):
        assert fits(topology, ranks - distance) is None
        assert fits(topology, ranks + distance) is None


def test_a_place_reads_as_people_say_it():
    assert str(Place(Role.LEARNER, 3, 0)) == "learner 0 of group 3"
    assert str(Place(Role.SERVER, None, 0)) == "server 0"


def test_ranks_of_all_groups():
    places = place(Topology(groups=2, learners_per_group=1, actors_per_group=2, servers=1))
    assert ranks_of(places, Role.SERVER) == [0]
    assert ranks_of(places, Role.LEARNER) == [1, 4]
    assert ranks_of(places, Role.ACTOR) == [2, 3, 5, 6]
