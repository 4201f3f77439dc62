"""The group ensemble: small actor-learner groups that exchange models and learn from their mixture."""

from __future__ import annotations

from hpcddrl.config import ActorCritic, AllReduce, Config, Ensemble, Optimization, SoftmaxMixing, Topology


def group_ensemble() -> Config:
    """Groups of learners and actors; gradients stay inside a group, models travel between groups.

    Source: the research proposal's third part (its Figure 8): loss + β KL(π_ens ‖ π), π_ens = Σ cᵢ πᵢ,
    c = softmax(V(s)), every K updates. Groups are IMPALA-shaped and differ by their initialisation and their
    environments' seeds. The proposal ran 8 groups of 1 learner + 1 actor, and so does this on 16 ranks.

        actor --rollout--> learner <--allreduce (Horovod)--> learner     inside a group
        leader --weights, every K updates--> leaders of the other groups

    Differences: c = softmax(V(s) / T) with T = 0.1, since with the proposal's T = 1 all groups count almost alike where
    returns are within ±1: after a minute of Catch that was no better than being alone, and T = 0.1 was; on MinAtar's
    Breakout T = 0.1 was worse than being alone (benchmarks/ensemble.md). The peers' networks see a quarter of each
    batch (evaluate_every = 4), since seven forward passes on all of it would cost more than learning does. β and K are
    ours: the proposal gives neither. It weighs by values as they are; with rewards or critics of different scales that
    lets one group win (coupling.mixing.normalise=true, or coupling.mixing=uniform). Of many groups, let not all hear
    all (coupling.topology=random_pairs).

    Its rivals are the same job with other settings: coupling=uncoupled, no exchange; coupling=averaging, weights become
    their mean (MA); coupling.schedule=cyclic with coupling.mixing=uniform, where the ensemble relabels a part of
    the data after each exchange and groups then learn alone (EC-DNN, Sun et al. 2017; there the ensemble holds each
    model as it was exchanged, here a group's own as it is now); coupling.mixing=best_group, the group with the
    greatest return teaches the others (after PIEKD, Hong et al. 2020, whose groups share their experience and
    distil now and then; here each has its own and is drawn to the best all along); coupling=population,
    population-based training of learning rate and entropy (Espeholt et al. 2018, appendix F).
    """
    return Config(
        recipe="group_ensemble",
        topology=Topology(),
        update=AllReduce(),
        coupling=Ensemble(mixing=SoftmaxMixing(temperature=0.1)),
        algorithm=ActorCritic(unroll_length=10),
        optimization=Optimization(learning_rate=1e-3),
    )
