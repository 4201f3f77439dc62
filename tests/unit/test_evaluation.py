"""Playing a run's checkpoints."""

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from hpcddrl.commands.cli import cli
from hpcddrl.config import Config, Env
from hpcddrl.envs.make import probe, register
from hpcddrl.envs.references import RANDOM_AND_HUMAN, human_normalised
from hpcddrl.logs.checkpoint import Checkpoint, write
from hpcddrl.logs.run_dir import RunDirectory
from hpcddrl.networks.policy_value import PolicyValueNetwork, Precision
from hpcddrl.runtime.evaluation import BLOCK, Protocol, Score, episode_of, players_of, scores_of
from hpcddrl.runtime.film import picture

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


def play(run, episodes, greedy=True, seed=7):
    """Return the scores of a run's newest checkpoints."""
    return scores_of(players_of(run), Protocol(episodes, greedy, seed))


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
    scores = play(run, 20)
    assert sorted(scores) == ["group-0000", "group-0001"]
    for score in scores.values():
        assert (score.version, score.frames) == (2, 200)
        assert len(score.returns) == 20
        assert set(score.returns) <= {-1.0, 1.0}, "the environment's own rewards"


def test_a_paddle_that_never_moves_catches_the_balls_above_it(run):
    """The ball's column is uniform over 14: about one in fourteen is caught."""
    score = play(run, 400, seed=0)["group-0001"]
    assert 0.02 < score.returns.count(1.0) / 400 < 0.15


def test_each_environment_counts_its_first_episode_alone(tmp_path):
    """Short games are not played twice while a long one lasts."""
    config = Config(recipe="test", env=Env(id=f"{__name__}:Uneven"))
    run = RunDirectory(tmp_path / "run")
    run.create(config)
    net = PolicyValueNetwork(probe(config.env), "auto", 1.0, 0, Precision())
    write(run.checkpoints("group-0000"), Checkpoint(1, 1, net.state_dict(), {}, "{}"), keep=1)
    assert play(run, 4, seed=3)["group-0000"].returns == [3, 4, 5, 6]


@pytest.mark.parametrize("greedy", [True, False])
def test_the_same_arguments_give_the_same_scores(run, greedy):
    one, other = (play(run, 30, greedy, seed=3) for _ in range(2))
    assert one == other
    assert play(run, 30, greedy, seed=100) != one


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
    assert "over 5 episodes of hpcddrl/Catch-v0, greedy, seeds from 2000000000" in done.output
    assert "human" not in done.output
    kept = json.loads((run.path / "evaluation.json").read_text())["group-0000"]
    assert len(kept["returns"]) == 5
    assert kept["mean"] == sum(kept["returns"]) / 5
    assert kept["interval"][0] <= kept["mean"] <= kept["interval"][1]
    assert kept["human_normalised"] is None
    assert kept["protocol"]["greedy"] is True
    first = (run.path / "evaluation.json").read_text()
    again = CliRunner().invoke(cli, ["evaluate", str(run.path), "--episodes", "5"])
    assert (again.output, (run.path / "evaluation.json").read_text()) == (done.output, first)


def test_games_of_a_block_do_not_depend_on_how_many_there_are(run):
    """So ranks that share them, and a longer evaluation, play the same ones."""
    few, many = (play(run, episodes, greedy=False)["group-0000"].returns for episodes in (BLOCK, 3 * BLOCK))
    assert many[:BLOCK] == few


# --- the protocol


@pytest.fixture
def pong(tmp_path):
    """A run on Pong whose games are cut off after a hundred steps."""
    config = Config(recipe="test", env=Env(options={"max_num_frames_per_episode": 400}))
    run = RunDirectory(tmp_path / "pong")
    run.create(config)
    net = PolicyValueNetwork(probe(config.env), "auto", 1.0, 0, Precision())
    write(run.checkpoints("group-0000"), Checkpoint(1, 1, net.state_dict(), {}, "{}"), keep=1)
    return run


@pytest.mark.atari
def test_sticky_actions_and_starts_are_chosen_and_repeat_themselves(pong):
    (player,) = players_of(pong)

    def frames(**asked):
        protocol = Protocol(1, True, 5, **asked)
        return np.stack(list(episode_of(player, 0, protocol)))

    sticky, again, plain = (frames(sticky_actions=chance, noop_max=0) for chance in (0.9, 0.9, 0.0))
    assert (sticky == again).all()
    assert not (sticky[:60] == plain[:60]).all()
    assert not (frames(noop_max=30)[:5] == plain[:5]).all(), "the run's own: up to 30"


@pytest.mark.atari
def test_the_command_names_the_protocol_and_how_far_it_is_to_a_human(pong):
    done = CliRunner().invoke(cli, ["evaluate", str(pong.path), "--episodes", "2", "--sticky-actions", "0.25"])
    assert done.exit_code == 0, done.output
    assert "at most 30 no-ops, sticky actions 0.25; human: Wang et al. 2016, no-op starts" in done.output
    assert "% of human [" in done.output
    kept = json.loads((pong.path / "evaluation.json").read_text())["group-0000"]
    assert kept["human_normalised"] == pytest.approx((kept["mean"] + 20.7) / 35.3)


def test_what_only_atari_has_is_refused_elsewhere(run, command):
    code, _, error = command("evaluate", run.path, "--sticky-actions", "0.25")
    assert code == 2
    assert "--sticky-actions: hpcddrl/Catch-v0 has none, only Atari games" in error


def test_a_human_is_one_and_random_play_zero():
    assert human_normalised("ALE/Pong-v5", -20.7) == 0
    assert human_normalised("ALE/Breakout-v5", 30.5) == 1
    assert human_normalised("CartPole-v1", 500) is None
    register()
    assert all(f"ALE/{game}-v5" in gym.registry for game in RANDOM_AND_HUMAN)


# --- films


def test_the_best_and_the_worst_game_are_filmed(run, tmp_path):
    """Group 1 never moves, so it catches what falls above it: the last picture shows whether that was so."""
    films = tmp_path / "films"
    done = CliRunner().invoke(cli, ["evaluate", str(run.path), "--episodes", "60", "--video", str(films)])
    assert done.exit_code == 0, done.output
    assert "group-0001-best.gif: return 1, 13 steps" in done.output
    assert "group-0001-worst.gif: return -1, 13 steps" in done.output
    for name, caught in (("best", True), ("worst", False)):
        with Image.open(films / f"group-0001-{name}.gif") as film:
            assert film.n_frames == 13
            assert film.info["duration"] == 100
            film.seek(12)
            board = np.asarray(film.convert("L"))
        cell = board.shape[0] // 14
        cells = board[cell // 2 :: cell, cell // 2 :: cell]
        ball, paddle = cells[12].argmax(), cells[13].argmax()
        assert cells[12].max() > 200
        assert (ball == paddle) is np.bool_(caught)


def test_vectors_cannot_be_filmed(tmp_path, command):
    config = Config(recipe="test", env=Env(id="CartPole-v1"))
    run = RunDirectory(tmp_path / "run")
    run.create(config)
    net = PolicyValueNetwork(probe(config.env), "auto", 1.0, 0, Precision())
    write(run.checkpoints("group-0000"), Checkpoint(1, 1, net.state_dict(), {}, "{}"), keep=1)
    code, _, error = command("evaluate", run.path, "--video", tmp_path / "films")
    assert code == 2
    assert "CartPole-v1 shows vectors and no pictures" in error


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [((4, 5), np.uint8, (4, 5)), ((3, 4, 5), np.uint8, (4, 5, 3)), ((2, 4, 5), float, (4, 5))],
)
def test_a_picture_is_of_the_newest_frame(shape, dtype, expected):
    spec = probe(CONFIG.env)._replace(frame_shape=shape)
    top = 255 if dtype is np.uint8 else 1.0
    old, new = np.zeros(shape, dtype), np.full(shape, top, dtype)
    stacked = np.concatenate([frame.reshape(-1, *shape[-2:]) for frame in (old, new)])
    shown = picture(stacked, spec)
    assert shown.shape == expected
    assert (shown == 255).all()
