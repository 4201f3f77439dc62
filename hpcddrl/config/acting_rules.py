"""What no run can be, as to who acts and how what was acted is put into batches; see `rules`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcddrl.config.acting import CentralActing
from hpcddrl.config.algorithm import ActorCritic, ClippedSurrogate, QLearning
from hpcddrl.config.fields import Rules

if TYPE_CHECKING:
    from hpcddrl.config.run import Config


def acting_rules(config: Config) -> Rules:
    """Yield the rules about who acts, and when its rollouts are learned from."""
    acting, algorithm, actors = config.acting, config.algorithm, config.topology.actors_per_group
    if not isinstance(acting, CentralActing):
        wanted = algorithm.rollouts_per_batch if isinstance(algorithm, ActorCritic) else 1
        yield (
            wanted == "ready",
            "algorithm.rollouts_per_batch = 'ready' with acting.kind = 'local': only a learner that acts knows how "
            "many rollouts there are; give a number, or set acting=central and acting.minimum",
        )
        return
    lockstep = acting.minimum == "all"
    if isinstance(algorithm, QLearning):
        yield (
            algorithm.exploration.kind == "spread",
            "algorithm.exploration.kind = 'spread' with acting.kind = 'central': whose turn it is varies, so no "
            "environment can keep an ε of its own; set algorithm.exploration=linear or acting=local",
        )
        yield (
            acting.reuse_forward,
            "acting.reuse_forward = True with algorithm.kind = 'q_learning': it learns from what was acted long ago; "
            "set acting.reuse_forward=false",
        )
        return
    yield (
        acting.reuse_forward and not lockstep,
        f"acting.reuse_forward = True with acting.minimum = {acting.minimum}: the weights that act must be those that "
        "learn, for all actors at once; set acting.minimum=all",
    )
    yield (
        acting.reuse_forward and isinstance(algorithm.surrogate, ClippedSurrogate),
        "acting.reuse_forward = True with algorithm.surrogate.kind = 'clipped': one forward pass cannot serve "
        "several updates; leave one away",
    )
    wanted = algorithm.rollouts_per_batch
    yield (
        wanted == "ready" and lockstep,
        "algorithm.rollouts_per_batch = 'ready' with acting.minimum = all: in lockstep all rollouts are full at once; "
        "give a number",
    )
    yield (
        isinstance(wanted, int) and not lockstep and 0 < (actors or wanted) < wanted,
        f"algorithm.rollouts_per_batch = {wanted}: more than the {actors} actors of a group can deliver, since each "
        "waits until its rollout has been learned from; set less, or algorithm.rollouts_per_batch=ready",
    )


def minibatch_rules(config: Config) -> Rules:
    """Yield the rules about the minibatches of an algorithm that passes over each batch several times."""
    algorithm, actors = config.algorithm, config.topology.actors_per_group
    if not isinstance(algorithm, ActorCritic) or not isinstance(algorithm.surrogate, ClippedSurrogate):
        return
    wanted, minibatches = algorithm.rollouts_per_batch, algorithm.surrogate.minibatches
    lockstep = isinstance(config.acting, CentralActing) and config.acting.minimum == "all"
    rollouts = 1 if actors == 0 or wanted == "ready" else wanted
    if lockstep and actors != 0:
        rollouts = actors or minibatches  # unset: not known yet
    yield (
        minibatches > rollouts * config.env.num_envs,
        f"algorithm.surrogate.minibatches = {minibatches} with env.num_envs = {config.env.num_envs} and {rollouts} "
        "rollouts in a batch: each minibatch needs an environment; set fewer, or more of these",
    )
