"""DDQL: workers with a replay each push gradients to one parameter server, asynchronously."""

from __future__ import annotations

from hpcddrl.config import Adam, Config, Env, Optimization, ParameterServer, QLearning, Replay, Topology


def ddql() -> Config:
    """DistBelief's Downpour SGD for DQN: every rank but the server is a worker.

    Paper: Ong, Chavez, Hong 2015, arXiv:1508.04186.

        worker --gradient--> server --weights--> worker

    As in the paper (abstract checked; the rest from memory): each worker has environments, replay and gradients of its
    own, and everything is asynchronous. A worker pushes each gradient and pulls the weights with the answer
    (Downpour's n_push = n_fetch = 1). Adam at the server; rates and sizes are ours, as in
    `dqn`, since the paper gives none for Atari: it learned Snake.
    """
    return Config(
        recipe="ddql",
        env=Env(num_envs=8, reward="clip"),
        topology=Topology(actors_per_group=0, servers=1),
        experience=Replay(batch_size=32, replay_ratio=8.0),
        update=ParameterServer(),
        algorithm=QLearning(double=False, dueling=False),
        optimization=Optimization(method=Adam(), learning_rate=2.5e-4, max_gradient_norm=10.0),
    )
