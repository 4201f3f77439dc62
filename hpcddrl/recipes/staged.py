"""A3C with a helper for each of its stages that has one."""

from __future__ import annotations

from dataclasses import replace

from hpcddrl.config import (
    ActorCritic,
    Config,
    DetectedStages,
    Env,
    LateEnsemble,
    Network,
    Pretext,
    RolloutReplay,
    Stages,
)
from hpcddrl.recipes.a3c import a3c


def staged() -> Config:
    """`a3c` that is told its stages, and gets other help in each.

    Source: the research proposal's second part.

        early   no better than random play     an autoencoder on the torso's convolutions, beside the rewards
        middle  between the two                each worker learns from its rollouts again, by priority
        late    on a plateau                   workers go on apart, hear each other, and become one model again

    Rank 0 tells the stage by the returns of all workers (`rl.stages`); it rides on the server's weights, so that all
    workers enter it with the same version. The proposal stopped its autoencoder at 1M steps:
    ``--set stages.early.ends=frames --set stages.early.ends.frames=4e6`` (it counts steps, and a step has 4 frames).

    In the late stage each worker is a group of one: K updates alone, with an optimizer of its own; then it hears the
    others' weights and is drawn to π_ens = Σ cᵢ πᵢ, c = softmax(V(s)), while the first worker also teaches one model to
    answer like π_ens. That model becomes the server's, whose optimizer restarts; the workers stay different (as the
    proposal asks for), by their entropy coefficients and a bound on their divergence. Should the stage be left, all go
    on from the server's weights.

    Different from `a3c`: V-trace, since what is drawn again is of older weights (on a worker's own fresh rollouts it is
    the n-step return). Ours, since the proposal names no number: that errors are weighed by motion, the weights of the
    losses, one drawn batch for each fresh one, priority by |v − V|, 1,000 updates until a rollout is too stale.

    Its ablations, each beside the other's default:

        --set stages.early=none
        --set stages.middle=none
        --set stages.late=none
        --set stages.early=none --set stages.middle=none --set stages.late=none
                                                               none, with the same detector and V-trace
        --set stages.middle.negative_share=0.25                negative rewards are drawn more often
        --set stages.middle.held_by=server                     one replay for all workers
        --set stages.early.task=next_frame                     or segmentation, object_proposals
        --set stages.early.task.weighting=even                 or attention

    What `a3c` has on Atari, its network and four frames, are named here, so that games of smaller images (20 pixels and
    more) have them too: the autoencoder needs convolutions, and two frames to tell what moves. Environments of vectors
    take ``--set stages.early=none --set network.torso=auto``.
    """
    return replace(
        a3c(),
        recipe="staged",
        env=Env(num_envs=16, frame_stack=4),
        network=Network(torso="nips"),
        algorithm=ActorCritic(unroll_length=5, correction="vtrace"),
        stages=Stages(detector=DetectedStages(), early=Pretext(), middle=RolloutReplay(), late=LateEnsemble()),
    )
