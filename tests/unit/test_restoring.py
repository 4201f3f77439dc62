"""Going on with a run: the newest good checkpoint, complaints about those of other runs, and other layouts."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hpcddrl.comm.placement import place
from hpcddrl.logs.packing import pack
from hpcddrl.logs.restart import DONE, RestartFolder, Section
from hpcddrl.recipes import RECIPES
from hpcddrl.runtime.checks import fitted
from hpcddrl.runtime.restoring import draft_of, refitted, resume
from hpcddrl.settings import override

ENSEMBLE = RECIPES["group_ensemble"]()


class World:
    """Stands for a communicator in which rank 0 has spoken before."""

    def __init__(self, rank, said=None):
        self.rank, self.said = rank, [] if said is None else list(said)

    def bcast(self, thing):
        if self.rank:
            return self.said.pop(0)
        self.said.append(thing)
        return thing

    def allgather(self, thing):
        return [thing]


def state_of(config, place, number):
    """Return a rank's state, told apart by group."""
    group = -1 if place.group is None else place.group
    state = {"counters": {"predictions": 50.0, "window": [1.0], "best": 2.0}, "weights": {"version": 0, "frames": 0.0}}
    if place.role == "learner":
        state["optimizer"] = {"parameters": torch.full((3,), float(group)), "optimizer": {}, "frames": 10.0 * number}
        state["weights"] = {"version": 100 + group, "frames": 1000.0}
        state["peers"] = {"known": group}
        state["compression"] = {"of": "student", "version": 90 + group}
    if place.role == "learner" and (place.group, place.number) == (0, 0):
        state["stages"] = {"known": "of rank 0"}
    if place.role == "actor":
        state["environments"] = {"rewards": {"count": float(group)}, "running": 4}
    return state


def save(folder, config, number, ranks):
    """Write a checkpoint of a job on so many ranks."""
    config = fitted(config, ranks)
    places = place(config.topology)
    write(folder, number, draft_of(config, places), [state_of(config, own, number) for own in places])


def write(folder, number, draft, states):
    folder.begin(number)
    sections, offset = [], 0
    for state in states:
        packed = pack(state)
        checksum = folder.write(number, "node-0000.bin", offset, packed)
        sections.append(Section("node-0000.bin", offset, packed.nbytes, checksum))
        offset += packed.nbytes
    manifest = replace(
        draft,
        number=number,
        sections=tuple(sections),
        versions=tuple(state["weights"]["version"] for state in states),
        frames=tuple(state["weights"]["frames"] for state in states),
        account={"frames": 5000.0, "predictions": 600.0, "pending": 7.0},
    )
    folder.finish(manifest, keep=10)


def resumed(folder, config, ranks, rank=0, change=fitted):
    config = change(config, ranks)
    first = World(0)
    found = resume(first, folder, config, place(config.topology))
    return resume(World(rank, first.said), folder, config, place(config.topology)) if rank else found


@pytest.fixture
def folder(tmp_path):
    return RestartFolder(tmp_path / "restart")


def test_every_rank_goes_on_from_its_own_part(folder):
    save(folder, ENSEMBLE, 3, 8)
    for rank in range(8):
        found = resumed(folder, ENSEMBLE, 8, rank)
        assert found.start.number == 3
        assert found.start.account["frames"] == 5000
        assert found.start.version == 100 + rank // 2, "of its group's weights"
        assert ("optimizer" in found.saved) == (rank % 2 == 0)
        assert found.saved.get("environments", {"running": 4})["running"] == 4
        assert not any("redistributed" in line for line in found.lines)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda p: flip(p / "node-0000.bin"), "000002/node-0000.bin: the bytes do not agree"),
        (lambda p: (p / "node-0000.bin").write_bytes(b""), "000002: node-0000.bin is cut off"),
        (lambda p: (p / "node-0000.bin").unlink(), "node-0000.bin"),
        (lambda p: (p / DONE).write_text("{"), "000002: "),
    ],
    ids=["flipped", "torn", "missing", "mark"],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(folder, spoil, named):
    for number in (1, 2):
        save(folder, ENSEMBLE, number, 2)
    spoil(folder.name(2))
    found = resumed(folder, ENSEMBLE, 2)
    assert found.start.number == 1
    assert found.saved["optimizer"]["frames"] == 10
    assert "damaged, and passed over" in found.lines[0]
    assert named in found.lines[0]
    (folder.name(1) / "node-0000.bin").write_bytes(b"")
    found = resumed(folder, ENSEMBLE, 2)
    assert (found.start.number, found.saved) == (0, None)
    assert len(found.lines) == 3
    assert "begins anew" in found.lines[-1]


def test_a_run_without_a_checkpoint_begins_anew(folder):
    found = resumed(folder, ENSEMBLE, 2)
    assert (found.start.number, found.start.account, found.saved) == (0, {}, None)
    assert "no good checkpoint" in found.lines[0]


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("network.width=0.5", "network.width = 1.0, and this run has 0.5"),
        ("env.id=ALE/Breakout-v5", "env.id = 'ALE/Pong-v5', and this run has 'ALE/Breakout-v5'"),
        ("optimization.method=adam", "optimization.method.kind = 'rmsprop', and this run has 'adam'"),
        ("coupling=averaging", "coupling.kind"),
    ],
)
def test_a_checkpoint_of_something_else_is_one_line(folder, setting, named):
    save(folder, ENSEMBLE, 1, 2)
    with pytest.raises(ValueError, match=r"^--resume .*000001: made with ") as caught:
        resumed(folder, override(ENSEMBLE, [setting]), 2)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_recipe_is_one_line(folder):
    save(folder, RECIPES["impala"](), 1, 2)
    with pytest.raises(ValueError, match=r"000001: made with recipe = 'impala', and this run has 'group_ensemble'"):
        resumed(folder, ENSEMBLE, 2)


def test_a_checkpoint_of_another_number_of_shards_is_one_line(folder):
    save(folder, RECIPES["a3c"](), 1, 3)
    with pytest.raises(ValueError, match=r"topology\.servers = 1, and this run has 2"):
        resumed(folder, override(RECIPES["a3c"](), ["topology.servers=2"]), 3)


def test_a_checkpoint_of_a_later_program_is_one_line(folder, monkeypatch):
    with monkeypatch.context() as later:
        later.setattr("hpcddrl.logs.restart.SCHEMA", 7)
        later.setattr("hpcddrl.runtime.restoring.draft_of", draft_of)
        config = fitted(ENSEMBLE, 2)
        places = place(config.topology)
        folder.begin(1)
        folder.finish(replace(draft_of(config, places), number=1, schema=7), keep=1)
    with pytest.raises(ValueError, match=r"^--resume .*schema 7 of checkpoints, and this program reads 1; update"):
        resumed(folder, ENSEMBLE, 2)


def test_fewer_groups_share_the_frames_of_all_and_say_what_is_left_out(folder):
    save(folder, fitted(ENSEMBLE, 8), 1, 8)
    found = [resumed(folder, fitted(ENSEMBLE, 8), 4, rank, refitted) for rank in range(4)]
    for rank in (0, 2):
        state = found[rank].saved
        assert state["optimizer"]["parameters"].tolist() == [float(rank // 2)] * 3
        assert state["weights"] == {"version": 100 + rank // 2, "frames": 2000.0}
        assert state["optimizer"]["frames"] == 2000.0
        assert "peers" not in state, "they are others now"
    assert found[1].saved["environments"] == {"rewards": {"count": 0.0}, "running": 0}
    assert [f.saved["counters"]["predictions"] for f in found] == [300.0] * 4
    said = "\n".join(found[0].lines)
    assert "8 ranks in 4 groups then, 4 in 2 now" in said
    assert "weights and optimizers of groups 2, 3 stay in the checkpoint" in said


@pytest.mark.parametrize(("actors", "learners"), [(3, 1), (1, 3)])
def test_the_same_groups_of_other_sizes_still_know_each_other(folder, actors, learners):
    four = override(ENSEMBLE, ["topology.groups=4"])
    save(folder, four, 3, 8)
    counts = [f"topology.actors_per_group={actors}", f"topology.learners_per_group={learners}"]
    for rank in range(16):
        found = resumed(folder, override(four, counts), 16, rank)
        assert any("redistributed" in line for line in found.lines)
        learns = rank % 4 < learners
        assert found.saved.get("peers") == ({"known": rank // 4} if learns else None)


def test_who_goes_on_apart_meets_the_others_anew_on_another_layout(folder, monkeypatch):
    plain, apart = state_of, {"apart": {"spell": {"number": 1, "updates": 5}}}
    monkeypatch.setattr(f"{__name__}.state_of", lambda *about: plain(*about) | apart)
    save(folder, override(ENSEMBLE, ["topology.groups=4"]), 3, 8)
    found = resumed(folder, override(ENSEMBLE, ["topology.groups=4", "topology.actors_per_group=3"]), 16)
    assert not found.saved.keys() & {"apart", "peers"}


def test_more_groups_begin_as_copies(folder):
    save(folder, fitted(ENSEMBLE, 4), 1, 4)
    found = [resumed(folder, fitted(ENSEMBLE, 4), 8, rank, refitted) for rank in range(8)]
    assert [found[rank].saved.get("stages") for rank in range(8)] == [{"known": "of rank 0"}, *[None] * 7]
    copied = [found[rank].saved["optimizer"]["parameters"][0].item() for rank in (0, 2, 4, 6)]
    assert copied == [0, 1, 0, 1]
    assert [found[rank].saved["compression"]["version"] for rank in (0, 2, 4, 6)] == [90, 91, 90, 91]
    assert [found[rank].start.version for rank in range(8)] == [100, 100, 101, 101, 100, 100, 101, 101]
    assert "new groups begin as copies: 2 as group 0, 3 as group 1" in "\n".join(found[0].lines)


def test_a_run_is_fitted_anew_where_its_recipe_is_open():
    config = fitted(ENSEMBLE, 8)
    assert refitted(config, 4).topology.groups == 2
    assert refitted(fitted(RECIPES["impala"](), 8), 4).topology.actors_per_group == 3
    with pytest.raises(ValueError, match="cannot be laid out"):
        refitted(config, 1)


def test_a_replay_is_dealt_to_other_ranks(folder):
    numbers = ["experience.batch_size=16", "experience.learning_starts=32", "experience.capacity=64"]
    config = override(RECIPES["apex"](), ["topology.replays_per_group=2", "env.num_envs=2", *numbers])
    whole = fitted(config, 5)
    places = place(whole.topology)
    ring = {"store": {"first": np.zeros(40, bool)}, "newest": np.full(2, 19), "number": np.zeros(2, np.int64)}
    held = {"ring": ring, "slots": np.full(40, 2, np.uint8), "priorities": {"weights": np.ones(40), "largest": 1.0}}
    states = [
        {"weights": {"version": 1, "frames": 1.0}}
        | ({"replay": {"replay": held, "pace": {"allowed": 8.0}}} if own.role == "replay" else {})
        for own in places
    ]
    write(folder, 1, draft_of(whole, places), states)
    found = resumed(folder, override(config, ["topology.replays_per_group=1"]), 3, rank=1)
    assert [h.states.shape for h in found.saved["replay"]["replay"]["histories"]] == [(20, 2), (20, 2)]
    assert found.saved["replay"]["pace"]["allowed"] == 16.0
    assert "7 transitions not learned from yet, and all others held, from 2 replays to 1" in found.lines[-1]
