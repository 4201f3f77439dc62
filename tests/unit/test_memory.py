"""Whether replays fit is known before any is made."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from hpcddrl.comm.placement import place
from hpcddrl.recipes import RECIPES
from hpcddrl.replay import priorities
from hpcddrl.replay.replay import Replay
from hpcddrl.runtime import memory
from hpcddrl.runtime.checks import fitted
from hpcddrl.runtime.memory import replay_bytes_of, require_memory
from hpcddrl.settings import override
from hpcddrl.types import Discrete, EnvSpec

SPEC = EnvSpec((6, 7), np.dtype(np.uint8), 2, Discrete(3), 1)


def asked(recipe, ranks, *settings):
    """Return the bytes that each rank's replay takes."""
    config = fitted(override(RECIPES[recipe](), ["experience.capacity=6000", *settings]), ranks)
    places = place(config.topology)
    return [replay_bytes_of(config, SPEC, places, rank) for rank in range(ranks)], places


def held(streams, n_step, kind):
    return Replay(SPEC, streams, 6000, n_step, 0.99, kind, 0).nbytes


def test_a_learner_that_steps_its_own_environments_holds_them_all():
    got, _ = asked("dqn", 2)
    assert got == [held(8, 1, priorities.Uniform)] * 2


@pytest.mark.parametrize(
    ("setting", "kind"),
    [("uniform", priorities.Uniform), ("proportional", priorities.Proportional), ("rank", priorities.RankBased)],
)
def test_priorities_take_their_part(setting, kind):
    got, _ = asked("dqn", 1, f"experience.priorities={setting}", "algorithm.n_step=3")
    assert got == [held(8, 3, kind)]


def test_a_replay_rank_holds_what_its_actors_send_and_the_others_hold_nothing():
    got, places = asked("apex", 7, "topology.replays_per_group=2")
    expected = {"learner 0": 0, "replay 0": held(32, 3, priorities.Proportional)}
    expected["replay 1"] = expected["replay 0"]  # two of the four actors each
    for nbytes, here in zip(got, places, strict=True):
        assert nbytes == expected.get(f"{here.role} {here.number}", 0)
    uneven, places = asked("apex", 6, "topology.replays_per_group=2")
    by_role = {f"{here.role} {here.number}": nbytes for nbytes, here in zip(uneven, places, strict=True)}
    assert by_role["replay 0"] == held(32, 3, priorities.Proportional)
    assert by_role["replay 1"] == held(16, 3, priorities.Proportional)


def test_what_learns_from_fresh_rollouts_holds_no_replay():
    config = fitted(RECIPES["impala"](), 3)
    places = place(config.topology)
    assert [replay_bytes_of(config, SPEC, places, rank) for rank in range(3)] == [0, 0, 0]


def test_each_learner_keeps_rollouts_of_one_environment():
    """Each of T + K frames once, and their numbers; a little more for alignment."""
    config = fitted(override(RECIPES["staged"](), ["stages.middle.capacity=500"]), 3)
    places = place(config.topology)
    server, *learners = (replay_bytes_of(config, SPEC, places, rank) for rank in range(3))
    frames = 500 * (SPEC.frame_stack + 5) * math.prod(SPEC.frame_shape)
    assert server == 0
    assert learners[0] == learners[1]
    assert frames < learners[0] < 1.1 * frames + 500 * 300
    theirs = override(config, ["stages.middle.held_by=server"])
    assert [replay_bytes_of(theirs, SPEC, places, rank) for rank in range(3)] == [learners[0], 0, 0]


def require(monkeypatch, ranks, free=1000):
    """Let every rank ask; return the complaint of each."""
    monkeypatch.setattr(memory, "available_bytes", lambda: free)
    said = []
    for host, nbytes in ranks:
        world = SimpleNamespace(allgather=lambda mine: [(h, n, free) for h, n in ranks])
        try:
            require_memory(world, host, nbytes)
            said.append("")
        except ValueError as error:
            said.append(str(error))
    return said


def test_what_fits_on_each_host_is_fine(monkeypatch):
    assert require(monkeypatch, [("a", 500), ("a", 500), ("b", 1000), ("b", 0)]) == [""] * 4
    assert require(monkeypatch, [("a", 0), ("a", 0)], free=0) == [""] * 2


def test_what_does_not_fit_is_refused_on_every_rank_in_the_same_line_with_its_bytes(monkeypatch):
    said = require(monkeypatch, [("a", 10), ("b", 600_000), ("b", 500_000)], free=1_000_000)
    assert len(set(said)) == 1
    for part in ("experience.capacity", "host b", "1,100,000 bytes", "1,000,000 are free", "smaller"):
        assert part in said[0]
    assert "\n" not in said[0]


def test_the_bytes_that_can_be_taken_are_some_and_not_more_than_there_are():
    assert 2**20 < memory.available_bytes() < 2**50
