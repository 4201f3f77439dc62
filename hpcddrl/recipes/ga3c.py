"""GA3C: actors without a network send frames; one learner acts for whoever is ready and trains on what is full."""

from __future__ import annotations

from dataclasses import replace

from hpcddrl.config import ActorCritic, CentralActing, Config, Optimization, RMSProp, Topology


def ga3c() -> Config:
    """Central inference when ready, with the defects of the released code put right.

    Paper: Babaeizadeh et al. 2017, arXiv:1611.06256; code NVlabs/GA3C (read).

        actor --frame, once, uint8--> learner --action--> actor        as soon as any actor waits

    As in the code: T = 5, entropy 0.01, value term ½ (R − V)², γ 0.99, RMSProp with decay 0.99. A batch is every
    rollout that is full when the learner comes to it, so its size varies with the load, and a rollout may have been
    acted by several versions of the weights.

    Different, because the code's way is a defect (see `ga3c_faithful`): a terminal step's reward is learned from;
    the probability of each action is kept when it is taken, and V-trace corrects with it (the code's floor under the
    logarithm is ``--set algorithm.correction=eps``, plain ratios ``=ratio``, nothing ``=none``); the loss is a mean,
    so that a step's size does not follow the batch's. Different too: one thread infers and trains in turn, where the
    code has predictor and trainer threads around one network on a GPU; frames travel once, as bytes, where the code
    sends stacks of float32 (16 times as much); 16 environments an actor, so that it waits less; learning rate 1e-3
    with epsilon 1e-5 instead of 3e-4 with 0.1; "nips" is A3C's network, GA3C's own
    pads its convolutions.
    """
    return Config(
        recipe="ga3c",
        topology=Topology(groups=1),
        acting=CentralActing(minimum=1),
        algorithm=ActorCritic(unroll_length=5, rollouts_per_batch="ready"),
        optimization=Optimization(method=RMSProp(), learning_rate=1e-3),
    )


def ga3c_faithful() -> Config:
    """`ga3c` with three defects of the released code, to show what each costs.

    1. A terminal step is dropped with its reward (``learn_from_terminal``; the code sets the return after it to 0 and
       leaves the last experience away; reported as NVlabs/GA3C issue 31).
    2. No probability is kept when acting; a floor of 1e-6 under π is the only guard against old data
       (``correction = eps``; Espeholt et al. 2018 measured it last but one of four).
    3. The loss is summed over a batch whose size follows the queue (``reduction = sum``).

    An environment that rewards only with its last step, such as hpcddrl/Catch-v0, cannot be learned so.
    """
    right = ga3c()
    assert isinstance(right.algorithm, ActorCritic)
    wrong = replace(right.algorithm, learn_from_terminal=False, correction="eps", reduction="sum")
    return replace(right, recipe="ga3c_faithful", algorithm=wrong)
