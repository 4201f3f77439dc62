"""Gorila: bundles of actor, replay and learner, and a parameter server in shards that refuses odd gradients."""

from __future__ import annotations

from hpcddrl.config import AdaGrad, Config, Env, Optimization, ParameterServer, QLearning, Replay, Topology


def gorila() -> Config:
    """Every rank but the servers is a bundle: environments, a replay of its own, and a learner.

    Paper: Nair et al. 2015, arXiv:1507.04296 (its "bundled mode").

        bundle --gradient slices--> servers, a shard each --weight slices--> bundle

    As in the paper (from memory, unchecked): DQN's loss, AdaGrad at the servers, gradients refused if too old or if
    their loss is more than some standard deviations above the running mean. The paper gives no bounds; 20 updates and
    5 deviations are ours. It ran 100 bundles against 31 servers; here 2 shards.

    Different: a bundle acts with the weights that it learns with, which are at most one update old; target weights are
    copied every 500 of the server's updates (60,000 in the paper, from memory); learning rate ours.
    """
    return Config(
        recipe="gorila",
        env=Env(num_envs=8, reward="clip"),
        topology=Topology(actors_per_group=0, servers=2),
        experience=Replay(batch_size=32, replay_ratio=8.0),
        update=ParameterServer(max_staleness=20, max_loss_deviations=5.0),
        algorithm=QLearning(double=False, dueling=False),
        optimization=Optimization(method=AdaGrad(epsilon=1e-8), learning_rate=5e-3),
    )
