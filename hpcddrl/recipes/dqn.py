"""DQN: one learner steps its own environments, keeps what happened and learns from draws of it."""

from __future__ import annotations

from hpcddrl.config import Adam, Config, Env, Optimization, QLearning, Replay, Topology


def dqn() -> Config:
    """One rank: environments, replay and learner.

    Paper: Mnih et al. 2015, doi:10.1038/nature14236.

        environments --transitions--> replay --uniform draws--> learner

    As in the released code (its run script, checked): batch 32, one update every 4 steps (so each transition is
    learned from 8 times), learning rate 2.5e-4, γ 0.99, history of 4 frames, errors clipped at 1, rewards clipped.

    Different: Adam, as in most later implementations, instead of centred RMSProp (decay 0.95, epsilon 0.01: from
    memory, unchecked; ``--set optimization.method=rmsprop`` and its fields); ε ends at 0.05, not 0.1; 8 environments
    in lockstep, since a forward pass of one costs a fifth of one of 32 per sample, so 32 steps come at a time and 8
    updates follow. A run on few cores is short, so the replay holds 100,000 transitions instead of a million (0.7 GB;
    a million take 7.1), learning starts after 5,000 instead of 50,000, the target weights are copied every 500 updates
    instead of 10,000, and ε falls within a million frames instead of four. Several ranks are as many groups that share
    nothing.
    """
    return Config(
        recipe="dqn",
        env=Env(num_envs=8, reward="clip"),
        topology=Topology(actors_per_group=0),
        experience=Replay(batch_size=32, replay_ratio=8.0),
        algorithm=QLearning(double=False, dueling=False),
        optimization=Optimization(method=Adam(), learning_rate=2.5e-4, max_gradient_norm=10.0),
    )
