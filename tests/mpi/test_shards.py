"""Parameter servers of several shards as whole jobs: what is the same as what, and that they come to their end."""

import shutil

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from launch import deterministic_runs, hpcddrl, read_json, settings

from hpcddrl.commands.cli import cli
from hpcddrl.logs.checkpoint import newest_of_all

pytestmark = pytest.mark.mpi

CARTPOLE = "CartPole-v1"  # vectors: the sums of one thread, however many ranks share the cores
LIMIT_S = 60.0
NO_CHOICE = """
import gymnasium as gym
import numpy as np


class NoChoice(gym.Env):
    '''One action: whoever acts and whatever was drawn, an environment of one seed does the same.'''

    observation_space = gym.spaces.Box(-10.0, 10.0, (4,), np.float32)
    action_space = gym.spaces.Discrete(1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(2, 12))
        return self.see(), {}

    def step(self, action):
        self.left -= 1
        return self.see(), float(self.np_random.normal()), self.left == 0, False, {}

    def see(self):
        return self.np_random.normal(size=4).astype(np.float32)
"""


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    return deterministic_runs(tmp_path_factory.mktemp, 3000, limit_s=LIMIT_S, nochoice=NO_CHOICE)


def final(out):
    """Return the version and the whole network of a run's only owner."""
    (state,) = newest_of_all(out / "checkpoints").values()
    assert state.version > 5
    return state.version, state.network


def assert_same(ours, theirs):
    assert ours[0] == theirs[0], "not the same number of updates"
    assert ours[1].keys() == theirs[1].keys()
    for name, tensor in ours[1].items():
        assert torch.equal(tensor, theirs[1][name]), f"{name}: {(tensor - theirs[1][name]).abs().max():.3g} apart"


def test_three_shards_of_one_learner_are_a_local_update(train):
    local = settings(update="local", topology__servers=0, topology__groups=1)
    assert_same(final(train(4, "a3c", *settings(topology__servers=3))), final(train(1, "a3c", *local)))


COMPENSATED = settings(update__compensation="constant", update__max_staleness=1)


def two_shards(train):
    return train(4, "a3c", *settings(topology__servers=2), *COMPENSATED)


def test_two_shards_of_two_learners_are_one(train):
    out = two_shards(train)
    assert_same(final(out), final(train(3, "a3c", *COMPENSATED)))
    with h5py.File(out / "run.h5") as file:
        for shard in "0", "1":
            staleness = file[f"ranks/000{shard}/staleness"]
            assert set(staleness["staleness"][:]) == {0, 1}, "in turn, the other learner's update lies between"
            assert staleness["count"][:].sum() == file[f"ranks/000{shard}/progress/updates"][-1]
    assert read_json(out / "summary.json")["updates"] == final(out)[0], "counted once for both shards"


def test_two_synchronous_learners_are_one_with_twice_the_environments(train):
    """The environments have the same seeds and no choice, so that both see the same."""
    axes = settings(env__reward="raw", algorithm__unroll_length=7)
    one = settings(update="local", topology__servers=0, topology__groups=1, env__num_envs=16)
    two = settings(update__mode="synchronous", topology__servers=2, env__num_envs=8)
    whole = final(train(1, "a3c", *axes, *one, env="nochoice:NoChoice", frames=2240))
    halves = final(train(4, "a3c", *axes, *two, env="nochoice:NoChoice", frames=2240))
    assert halves[0] == whole[0] == 20
    for name, tensor in whole[1].items():
        torch.testing.assert_close(halves[1][name], tensor, rtol=1e-6, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_two_shards_go_on_where_they_were(train, tmp_path):
    out = shutil.copytree(two_shards(train), tmp_path / "run")
    done = hpcddrl(4, "run", "--resume", out, "--frames", "4000", cwd=tmp_path, limit_s=LIMIT_S)
    assert done.rc == 0, done.text
    version, _ = final(two_shards(train))
    for shard in (0, 1):
        assert f"resumed server-000{shard} from version {version}, " in done.stdout, done.text
    assert final(out)[0] > version


def test_the_shards_are_played_together(train):
    done = CliRunner().invoke(cli, ["evaluate", str(two_shards(train)), "--episodes", "4"])
    assert done.exit_code == 0, done.output
    assert done.output.count("return ") == 1
    assert "server-0000 version " in done.output


SYNCHRONOUS = settings(update__mode="synchronous", optimization__scale_with_learners="true")
BOUNDED = settings(update__compensation="adaptive", update__max_staleness=0, update__max_loss_deviations=5)


@pytest.mark.parametrize("options", [BOUNDED, SYNCHRONOUS], ids=["asynchronous", "synchronous"])
def test_three_shards_and_three_learners_end_when_told(options, tmp_path):
    often = settings(topology__servers=3, logging__interval_s=0.5)
    arguments = ["--env", CARTPOLE, "--seconds", "3", "--out", tmp_path / "run"]
    done = hpcddrl(6, "run", "a3c", *arguments, *often, *options, cwd=tmp_path, limit_s=LIMIT_S)
    assert done.rc == 0, done.text
    assert "ended by seconds" in done.stdout
    compensated = "server: delay compensation keeps 3 copies of this shard's " in done.stdout
    assert compensated == (options != SYNCHRONOUS), done.text
    with h5py.File(tmp_path / "run/run.h5") as file:
        check_shards([file[f"ranks/000{rank}"] for rank in range(6)], options)


def check_shards(ranks, options):
    """Every shard applied the same gradients, none of them in part; no learner waits, so that some are too old."""
    shards, learners = ranks[:3], ranks[3:]
    updates = [shard["progress/updates"][-1] for shard in shards]
    assert updates[0] > 0
    assert updates == [updates[0]] * 3
    synchronous = options == SYNCHRONOUS
    for shard in shards:
        assert shard["staleness/count"][:].sum() == updates[0] * (3 if synchronous else 1)
    assert shards[0]["staleness/staleness"][:].max() == 0
    assert np.nanmax(shards[0]["learning/learning_rate"][:]) == pytest.approx(7e-4 * (3 if synchronous else 1))
    if not synchronous:
        sent = sum(int(rank["traffic/gradient/messages"][-1]) for rank in learners) / 3 - len(learners)
        refused = sum(np.nanmax(shards[0][f"learning/refused_{why}"][:]) for why in ("stale", "loss"))
        assert refused == sent - updates[0] > 0
