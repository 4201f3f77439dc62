"""Stacking frames against a walk backwards from each newest one."""

import numpy as np
import pytest

from hpcddrl.envs.frames import as_observation, stack

SHAPES = [(3,), (4, 5), (2, 4, 5)]


def random_stream(depth, shape, steps=12, envs=4, seed=0, starts=0.25):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (depth + steps, envs, *shape), dtype=np.uint8)
    return frames, rng.random((depth + steps, envs)) < starts


def walk_back(frames, first, depth):
    """From the newest frame back to its episode's first, which stands for everything before it."""
    length, envs = first.shape
    observations = np.zeros((length - depth + 1, envs, depth, *frames.shape[2:]), frames.dtype)
    for t in range(length - depth + 1):
        for b in range(envs):
            i = t + depth - 1
            for k in reversed(range(depth)):
                observations[t, b, k] = frames[i, b]
                if not first[i, b] and i > 0:
                    i -= 1
    return observations


@pytest.mark.parametrize("depth", [1, 2, 4, 7])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("starts", [0.0, 0.1, 0.5, 1.0])
def test_stacks_equal_a_walk_backwards(depth, shape, starts):
    frames, first = random_stream(depth, shape, seed=depth, starts=starts)
    expected = walk_back(frames, first, depth)
    np.testing.assert_array_equal(stack(frames, first, depth), expected)
    out = np.zeros_like(expected)
    assert stack(frames, first, depth, out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_no_frame_of_another_episode_is_seen():
    """Each frame shows the number of its episode."""
    _, first = random_stream(4, (1,), steps=50, seed=3)
    episode = np.cumsum(first, axis=0).astype(np.uint8)
    stacked = stack(episode[..., None], first, 4)
    assert episode.max() > 5
    assert (stacked == stacked[:, :, -1:]).all()


@pytest.mark.parametrize(("shape", "observation"), [((3,), (12,)), ((4, 5), (4, 4, 5)), ((2, 4, 5), (8, 4, 5))])
def test_observations_are_the_frames_side_by_side_oldest_first(shape, observation):
    frames, first = random_stream(4, shape, starts=0.0)
    stacked = stack(frames, first, 4)
    observations = as_observation(stacked)
    assert observations.shape == (13, 4, *observation)
    assert np.shares_memory(observations, stacked)
    expected = np.concatenate([f if f.ndim != 2 else f[None] for f in frames[2:6, 1]])
    np.testing.assert_array_equal(observations[2, 1], expected)
