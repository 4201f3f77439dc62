"""Train Stable-Baselines3's A2C, or PPO with one epoch, for some seconds; every sample gets one gradient pass.

Counted: num_timesteps at the start of a rollout, that is, after the update that took all of them once.
"""

import argparse
import functools

import gymnasium as gym
import numpy as np
import torch
from ale_py.vector_env import AtariVectorEnv
from atari import make_frames
from gymnasium.vector import AutoresetMode
from report import Trained
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecFrameStack


class NativeVecEnv(VecEnv):
    """ale-py's vector environment, which steps games on threads of C++, as Stable-Baselines3 wants one."""

    def __init__(self, env_id, num_envs, threads):
        self._games = AtariVectorEnv(
            gym.spec(env_id).kwargs["game"],
            num_envs,
            num_threads=threads,
            autoreset_mode=AutoresetMode.SAME_STEP,  # as VecEnv: the frame after an end is the next game's first
            reward_clipping=True,
            use_fire_reset=False,  # gymnasium's preprocessing has none
        )
        super().__init__(num_envs, self._games.single_observation_space, self._games.single_action_space)

    def reset(self):
        return self._games.reset(seed=self._seeds[0])[0]

    def step_async(self, actions):
        self._games.send(actions)

    def step_wait(self):
        frames, rewards, terminated, truncated, info = self._games.recv()
        told = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(terminated | truncated):
            told[i] = {"TimeLimit.truncated": bool(truncated[i] and not terminated[i])}
            told[i]["terminal_observation"] = info["final_obs"][i]
        return frames, rewards.astype(np.float32), terminated | truncated, told

    def close(self):
        self._games.close()

    def env_is_wrapped(self, wrapper_class, indices=None):
        return [False] * self.num_envs

    def get_attr(self, attr_name, indices=None):
        # render_mode alone is asked for, and there is none.
        return [getattr(self._games, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name, value, indices=None):
        raise NotImplementedError("nothing of ale-py's vector environment can be set")

    def env_method(self, method_name, *args, indices=None, **kwargs):
        raise NotImplementedError("the games of ale-py's vector environment cannot be called one by one")


def make_envs(kind, env_id, num_envs, threads):
    """Return the environments, with the last four frames as the observation."""
    if kind == "ale":
        return NativeVecEnv(env_id, num_envs, threads)
    games = [functools.partial(make_frames, env_id, True)] * num_envs
    return VecFrameStack(DummyVecEnv(games) if kind == "dummy" else SubprocVecEnv(games), 4)


class Clock(BaseCallback):
    """Ends the training when the time is over, counted in whole updates."""

    def __init__(self, trained):
        super().__init__()
        self._trained = trained
        self._over = False

    def _on_rollout_start(self):
        if self.num_timesteps:
            self._over = self._trained.note(self.num_timesteps)

    def _on_step(self):
        return not self._over


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--algorithm", choices=("a2c", "ppo"), required=True)
    parser.add_argument("--vector", choices=("dummy", "subproc", "ale"), required=True)
    parser.add_argument("--envs", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True, help="of each environment in a rollout")
    parser.add_argument("--batch", type=int, help="samples a minibatch (ppo)")
    parser.add_argument("--threads", type=int, required=True, help="of torch and of ale-py's vector environment")
    parser.add_argument("--env", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--report", required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    envs = make_envs(given.vector, given.env, given.envs, given.threads)
    common = {"n_steps": given.steps, "ent_coef": 0.01, "seed": given.seed, "device": "cpu"}
    if given.algorithm == "a2c":
        model = A2C("CnnPolicy", envs, **common)
    else:
        model = PPO("CnnPolicy", envs, n_epochs=1, batch_size=given.batch, **common)
    trained = Trained(given.seconds)
    model.learn(10**12, callback=Clock(trained))
    envs.close()
    trained.write(given.report)


if __name__ == "__main__":
    main()
