"""A student that answers like its teacher: the losses that it minimises, and when it is time to."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from hpcddrl.config.compression import AboveKL, EveryUpdates, Trigger
from hpcddrl.rl.policies import Policy
from hpcddrl.types import Output


def student_loss(*, policy: Policy, teacher: Output, student: Output, entropy_coefficient: float) -> Tensor:
    """Return mean(KL(π_T ‖ π_S) + ½ (V_S − V_T)² − β H(π_S)) over N states, the teacher a constant.

    Source: the proposal, part 1, L_student; minimised as it is printed.
    """
    kl = policy.kl(teacher.policy.detach(), student.policy)
    value = 0.5 * (student.value - teacher.value.detach()).square()
    return (kl + value - entropy_coefficient * policy.entropy(student.policy)).mean()


def student_q_loss(*, teacher: Tensor, student: Tensor) -> Tensor:
    """Return mean((Q_S − Q_T)²) over states and actions [N, actions], the teacher a constant.

    Source: the proposal, part 1, for networks whose outputs are values.
    """
    return (student - teacher.detach()).square().mean()


class Drift(NamedTuple):
    """What has happened since a student last followed its teacher."""

    updates: int  # of the teacher, since then
    unseen: int  # … since the KL was last looked at
    kl: Callable[[], float]  # measures KL(teacher ‖ student) on fresh states, which costs a forward pass of both
    spent_s: float  # seconds that all following has taken so far
    last_s: float  # seconds that it took the last time
    elapsed_s: float  # seconds that the learner has run


def is_due(trigger: Trigger, drift: Drift) -> bool:
    """Say whether the student should follow its teacher now; never before the teacher has moved.

    A KL that is NaN is above any threshold.
    """
    if drift.updates == 0:
        return False
    if isinstance(trigger, EveryUpdates):
        return drift.updates >= trigger.updates
    if isinstance(trigger, AboveKL):
        return drift.unseen >= trigger.check_every and not drift.kl() <= trigger.threshold  # NaN too
    return drift.spent_s + drift.last_s <= trigger.share * (drift.elapsed_s + drift.last_s)
