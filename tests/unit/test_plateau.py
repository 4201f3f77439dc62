"""A learner notices from rewards and resets alone that returns have stopped to rise."""

import numpy as np
import pytest
import torch

from hpcddrl.config import PlateauBeta
from hpcddrl.roles.plateau import Plateau, Returns
from hpcddrl.types import Batch

LENGTH, ENVS = 10, 4


def batch(episode_return, first_step):
    """T = 5 steps of environments whose episodes last 10 steps, the last of them a reset."""
    steps = (first_step + torch.arange(5)[:, None] + 3 * torch.arange(ENVS)) % LENGTH
    valid = (steps != LENGTH - 1).float()
    reward = torch.where(steps == LENGTH - 2, episode_return, 0.0)
    empty = torch.zeros(5, ENVS)
    return Batch(torch.zeros(1, 6, ENVS, 1), empty, empty, reward, empty, valid, np.zeros(1), 5 * ENVS)


def watched(returns, **options):
    plateau = Plateau(PlateauBeta(**({"window_frames": 200, "patience": 2, "gain": 0.1} | options)))
    frames = 0
    for mean in returns:
        for i in range(10):  # 200 steps, 20 episodes
            plateau.see(batch(mean, 5 * i), frames)
            frames += 5 * ENVS
    return plateau


def test_the_mean_return_of_a_window_is_its_rewards_by_its_resets():
    plateau = watched([3.0, 3.0, 7.0, 7.0, 7.0, 20.0, 20.0])
    assert plateau._returns.means[0] == pytest.approx(3.0, rel=0.1)
    assert plateau.frames is None


def test_it_is_found_where_returns_level_off_and_stays_found():
    plateau = watched([0.0, 4.0, 8.0, 12.0, 12.0, 12.0, 12.0])
    assert plateau.frames is not None
    assert 4 * 200 < plateau.frames <= 7 * 200
    found = plateau.frames
    plateau.see(batch(100.0, 0), 1e6)
    assert plateau.frames == found


def test_a_rise_is_no_plateau():
    assert watched([float(i) for i in range(12)]).frames is None


def test_a_window_without_an_episodes_end_goes_on():
    plateau = Plateau(PlateauBeta(window_frames=10, patience=1, gain=0.0))
    endless = batch(0.0, 0)._replace(valid=torch.ones(5, ENVS))
    for frames in range(0, 1000, 20):
        plateau.see(endless, frames)
    assert plateau._returns.means == []


def test_what_is_learned_from_again_says_nothing_of_how_a_group_plays():
    """It is old, drawn by priority, and in hindsight its rewards are made up and its masked steps look like resets."""
    returns, again = Returns(200), {"weight": torch.ones(ENVS), "reward": torch.full((5, ENVS), 100.0)}
    for i in range(11):
        returns.see(batch(3.0, 5 * i), 20.0 * i)
        assert not returns.see(batch(3.0, 5 * i)._replace(**again), 1e6)
    assert returns.means == [pytest.approx(3.0, rel=0.1)]
