"""PPO: every rank steps its environments and learns, gradients are averaged, each batch is used several times."""

from __future__ import annotations

from hpcddrl.config import ActorCritic, Adam, AllReduce, ClippedSurrogate, Config, Optimization, Topology


def ppo() -> Config:
    """One group of learners without actors, clipped surrogate, epochs of minibatches.

    Paper: Schulman et al. 2017, arXiv:1707.06347; distributed as DD-PPO is (Wijmans et al. 2020, arXiv:1911.00357),
    without its preemption of stragglers.

        learner <--allreduce (Horovod), each minibatch--> learner

    As in the paper: clip 0.2, λ 0.95, 4 epochs; 4 minibatches, advantages scaled in each, Adam with epsilon 1e-5 as
    common implementations have it.

    Different: T = 32 with 16 environments a rank (the paper's Atari setting: 128 with 8 actors in all); a minibatch is
    some of the environments with all their steps, so that advantages are made anew, with the values of the moment, in
    each (Andrychowicz et al. 2021, arXiv:2006.05990, section 3.5, found that to help); the value loss is not clipped;
    the learning rate is constant.
    """
    return Config(
        recipe="ppo",
        topology=Topology(groups=1, learners_per_group=None, actors_per_group=0),
        update=AllReduce(),
        algorithm=ActorCritic(
            unroll_length=32,
            correction="none",
            trace_decay=0.95,
            surrogate=ClippedSurrogate(),
            normalise_advantages=True,
        ),
        optimization=Optimization(method=Adam(), learning_rate=5e-4),
    )
