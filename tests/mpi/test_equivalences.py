"""The axes are orthogonal: other parts, other ranks, the same weights, bit for bit, in deterministic runs.

Vector environments where two layouts are compared: the number of threads, and with it the order of sums in a
convolution, depends on the number of ranks.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from launch import hpcddrl, python, read_json, settings

from hpcddrl.logs import checkpoint

pytestmark = pytest.mark.mpi

PROGRAMS = Path(__file__).parent / "programs"
CATCH, CARTPOLE = "hpcddrl/Catch-v0", "CartPole-v1"
OFTEN = settings(coupling__exchange_every=3)


def train(folder, ranks, recipe, *options, env=CARTPOLE, frames=6000, name=None):
    """Run deterministically; return every owner's final network and its version."""
    out = folder / (name or f"{recipe}-{ranks}")
    arguments = ["--env", env, "--deterministic", "--frames", str(frames), "--out", out, *options]
    done = hpcddrl(ranks, "run", recipe, *arguments, cwd=folder)
    assert done.rc == 0, done.text
    return final(out)


def final(out):
    saved = {p.name: checkpoint.newest(p) for p in sorted((out / "checkpoints").iterdir())}
    assert saved
    assert all(state.version > 0 for state in saved.values())
    return {owner: (state.version, state.network) for owner, state in saved.items()}


def assert_same(ours, theirs):
    """Compare two of `final`'s networks."""
    assert ours[0] == theirs[0], "not the same number of updates"
    assert ours[1].keys() == theirs[1].keys()
    for name, tensor in ours[1].items():
        difference = (tensor - theirs[1][name]).abs().max()
        assert torch.equal(tensor, theirs[1][name]), f"{name}: differs by up to {difference:.3g}"


def assert_different(ours, theirs):
    assert any(not torch.equal(tensor, theirs[1][name]) for name, tensor in ours[1].items())


@pytest.mark.parametrize(
    ("recipe", "ranks", "options"),
    [
        ("impala", 3, []),
        ("a3c", 3, []),
        ("paac", 2, []),
        ("group_ensemble", 4, OFTEN),
        ("group_ensemble", 6, [*OFTEN, *settings(topology__groups=2, topology__learners_per_group=2)]),
    ],
    ids=lambda value: str(value) if isinstance(value, str | int) else "",
)
def test_the_same_command_gives_the_same_weights(recipe, ranks, options, tmp_path):
    one, two = (train(tmp_path, ranks, recipe, *options, env=CATCH, frames=5000, name=name) for name in "ab")
    assert one.keys() == two.keys()
    for owner in one:
        assert_same(one[owner], two[owner])
    if recipe == "group_ensemble":
        assert_different(one["group-0000"], one["group-0001"])


def test_another_seed_gives_other_weights(tmp_path):
    one = train(tmp_path, 1, "paac", "--seed", "1", name="one")
    two = train(tmp_path, 1, "paac", "--seed", "2", name="two")
    assert_different(one["group-0000"], two["group-0000"])


@pytest.fixture(scope="module")
def inline(tmp_path_factory):
    """One learner that steps its own environments and holds its own optimizer."""
    folder = tmp_path_factory.mktemp("inline")
    return train(folder, 1, "paac")["group-0000"]


def test_a_server_of_one_learner_is_a_local_update(inline, tmp_path):
    options = settings(update="server", topology__servers=1, topology__groups=1)
    assert_same(train(tmp_path, 2, "paac", *options, *settings(acting="local"))["server-0000"], inline)


def test_an_allreduce_of_one_learner_is_a_local_update(inline, tmp_path):
    options = settings(acting="local", update="allreduce")
    assert_same(train(tmp_path, 1, "paac", *options)["group-0000"], inline)


def test_acting_centrally_in_lockstep_is_acting_locally(inline, tmp_path):
    assert_same(train(tmp_path, 2, "paac")["group-0000"], inline)


def test_other_recipes_are_the_same_parts_with_other_numbers(tmp_path):
    """A3C with one learner, told PAAC's numbers, is PAAC on one rank."""
    numbers = settings(env__num_envs=32, algorithm__entropy_coefficient=0.02, optimization__learning_rate=1e-3)
    ours = train(tmp_path, 2, "a3c", *numbers)["server-0000"]
    theirs = train(tmp_path, 1, "paac")["group-0000"]
    assert_same(ours, theirs)


def test_an_ensemble_of_weight_zero_is_uncoupled(tmp_path):
    zero = train(tmp_path, 4, "group_ensemble", *OFTEN, *settings(coupling__beta=0), name="zero")
    uncoupled = train(tmp_path, 4, "group_ensemble", *settings(coupling="uncoupled"), name="uncoupled")
    coupled = train(tmp_path, 4, "group_ensemble", *OFTEN, *settings(coupling__beta=0.5), name="coupled")
    assert zero.keys() == uncoupled.keys() == coupled.keys()
    for owner in zero:
        assert_same(zero[owner], uncoupled[owner])
    assert_different(zero["group-0000"], coupled["group-0000"])


SLOW = """
import time
from gymnasium.envs.classic_control import CartPoleEnv

class Even(CartPoleEnv):
    first_slow = 10**9

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.slow = seed >= self.first_slow
        return super().reset(seed=seed, options=options)

    def step(self, action):
        if self.slow:
            time.sleep(0.002)
        return super().step(action)

class Uneven(Even):
    first_slow = 100_016  # the second group's
"""


def test_a_group_that_is_through_does_not_cut_a_slower_one_short(tmp_path):
    (tmp_path / "paces.py").write_text(SLOW)
    options = settings(coupling="uncoupled")
    even = train(tmp_path, 4, "group_ensemble", *options, env="paces:Even", name="even")
    uneven = train(tmp_path, 4, "group_ensemble", *options, env="paces:Uneven", name="uneven")
    assert sorted(even) == sorted(uneven) == ["group-0000", "group-0001"]
    for owner in even:
        assert_same(even[owner], uneven[owner])


def test_a_configuration_that_was_written_recreates_its_run(tmp_path):
    ours = train(tmp_path, 2, "impala", name="first")["group-0000"]
    config, again = tmp_path / "first/config.json", tmp_path / "again"
    done = python(2, PROGRAMS / "again.py", config, again, cwd=tmp_path)
    assert done.rc == 0, done.text
    assert read_json(again / "config.json") == read_json(config)
    assert_same(ours, final(again)["group-0000"])


def watched(folder, ranks, zero_rank, *options, **environment):
    """Run `programs/watched.py`; return each learner's [version, digest] by rank.

    Deterministic, so that each group makes its share of the updates however busy the machine is.
    """
    arguments = ["--env", CARTPOLE, "--deterministic", "--frames", "8000", "--out", folder / "run", *options]
    done = python(ranks, PROGRAMS / "watched.py", folder, str(zero_rank), *arguments, cwd=folder, **environment)
    assert done.rc == 0, done.text
    return {int(p.stem.split("-")[1]): json.loads(p.read_text()) for p in folder.glob("learner-*.json")}


def assert_in_step(one, two):
    assert [version for version, _ in one] == list(range(len(one)))
    assert one == two, "the learners of a group parted"
    digests = [digest for _, digest in one]
    assert len(set(digests)) == len(digests), "an update changed nothing"


def test_the_learners_of_a_group_hold_the_same_weights_after_every_update(tmp_path):
    options = settings(topology__groups=2, topology__learners_per_group=2)
    notes = watched(tmp_path, 6, -1, "group_ensemble", *OFTEN, *options)
    assert sorted(notes) == [0, 1, 3, 4]
    assert_in_step(notes[0], notes[1])
    assert_in_step(notes[3], notes[4])
    assert notes[0][0] != notes[3][0], "groups begin with other weights"
    assert len(notes[0]) > 10


@pytest.mark.parametrize("backend", ["horovod", "mpi"])
def test_with_one_learners_gradient_zeroed_both_move(backend, tmp_path):
    options = settings(topology__learners_per_group=2, update__backend=backend)
    notes = watched(tmp_path, 3, 0, "impala", *options)
    assert sorted(notes) == [0, 1]
    assert_in_step(notes[0], notes[1])


def test_horovods_timeline_shows_one_allreduce_an_update(tmp_path):
    timeline = tmp_path / "timeline.json"
    options = settings(topology__learners_per_group=2, update__backend="horovod")
    notes = watched(tmp_path, 3, -1, "impala", *options, HOROVOD_TIMELINE=str(timeline))
    updates = len(notes[0]) - 1
    text = timeline.read_text().strip().rstrip(",")
    events = [e for e in json.loads(text if text.endswith("]") else text + "]") if e]
    tensors = {e["pid"]: e["args"]["name"] for e in events if "name" in e.get("args", {})}
    begun = [e for e in events if e.get("name") == "ALLREDUCE" and e.get("ph") == "B"]
    assert updates > 10
    assert len(begun) == updates
    assert all("gradient" in tensors[e["pid"]] for e in begun)


@pytest.mark.parametrize(("recipe", "ranks"), [("impala", 3), ("a3c", 3), ("paac", 2)])
def test_a_deterministic_run_goes_on_deterministically(recipe, ranks, tmp_path):
    """Resumed twice from copies of one run: the same weights again (though not those of a run without a break)."""
    train(tmp_path, ranks, recipe, frames=3000, name="first")
    results = []
    for name in "ab":
        out = tmp_path / name
        shutil.copytree(tmp_path / "first", out)
        done = hpcddrl(ranks, "run", "--resume", out, "--frames", "6000", cwd=tmp_path)
        assert done.rc == 0, done.text
        results.append(final(out))
    (owner,) = results[0]
    assert results[0][owner][0] > final(tmp_path / "first")[owner][0]
    assert_same(results[0][owner], results[1][owner])
