"""Seeds of environments, over a whole job."""

import pytest

from hpcddrl.comm.placement import fit, place
from hpcddrl.recipes import RECIPES
from hpcddrl.roles.counters import steppers
from hpcddrl.runtime.rank import env_seeds
from hpcddrl.settings import override


def seeds(name, ranks, seed):
    config = override(RECIPES[name](), [f"seed={seed}"])
    places = place(fit(config.topology, ranks))
    return [s for rank in steppers(places) for s in env_seeds(config, places, rank)]


@pytest.mark.parametrize("ranks", [3, 7, 64, 300])
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_no_two_environments_of_a_job_or_of_the_next_seed_are_alike(name, ranks):
    found = seeds(name, ranks, 1) + seeds(name, ranks, 2)
    assert len(set(found)) == len(found) > 0


def test_seeds_are_valid_and_the_same_each_time():
    found = seeds("impala", 8, 123_456)
    assert found == seeds("impala", 8, 123_456)
    assert all(0 <= s < 2**31 for s in found)
