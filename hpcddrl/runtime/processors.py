"""How processors that ranks share are divided among their roles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hpcddrl.comm.placement import Role
from hpcddrl.runtime.pace import Pace, learner
from hpcddrl.runtime.plan import Job, learner_steps_per_s

SLACK = 0.15  # of a processor that a learner does without, rather than take a thread more


class Costs(NamedTuple):
    """What an env step takes of a processor."""

    learn_s: float  # on the learner
    act_s: float  # on the rank that steps


def costs(job: Job, pace: Pace) -> Costs:
    """Return the costs that a measured pace means in a job with actors."""
    return Costs(learner(job, 1.0, pace).busy / learner_steps_per_s(job, 1.0), 1 / pace.steps)


def evenly(processors: int, ranks: int) -> int:
    """Return each rank's threads when all are alike."""
    return max(1, processors // ranks)


def threads(roles: Sequence[Role], processors: int, of: Costs) -> dict[Role, int]:
    """Return the threads of each role among ranks that share some processors.

    A learner that cannot keep up holds up its actors, which then leave processors idle. So learners get what learning
    is of all the work, rounded up: when the actors are behind, they have time to spare. The rest goes to the others.

    Args:
        roles: of the ranks that share them.
        processors: that they share.
        of: an env step.
    """
    learners = sum(role is Role.LEARNER for role in roles)
    actors = sum(role is Role.ACTOR for role in roles)
    if not learners or not actors:
        return dict.fromkeys(roles, evenly(processors, len(roles)))
    share = processors * of.learn_s / (of.learn_s + of.act_s)
    each = max(1, math.ceil(share / learners - SLACK))
    left = evenly(max(0, processors - each * learners), len(roles) - learners)
    return {role: each if role is Role.LEARNER else left for role in roles}


def crowded(roles: Sequence[Role], processors: int, given: Mapping[Role, int]) -> bool:
    """Say whether ranks that share some processors have more threads than these together."""
    return sum(given[role] for role in roles) > processors


def is_open(roles: Sequence[Role], processors: int) -> bool:
    """Say whether what an env step takes could matter to `threads`: learners and actors share more than one each."""
    return Role.ACTOR in roles and 0 < roles.count(Role.LEARNER) < processors
