"""Atari as every system of the comparison plays it: 84×84 grey, skip 4, up to 30 no-ops, no sticky actions.

Runs in the peers' own environments: Gymnasium 0.29 and 1.x, nothing of hpcddrl.
"""

import ale_py
import gymnasium as gym
import numpy as np

if hasattr(gym, "register_envs"):  # older ones register when ale_py is imported
    gym.register_envs(ale_py)


class SignOfReward(gym.RewardWrapper):
    """Clips rewards as the DQN paper does, to their sign."""

    def reward(self, reward):
        return float(np.sign(reward))


def make_frames(env_id, channel_last):
    """Return one game that shows one frame at a time, [84, 84, 1] or [84, 84] uint8."""
    game = gym.make(env_id, frameskip=1, repeat_action_probability=0.0)
    # Gymnasium's preprocessing asks the emulator for grey frames, faster than colour converted afterwards.
    frames = gym.wrappers.AtariPreprocessing(
        game, noop_max=30, frame_skip=4, screen_size=84, grayscale_obs=True, grayscale_newaxis=channel_last
    )
    return SignOfReward(frames)
