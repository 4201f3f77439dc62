"""ELF: many games, one learner that acts on batches of at least some size."""

from __future__ import annotations

from hpcddrl.config import ActorCritic, CentralActing, Config, Optimization, Topology


def elf() -> Config:
    """Central inference at a minimum batch, with importance ratios.

    Paper: Tian et al. 2017, arXiv:1707.01067; code facebookresearch/ELF (its README read).

        actors --frames--> learner --actions--> actors        when two actors wait (or all that can)

    As in the paper's many-to-one topology: Python sees a batch of environments at a time, never one. The code's Atari
    example has 1,024 games and batches of 128 on one GPU; here every actor has 16 environments and a batch waits for 2
    actors (``acting.minimum``). The policy gradient is weighed by π/μ, at most 1; T = 5.

    Different: ranks instead of C++ threads in one process; the network that acts is always the newest (the code
    renews it every ``freq_update`` batches). Rates are ours, as in `ga3c`.
    """
    return Config(
        recipe="elf",
        topology=Topology(groups=1),
        acting=CentralActing(minimum=2),
        algorithm=ActorCritic(unroll_length=5, rollouts_per_batch="ready", correction="ratio"),
        optimization=Optimization(learning_rate=1e-3),
    )
