"""PAAC: environments in lockstep, one batched forward pass a step, one batched update every T steps."""

from __future__ import annotations

from hpcddrl.config import ActorCritic, CentralActing, Config, Env, Optimization, Topology


def paac() -> Config:
    """Actors only step environments; the learner acts for all of them at once and never learns from old data.

    Paper: Clemente et al. 2017, arXiv:1705.04862.

        actors --frames--> learner --actions--> actors        every step, in lockstep

    On one rank the learner steps its own environments. As in the released code: T = 5, entropy 0.02. Different:
    the code's RMSProp 0.0224 with epsilon 0.1 on a loss times 5, clip 3, are scaled to RMSProp 1e-3 with epsilon
    1e-5, clip 40 on the mean loss; 32 environments are per rank that steps them. The forward passes that act are
    learned from as they are, instead of being repeated: the weights are the same.
    """
    return Config(
        recipe="paac",
        env=Env(num_envs=32),
        topology=Topology(groups=1),
        acting=CentralActing(minimum="all", reuse_forward=True),
        algorithm=ActorCritic(unroll_length=5, correction="none", entropy_coefficient=0.02),
        optimization=Optimization(learning_rate=1e-3),
    )
