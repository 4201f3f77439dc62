"""Environments with goals, and how they are seen, stored and judged as one array."""

from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

from hpcddrl.config import Env
from hpcddrl.envs.goal_frames import AsOneArray, has_goal, outcome
from hpcddrl.envs.goals import BitFlip, Maze, carved, distances
from hpcddrl.envs.make import goal_outcome, make, probe
from hpcddrl.envs.rewards import raw
from hpcddrl.types import GoalLayout

BUILT_IN = {
    "hpcddrl/BitFlip-v0": ({"bits": 4}, (12,), "f4", GoalLayout(4, 4)),
    "hpcddrl/Maze-v0": ({"cells": 3}, (3, 14, 14), "u1", GoalLayout(1, 1)),
}
built_in = pytest.mark.parametrize("name", BUILT_IN)


def env_of(name, **more):
    return Env(id=name, options=BUILT_IN[name][0], **{"reward": "raw", **more})


@built_in
def test_what_an_agent_sees_says_where_the_goals_are(name):
    _, shape, dtype, layout = BUILT_IN[name]
    spec = probe(env_of(name))
    assert spec.frame_shape == shape
    assert spec.frame_dtype == np.dtype(dtype)
    assert spec.goal == layout
    assert (spec.goal.desired.stop, spec.goal.achieved.stop) == (layout.observation + layout.goal, shape[0])


def test_others_have_none():
    assert probe(Env(id="CartPole-v1")).goal is None


@built_in
@pytest.mark.parametrize("reward", ["raw", "clip"])
def test_rewards_and_ends_can_be_made_again_from_what_is_seen(name, reward):
    """Of random play, whose episodes end by success and by time."""
    env = env_of(name, reward=reward)
    envs, worth = make(env, 8, range(8), 0.9), goal_outcome(env, 0.9)
    goal, rng = envs.spec.goal, np.random.default_rng(0)
    frame, succeeded, out_of_time = envs.reset(), 0, 0
    for _ in range(800):
        desired = frame[:, goal.desired]
        step = envs.step(rng.integers(envs.spec.action.num_actions, size=8))
        frame, steps = step.frame, ~step.first
        np.testing.assert_array_equal(frame[steps][:, goal.desired], desired[steps])  # the same within an episode
        rewards, ends = worth(frame[:, goal.achieved], frame[:, goal.desired])
        assert rewards.dtype == np.float32
        np.testing.assert_array_equal(rewards[steps], step.reward[steps])
        np.testing.assert_array_equal(ends[steps], step.discount[steps] == 0)
        succeeded += np.count_nonzero(step.episode_length[ends])
        out_of_time += np.count_nonzero(step.episode_length[~ends])
    assert min(succeeded, out_of_time) > 5
    envs.close()


def test_bits_are_turned_one_by_one():
    env = BitFlip(6)
    for seed in range(20):
        shown, _ = env.reset(seed=seed)
        start, goal = shown["observation"], shown["desired_goal"]
        wrong = np.flatnonzero(start != goal)
        assert len(wrong) > 0
        for left, bit in zip(range(len(wrong) - 1, -1, -1), wrong, strict=True):
            shown, reward, terminated, truncated, _ = env.step(bit)
            assert np.count_nonzero(shown["achieved_goal"] != goal) == left
            assert (reward, terminated, truncated) == (-1.0 * (left > 0), left == 0, False)
    shown, _ = env.reset(seed=0)
    wrong = int(np.flatnonzero(shown["observation"] != shown["desired_goal"])[0])
    ends = [env.step(wrong if i % 2 else (wrong + 1) % 6)[2:4] for i in range(6)]
    assert ends[-1][0] or ends[-1] == (False, True)
    np.testing.assert_array_equal(env.reset(seed=0)[0]["desired_goal"], shown["desired_goal"])


@pytest.mark.parametrize("cells", [3, 6])
def test_a_maze_is_perfect(cells):
    """Every cell is reached, and by one way only: there is one wall fewer open than there are cells."""
    for seed in range(5):
        maze = carved(cells, np.random.default_rng(seed))
        assert maze[1::2, 1::2].all()
        assert not maze[::2, ::2].any()
        assert maze.sum() == 2 * cells**2 - 1
        assert (distances(maze, (1, 1))[1::2, 1::2] >= 0).all()


def test_the_way_through_a_maze():
    """By the shortest way to each goal: as many steps as it is far, and all goals are far dead ends."""
    env, goals = Maze(5, maze=3), set()
    for seed in range(20):
        shown, _ = env.reset(seed=seed)
        assert shown["observation"][2, 2] == 255
        goal = env._goal
        goals.add(goal)
        y, x = goal
        assert sum(bool(env._open[y + dy, x + dx]) for dy, dx in env.MOVES) == 1
        to_goal, total, ended = distances(env._open, goal), 0.0, False
        far = env._distance[goal]
        assert far >= env._distance.max() / 2
        for _ in range(far):
            y, x = env._at
            assert not ended
            action = next(
                a
                for a, (dy, dx) in enumerate(env.MOVES)
                if env._open[y + dy, x + dx] and to_goal[y + 2 * dy, x + 2 * dx] < to_goal[y, x]
            )
            shown, reward, ended, _, _ = env.step(action)
            total += reward
        assert ended
        assert total == 1 - far
        np.testing.assert_array_equal(shown["achieved_goal"], shown["desired_goal"])
        assert (shown["desired_goal"] == 255).sum() == env.PIXELS**2
    assert goals == set(env._goals)


def test_walls_hold_and_time_runs_out():
    env = Maze(4)
    shown, _ = env.reset(seed=0)
    for i in range(env._limit):
        again, reward, terminated, truncated, _ = env.step(0)  # up, from the uppermost row
        np.testing.assert_array_equal(again["observation"], shown["observation"])
        assert (reward, terminated, truncated) == (-1.0, False, i == env._limit - 1)


@pytest.mark.parametrize(("make_it", "words"), [(lambda: BitFlip(1), "bits = 1"), (lambda: Maze(2), "cells = 2")])
def test_options_out_of_range_are_named(make_it, words):
    with pytest.raises(ValueError, match=words):
        make_it()


class Arm(gym.Env):
    """As Gymnasium-Robotics': float64, goals that are no part of the observation, ends by nothing but time."""

    def __init__(self, observation=(5,), goal=(2,), achieved=None, dtype=np.float64):
        def box(shape):
            return gym.spaces.Box(0, 255 if dtype == np.uint8 else np.inf, shape, dtype)

        self.observation_space = gym.spaces.Dict(
            {"observation": box(observation), "desired_goal": box(goal), "achieved_goal": box(achieved or goal)}
        )
        self.action_space = gym.spaces.Box(-1, 1, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        spaces = self.observation_space.items()
        return {name: np.full(space.shape, i, space.dtype) for i, (name, space) in enumerate(spaces, 1)}, {}

    def step(self, action):
        return self.reset()[0], 0.0, False, False, {}

    def compute_reward(self, achieved_goal, desired_goal, info):
        return -(np.linalg.norm(achieved_goal - desired_goal, axis=-1) > 0.05).astype(np.float32)


class OneByOne(Arm):
    """Takes no batches."""

    def compute_reward(self, achieved_goal, desired_goal, info):
        assert achieved_goal.dtype == np.float64
        return -float(np.linalg.norm(achieved_goal - desired_goal) > 0.05)

    def compute_terminated(self, achieved_goal, desired_goal, info):
        return bool(achieved_goal[0] > 10)


def test_vectors_stand_side_by_side():
    env = AsOneArray(Arm())
    assert env.goal_layout == GoalLayout(5, 2)
    seen, _ = env.reset()
    order = list(env.env.observation_space)
    one, two, three = (order.index(name) + 1 for name in ("observation", "desired_goal", "achieved_goal"))
    np.testing.assert_array_equal(seen, [one] * 5 + [two] * 2 + [three] * 2)
    assert seen.dtype == np.float32
    assert env.observation_space.contains(seen)


def test_images_are_planes_whichever_side_their_channels_are():
    env = AsOneArray(Arm((8, 9, 3), (8, 9), dtype=np.uint8))
    assert env.goal_layout == GoalLayout(3, 1)
    assert env.reset()[0].shape == env.observation_space.shape == (5, 8, 9)
    for shapes, layout in ((((8, 9), (8, 9, 2)), GoalLayout(1, 2)), (((2, 8, 9), (1, 8, 9)), GoalLayout(2, 1))):
        assert AsOneArray(Arm(*shapes, dtype=np.uint8)).goal_layout == layout


@pytest.mark.parametrize(
    "shapes",
    [((5,), (2,), (3,)), ((8, 9), (2,)), ((8, 9), (9, 8))],
    ids=["goals differ", "vector beside image", "sizes differ"],
)
def test_parts_that_do_not_fit_are_named(shapes):
    dtype = np.uint8 if len(shapes[0]) > 1 else np.float64
    with pytest.raises(ValueError, match=r"goals that do not fit beside the observation \(observation \(.*use three"):
        AsOneArray(Arm(*shapes, dtype=dtype))


@pytest.mark.parametrize("arm", [Arm, OneByOne])
def test_rewards_are_asked_in_the_environments_own_terms(arm):
    achieved = np.array([[0, 0], [0, 1], [20, 0]], np.float32)
    reward, ends = outcome(arm(), raw)(achieved, np.zeros((3, 2), np.float32))
    assert reward.tolist() == [0, -1, -1]
    assert ends.tolist() == [False, False, arm is OneByOne]


def test_goals_keep_their_shape_on_the_way_back():
    env, asked = Arm((8, 9, 3), (8, 9, 2), dtype=np.uint8), []
    env.compute_reward = lambda achieved, desired, info: asked.append(achieved) or np.zeros(len(achieved))
    planes = np.arange(3 * 2 * 8 * 9).reshape(3, 2, 8, 9).astype(np.uint8)
    outcome(env, raw)(planes, planes)
    np.testing.assert_array_equal(asked[-1], np.moveaxis(planes, 1, -1))


def test_a_dictionary_without_goals_is_not_supported(monkeypatch):
    assert has_goal(Arm())
    assert not has_goal(SimpleNamespace(observation_space=Arm().observation_space, unwrapped=object()))
    with pytest.raises(ValueError, match=r"env.id = 'test_goals:Plain': observations Dict.* or a dictionary of"):
        probe(Env(id="test_goals:Plain"))


class Plain(Arm):
    """Shows a dictionary of other things."""

    def __init__(self):
        super().__init__()
        self.observation_space = gym.spaces.Dict({"a": gym.spaces.Box(0, 1, (2,))})
