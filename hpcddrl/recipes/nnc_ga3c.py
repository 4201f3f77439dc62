"""GA3C whose learner acts with a small student of the network that it trains."""

from __future__ import annotations

from dataclasses import replace

from hpcddrl.config import ActorCritic, Config
from hpcddrl.config.compression import Distillation, ShareOfTime, Student
from hpcddrl.recipes.ga3c import ga3c

LITTLE_AND_OFTEN = Distillation(trigger=ShareOfTime(share=0.2), steps=8, batch_size=64, learning_rate=3e-3, states=512)


def nnc_ga3c() -> Config:
    """`ga3c` with a student that answers the actors and a teacher that learns from what it did.

    Source: the research proposal's first part (its Figure 4), which was tried on GA3C.

        actor --frame--> learner: the student acts --action--> actor
                         learner: the teacher trains on the rollout, weighed by π_T / π_S
                         learner: the student learns the teacher's answers to the newest observations

    As in the proposal: the student minimises KL(π_T ‖ π_S) + ½ (V_S − V_T)² − β H(π_S) on the states that it visited,
    the teacher's policy gradient is weighed by ρ = π_T / π_S, a constant, with the probability that π_S had when it
    acted (``algorithm.correction=ratio``; none, eps and vtrace are the others). The signs of the teacher's loss are put
    right: as it is printed there, minimising it would make good actions less likely. ρ is clipped at 1.

    Where the proposal gives no number, ours, and hardly tuned: the student has half the teacher's channels and units
    (the proposal's predicted twice as fast; how fast this one does, the command `amdahl` says for a machine), β = 0, 8
    steps of Adam at 3e-3 on 64 of the last 512 observations each time. Different: the proposal lets the student follow
    when the teacher's output "has changed visibly" (``compression.distillation.trigger=kl`` and its threshold); here it
    follows little and often, within a fifth of the learner's time, so that what it costs is known beforehand; within a
    twentieth, as tried on Catch, it was hundreds of updates behind at times. Whether that is enough,
    ``/compression/kl_after`` says; more or less is ``compression.distillation.trigger.share``, and a student that
    learns in a thread beside the learner ``compression.distillation.beside=true``. All else is `ga3c`'s: its page says
    how that differs from its paper.
    """
    teacher = ga3c()
    assert isinstance(teacher.algorithm, ActorCritic)
    return replace(
        teacher,
        recipe="nnc_ga3c",
        algorithm=replace(teacher.algorithm, correction="ratio"),
        compression=Student(distillation=LITTLE_AND_OFTEN),
    )
