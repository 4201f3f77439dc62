"""A3C: learners step their own environments and send gradients to a parameter server, asynchronously."""

from __future__ import annotations

from hpcddrl.config import ActorCritic, Config, Env, Optimization, ParameterServer, RMSProp, Topology


def a3c() -> Config:
    """Every rank but the server is a group of one learner with its own environments.

    Paper: Mnih et al. 2016, arXiv:1602.01783.

        learner --gradient of weights v--> server --weights v' > v--> learner

    As in the paper: shared RMSProp (it lives at the server), T = 5, entropy 0.01, value coefficient 0.5, its
    network ("nips"). Different: ranks and messages instead of threads and Hogwild; several environments a worker,
    since a forward pass of one costs a fifth of one of 32 per sample; learning rate and epsilon are ours (the
    paper draws its rate from LogUniform(1e-4, 1e-2); from memory, unchecked); no LSTM.
    """
    return Config(
        recipe="a3c",
        env=Env(num_envs=16),
        topology=Topology(actors_per_group=0, servers=1),
        update=ParameterServer(),
        algorithm=ActorCritic(unroll_length=5, correction="none"),
        optimization=Optimization(method=RMSProp(epsilon=1e-5), learning_rate=7e-4),
    )
