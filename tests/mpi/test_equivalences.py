"""The axes are orthogonal: other parts, other ranks, the same weights, bit for bit, in deterministic runs.

Vector environments where two layouts are compared: the number of threads, and with it the order of sums in a
convolution, depends on the number of ranks.
"""

import json
import shutil
from collections import Counter
from pathlib import Path

import h5py
import pytest
import torch
from launch import deterministic_runs, hpcddrl, python, read_json, settings

from hpcddrl.logs import checkpoint

pytestmark = pytest.mark.mpi

PROGRAMS = Path(__file__).parent / "programs"
CATCH, CARTPOLE = "hpcddrl/Catch-v0", "CartPole-v1"
OFTEN = settings(coupling__exchange_every=3)
TWO_BY_TWO = settings(topology__groups=2, topology__learners_per_group=2)
SLOW = """
import time

import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv


class Uneven(gym.Wrapper):
    '''CartPole, slow in the second group.'''

    def __init__(self):
        super().__init__(CartPoleEnv())

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.slow = seed >= 100_016
        return super().reset(seed=seed, options=options)

    def step(self, action):
        if self.slow:
            time.sleep(0.002)
        return super().step(action)
"""


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    return deterministic_runs(tmp_path_factory.mktemp, 6000, paces=SLOW)


def final(out):
    """Return every owner's last version and network."""
    saved = {p.name: checkpoint.newest(p) for p in sorted((out / "checkpoints").iterdir())}
    assert saved
    assert all(state.version > 0 for state in saved.values())
    return {owner: (state.version, state.network) for owner, state in saved.items()}


def assert_same(ours, theirs):
    """Compare two owners' versions and networks."""
    assert ours[0] == theirs[0], "not the same number of updates"
    assert ours[1].keys() == theirs[1].keys()
    for name, tensor in ours[1].items():
        difference = (tensor - theirs[1][name]).abs().max()
        assert torch.equal(tensor, theirs[1][name]), f"{name}: differs by up to {difference:.3g}"


def assert_all_same(ours, theirs):
    """Compare two runs, owner by owner."""
    assert ours.keys() == theirs.keys()
    for owner in ours:
        assert_same(ours[owner], theirs[owner])


def assert_different(ours, theirs):
    assert any(not torch.equal(tensor, theirs[1][name]) for name, tensor in ours[1].items())


@pytest.mark.parametrize(
    ("recipe", "ranks", "env", "options"),
    [
        ("impala", 3, CATCH, []),
        ("a3c", 3, CATCH, []),
        ("paac", 2, CATCH, []),
        ("dqn", 1, CARTPOLE, settings(experience__learning_starts=1000)),
        pytest.param("ppo", 2, CARTPOLE, [], marks=pytest.mark.slow),
        ("group_ensemble", 4, CARTPOLE, OFTEN),
        ("group_ensemble", 6, CATCH, [*OFTEN, *TWO_BY_TWO]),
    ],
    ids=["impala-3", "a3c-3", "paac-2", "dqn-1", "ppo-2", "group_ensemble-4", "group_ensemble-6"],
)
def test_a_run_and_another_from_its_configuration_have_the_same_weights(recipe, ranks, env, options, train, tmp_path):
    first = train(ranks, recipe, *options, env=env)
    again = tmp_path / "again"
    done = python(ranks, PROGRAMS / "again.py", first / "config.json", again, cwd=tmp_path)
    assert done.rc == 0, done.text
    assert read_json(again / "config.json") == read_json(first / "config.json")
    ours = final(first)
    assert_all_same(ours, final(again))
    if recipe == "group_ensemble":
        assert_different(ours["group-0000"], ours["group-0001"])


def test_another_seed_gives_other_weights(train):
    ours, theirs = final(train(1, "paac")), final(train(1, "paac", "--seed", "2"))
    assert_different(ours["group-0000"], theirs["group-0000"])


REPEATED = settings(acting__reuse_forward="false")


@pytest.fixture
def inline(train):
    """One learner that steps its own environments and holds its own optimizer."""
    return final(train(1, "paac", *REPEATED))["group-0000"]


def test_a_server_of_one_learner_is_a_local_update(inline, train):
    options = settings(acting="local", update="server", topology__servers=1, topology__groups=1)
    assert_same(final(train(2, "paac", *options))["server-0000"], inline)


def test_an_allreduce_of_one_learner_is_a_local_update(inline, train):
    options = settings(acting="local", update="allreduce")
    assert_same(final(train(1, "paac", *options))["group-0000"], inline)


def test_acting_centrally_in_lockstep_is_acting_locally(inline, train):
    assert_same(final(train(2, "paac", *REPEATED))["group-0000"], inline)


def test_learning_from_the_forward_passes_that_acted_is_repeating_them(inline, train):
    """Up to the order of sums, which a hundred updates make visible."""
    version, network = final(train(1, "paac"))["group-0000"]
    assert version == inline[0]
    for name, tensor in network.items():
        torch.testing.assert_close(tensor, inline[1][name], rtol=1e-3, atol=1e-3)


def test_recipes_are_the_same_parts_with_other_numbers(inline, train):
    """A3C with one learner, told PAAC's numbers, is PAAC on one rank."""
    numbers = settings(env__num_envs=32, algorithm__entropy_coefficient=0.02, optimization__learning_rate=1e-3)
    assert_same(final(train(2, "a3c", *numbers))["server-0000"], inline)


def test_an_ensemble_of_weight_zero_is_uncoupled(train):
    zero = final(train(4, "group_ensemble", *OFTEN, *settings(coupling__beta=0)))
    uncoupled = final(train(4, "group_ensemble", *settings(coupling="uncoupled")))
    coupled = final(train(4, "group_ensemble", *OFTEN))
    assert_all_same(zero, uncoupled)
    assert_different(zero["group-0000"], coupled["group-0000"])


def test_publishing_the_whole_network_in_fp32_compresses_nothing(train):
    assert_all_same(final(train(3, "impala", *IDENTITY, env=CATCH)), final(train(3, "impala", env=CATCH)))


IDENTITY = settings(compression="whole", compression__format="fp32")


def learning(out, name):
    """Return the rows of a column of what the first rank, a learner, has learned."""
    with h5py.File(out / "segments/0001/rank-0000.h5", "r") as file:
        return file[f"learning/{name}"][:]


def test_a_student_that_is_its_teacher_changes_nothing_where_a_learner_acts(inline, train):
    """All ratios are 1 then, up to the order of sums in batches of another shape."""
    out = train(2, "paac", *REPEATED, *IDENTITY)
    assert_same(final(out)["group-0000"], inline)
    assert learning(out, "rho_mean") == pytest.approx(1.0, abs=1e-5)
    assert (learning(out, "lag_max") == 0).all()


def test_what_stands_still_for_eight_updates_is_seven_old_at_most(inline, train):
    out = train(1, "paac", *REPEATED, *IDENTITY, *settings(compression__trigger__updates=8))
    assert learning(out, "lag_max").max() == 7
    assert learning(out, "lag_min").min() == 0
    assert_different(final(out)["group-0000"], inline)


def test_a_group_that_is_through_does_not_cut_a_slower_one_short(train):
    """The groups' weights are those of a run in which both go at one pace."""
    options = settings(coupling="uncoupled")
    even = final(train(4, "group_ensemble", *options))
    uneven = final(train(4, "group_ensemble", *options, env="paces:Uneven"))
    assert_all_same(even, uneven)


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
    notes = watched(tmp_path, 6, -1, "group_ensemble", *OFTEN, *TWO_BY_TWO)
    assert sorted(notes) == [0, 1, 3, 4]
    assert_in_step(notes[0], notes[1])
    assert_in_step(notes[3], notes[4])
    assert notes[0][0] != notes[3][0], "groups begin with other weights"
    assert len(notes[0]) > 10


@pytest.mark.parametrize("backend", ["horovod", pytest.param("mpi", marks=pytest.mark.slow)])
def test_with_one_learners_gradient_zeroed_both_move(backend, tmp_path):
    """And Horovod's own timeline shows one allreduce an update."""
    timeline = tmp_path / "timeline.json"
    options = settings(topology__learners_per_group=2, update__backend=backend)
    notes = watched(tmp_path, 3, 0, "impala", *options, HOROVOD_TIMELINE=str(timeline))
    assert sorted(notes) == [0, 1]
    assert_in_step(notes[0], notes[1])
    if backend == "horovod":
        assert allreduces(timeline) == {"allreduce.gradient": len(notes[0]) - 1}
    else:
        assert not timeline.exists()


def allreduces(timeline):
    """Return the number of allreduces of each tensor in one of Horovod's timelines."""
    text = timeline.read_text().strip().rstrip(",")
    events = [event for event in json.loads(text if text.endswith("]") else text + "]") if event]
    tensors = {event["pid"]: event["args"]["name"] for event in events if "name" in event.get("args", {})}
    begun = [event for event in events if event.get("name") == "ALLREDUCE" and event["ph"] == "B"]
    return Counter(tensors[event["pid"]] for event in begun)


def test_a_deterministic_run_goes_on_deterministically(train, tmp_path):
    """Resumed twice from copies of one run: the same weights again (though not those of a run without a break)."""
    first, results = train(2, "impala", frames=3000), []
    for name in "ab":
        shutil.copytree(first, tmp_path / name)
        done = hpcddrl(2, "run", "--resume", tmp_path / name, "--frames", "6000", cwd=tmp_path)
        assert done.rc == 0, done.text
        results.append(final(tmp_path / name))
    assert results[0]["group-0000"][0] > final(first)["group-0000"][0]
    assert_all_same(*results)
