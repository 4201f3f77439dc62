"""DQN: one learner steps its own environments, keeps what happened and learns from draws of it."""

from __future__ import annotations

from hpcddrl.config import Config, Env, LinearEpsilon, Optimization, QLearning, Replay, RMSProp, Topology


def dqn() -> Config:
    """One rank: environments, replay and learner.

    Paper: Mnih et al. 2015, doi:10.1038/nature14236.

        environments --transitions--> replay --uniform draws--> learner

    As in the released code (its run script, checked): batch 32, one update every 4 steps (so each transition is
    learned from 8 times), learning rate 2.5e-4, γ 0.99, history of 4 frames, ε from 1 to 0.1, errors clipped at 1,
    rewards clipped. RMSProp is centred with decay 0.95 and epsilon 0.01 (from memory, unchecked).

    Different: 8 environments in lockstep, since a forward pass of one costs a fifth of one of 32 per sample, so 32
    steps come at a time and 8 updates follow; the replay holds 100,000 transitions instead of a million (0.7 GB; a
    million take 7.1), learning starts after 5,000 instead of 50,000, the target weights are copied every 500 updates
    instead of 10,000 and ε falls within a million frames instead of four: on few cores a run is that much shorter.
    Several ranks are as many groups that share nothing.
    """
    return Config(
        recipe="dqn",
        env=Env(num_envs=8),
        topology=Topology(actors_per_group=0),
        experience=Replay(batch_size=32, replay_ratio=8.0),
        algorithm=QLearning(double=False, dueling=False, exploration=LinearEpsilon(end=0.1)),
        optimization=Optimization(
            method=RMSProp(decay=0.95, epsilon=0.01, centered=True), learning_rate=2.5e-4, max_gradient_norm=None
        ),
    )
