"""What is learned from an environment's rewards."""

import numpy as np
import pytest

from hpcddrl.envs.rewards import Normalise, clip, raw, reward_transform

NO_ENDS = np.zeros(3, bool)
REWARD = np.array([-5.0, 0.25, 3.0])


def test_raw_rewards_stay():
    np.testing.assert_array_equal(raw(REWARD, NO_ENDS), REWARD)
    assert raw(REWARD, NO_ENDS).dtype == np.float32


def test_clipped_rewards_keep_their_sign():
    np.testing.assert_array_equal(clip(REWARD, NO_ENDS), [-1.0, 0.25, 1.0])
    assert clip(REWARD, NO_ENDS).dtype == np.float32


def stream(steps=200, envs=3, scale=7.0):
    rng = np.random.default_rng(0)
    return scale * rng.normal(0.5, 1.0, (steps, envs)), rng.random((steps, envs)) < 0.1


def test_normalised_rewards_are_divided_by_the_deviation_of_all_discounted_returns_so_far():
    rewards, ends = stream()
    transform, discount = Normalise(3, 0.9), 0.9
    running, returns = np.zeros(3), []
    for t, (reward, end) in enumerate(zip(rewards, ends, strict=True)):
        for i in range(3):
            running[i] = discount * running[i] + reward[i]
            returns.append(running[i])
        got = transform(reward, end)
        running[end] = 0.0
        if t > 3:
            np.testing.assert_allclose(got, np.clip(reward / np.std(returns), -10, 10), rtol=1e-3)
    assert got.dtype == np.float32


def test_normalised_rewards_do_not_depend_on_the_rewards_scale():
    small, large = Normalise(3, 0.9), Normalise(3, 0.9)
    for reward, end in zip(*stream(50), strict=True):
        a, b = small(reward, end), large(1000 * reward, end)
    np.testing.assert_allclose(a, b, rtol=1e-3)


def test_normalised_rewards_keep_their_sign_and_stay_within_10():
    transform = Normalise(1, 0.9)
    for _ in range(200):  # one of n returns is at most √n deviations large
        assert transform(np.array([0.001]), np.zeros(1, bool))[0] > 0
    assert transform(np.array([1e6]), np.zeros(1, bool))[0] == 10.0
    assert Normalise(1, 0.9)(np.zeros(1), np.zeros(1, bool))[0] == 0.0


@pytest.mark.parametrize(
    ("wanted", "atari", "expected"),
    [("raw", True, raw), ("clip", False, clip), ("auto", True, clip), ("raw", False, raw)],
)
def test_reward_transform_takes_what_is_wanted(wanted, atari, expected):
    assert reward_transform(wanted, atari, 3, 0.9) is expected


@pytest.mark.parametrize(("wanted", "atari"), [("auto", False), ("normalise", True), ("normalise", False)])
def test_reward_transform_normalises_when_asked_and_by_default_outside_atari(wanted, atari):
    assert isinstance(reward_transform(wanted, atari, 3, 0.9), Normalise)
