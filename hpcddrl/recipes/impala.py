"""IMPALA: actors send rollouts with the probabilities they acted with; V-trace corrects for their age."""

from __future__ import annotations

from hpcddrl.config import ActorCritic, AllReduce, Config, Optimization, Topology


def impala() -> Config:
    """Actors run their own copy of the policy and queue rollouts for one learner (or several, allreduced).

    Paper: Espeholt et al. 2018, arXiv:1802.01561.

        actor --rollout [T, B] + log μ--> learner --weights, when asked for--> actor

    Constants that differ from the paper's Atari setting (Table G.1: T = 20, batch 32 rollouts, RMSProp 6e-4 with
    epsilon 0.01, summed loss, clip 40, value loss ½ of the squared error weighted 0.5; entropy 0.01 is the same),
    because small batches and many updates learn faster on few cores: one rollout of 5 steps of 16 environments a
    batch, mean loss, RMSProp 1e-3 with epsilon 1e-5, gradients clipped at 0.5, the value loss weighted 1.
    The network is the paper's shallow torso ("nips") without the LSTM; a lost life does not end an episode.
    """
    return Config(
        recipe="impala",
        topology=Topology(groups=1),
        update=AllReduce(),
        algorithm=ActorCritic(unroll_length=5, value_coefficient=1.0),
        optimization=Optimization(learning_rate=1e-3, max_gradient_norm=0.5),
    )
