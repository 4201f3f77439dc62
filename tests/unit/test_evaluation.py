"""Playing a run's checkpoints."""

import json

import gymnasium as gym
import pytest
import torch
from click.testing import CliRunner

from hpcddrl.commands.cli import cli
from hpcddrl.config import Config, Env
from hpcddrl.envs.make import probe
from hpcddrl.logs.checkpoint import Checkpoint, write
from hpcddrl.logs.run_dir import RunDirectory
from hpcddrl.networks.policy_value import PolicyValueNetwork, Precision
from hpcddrl.runtime.evaluation import Score, evaluate_run

CONFIG = Config(recipe="test", env=Env(id="hpcddrl/Catch-v0", frame_stack=2))


class Uneven(gym.Env):
    """Its first episode lasts 2^seed steps and returns the seed; the ones after it are short and return -1."""

    def __init__(self):
        self.observation_space, self.action_space = gym.spaces.Box(0, 1, (1,)), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.steps, self.result = (2**seed, seed) if seed is not None else (1, -1)
        return self.observation_space.low, {}

    def step(self, action):
        self.steps -= 1
        return self.observation_space.low, 0.0 if self.steps else float(self.result), self.steps == 0, False, {}


def network(action=None):
    """Return a network that takes one action whatever it sees, or a random one."""
    net = PolicyValueNetwork(probe(CONFIG.env), "auto", 0.5, 0, Precision())
    if action is not None:
        with torch.no_grad():
            net.policy.bias[action] += 100.0
    return net


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.create(Config(recipe="test", env=CONFIG.env, network={"width": 0.5}))
    for group, action in ((0, None), (1, 1)):
        for version in (1, 2):
            state = Checkpoint(version, 100 * version, network(action).state_dict(), {}, "{}")
            write(run.checkpoints(f"group-{group:04d}"), state, keep=3)
    return run


def test_the_newest_checkpoint_of_every_owner_plays_each_episode_once(run):
    scores = evaluate_run(run, 20, greedy=True, seed=7)
    assert sorted(scores) == ["group-0000", "group-0001"]
    for score in scores.values():
        assert (score.version, score.frames) == (2, 200)
        assert len(score.returns) == 20
        assert set(score.returns) <= {-1.0, 1.0}, "the environment's own rewards"


def test_a_paddle_that_never_moves_catches_the_balls_above_it(run):
    """The ball's column is uniform over 14: about one in fourteen is caught."""
    score = evaluate_run(run, 400, greedy=True, seed=0)["group-0001"]
    assert 0.02 < score.returns.count(1.0) / 400 < 0.15


def test_each_environment_counts_its_first_episode_alone(tmp_path):
    """Short games are not played twice while a long one lasts."""
    config = Config(recipe="test", env=Env(id=f"{__name__}:Uneven"))
    run = RunDirectory(tmp_path / "run")
    run.create(config)
    net = PolicyValueNetwork(probe(config.env), "auto", 1.0, 0, Precision())
    write(run.checkpoints("group-0000"), Checkpoint(1, 1, net.state_dict(), {}, "{}"), keep=1)
    assert evaluate_run(run, 4, greedy=True, seed=3)["group-0000"].returns == [3, 4, 5, 6]


@pytest.mark.parametrize("greedy", [True, False])
def test_the_same_arguments_give_the_same_scores(run, greedy):
    one, other = (evaluate_run(run, 30, greedy, seed=3) for _ in range(2))
    assert one == other
    assert evaluate_run(run, 30, greedy, seed=100) != one


def test_the_interval_holds_the_mean_and_shrinks_with_the_episodes():
    few, many = (Score(1, 1, [float(i % 5) for i in range(n)]) for n in (10, 1000))
    for score in (few, many):
        low, high = score.interval
        assert low < score.mean == 2.0 < high
    assert many.interval[1] - many.interval[0] < (few.interval[1] - few.interval[0]) / 5
    assert many.interval == many.interval


def test_the_command_prints_and_keeps_the_scores(run):
    done = CliRunner().invoke(cli, ["evaluate", str(run.path), "--episodes", "5"])
    assert done.exit_code == 0
    assert "group-0001 version 2 (200 frames): return " in done.output
    assert "over 5 episodes, greedy" in done.output
    kept = json.loads((run.path / "evaluation.json").read_text())
    assert len(kept["group-0000"]["returns"]) == 5
