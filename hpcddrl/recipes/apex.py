"""Ape-X: many actors fill one prioritised replay; one learner lives from it."""

from __future__ import annotations

from hpcddrl.config import (
    Adam,
    Config,
    Env,
    Optimization,
    Proportional,
    QLearning,
    Replay,
    SpreadEpsilon,
    Topology,
)


def apex() -> Config:
    """Distributed prioritised replay.

    Paper: Horgan et al. 2018, arXiv:1803.00933.

        actors --rollouts with the values they acted by--> replay --prioritised draws--> learner --weights--> actors
                                                                  <----- errors δ ------

    As in the paper: double and dueling Q-learning with n = 3, each transition's first priority from the values of the
    actor that made it, α 0.6, β 0.4, εᵢ = 0.4^(1 + 7 i / (N − 1)) (these checked against a released
    implementation; N is the number of environments here, of actors there).

    Different, for few cores: batches of 128 (512), replay of 200,000 transitions (2 million) after the first 5,000
    (50,000), target weights copied every 500 updates (2,500), Adam 2.5e-4 (RMSProp 6.25e-5), gradient norm 10 (40).
    For each env step at most 4 transitions are learned from (no bound in the paper; from memory, its actors made 1.3
    for each one learned). Actors send 20 steps of 16 environments at a time and may take new weights with each.
    """
    return Config(
        recipe="apex",
        env=Env(reward="clip"),
        topology=Topology(groups=1, replays_per_group=1),
        experience=Replay(capacity=200_000, priorities=Proportional()),
        algorithm=QLearning(unroll_length=20, n_step=3, exploration=SpreadEpsilon()),
        optimization=Optimization(method=Adam(), learning_rate=2.5e-4, max_gradient_norm=10.0),
    )
