"""DQN: one learner with its own environments, a replay and target weights."""

from __future__ import annotations

from hpcddrl.config import Config, Env, Optimization, QLearning, Replay, RMSProp, Topology


def dqn() -> Config:
    """One learner steps its environments, keeps what happened and learns from draws of it.

    Paper: Mnih et al. 2015, doi:10.1038/nature14236.
    """
    return Config(
        recipe="dqn",
        env=Env(num_envs=8),
        topology=Topology(groups=1, actors_per_group=0),
        experience=Replay(capacity=100_000, batch_size=32, learning_starts=5_000, replay_ratio=8.0),
        algorithm=QLearning(unroll_length=4, double=False, dueling=False),
        optimization=Optimization(method=RMSProp(epsilon=1e-5), learning_rate=2.5e-4),
    )
