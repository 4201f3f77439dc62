"""How many threads each rank computes with, where ranks share processors."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from hpcddrl.comm.placement import Role
from hpcddrl.networks.torsos import resolved
from hpcddrl.runtime.pace import Pace, answering, learner, learning, stepping
from hpcddrl.runtime.plan import Job, job_of, learner_steps_per_s
from hpcddrl.runtime.rank import Rank

TIMED_S = 0.2  # for each thing that is timed before the start
SLACK = 0.15  # of a processor that a learner does without, rather than take a thread more


class Threads(NamedTuple):
    """What a rank computes with."""

    each: int  # that an operation is divided over
    shares: int = 1  # of a batch, each on a thread of its own


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


def use_threads(rank: Rank, hosts: Sequence[str]) -> Threads:
    """Let torch compute with this rank's share of the processors that it, and perhaps others, are bound to.

    The shares are by what each role takes, which is timed; but not in a deterministic run, since the number of threads
    changes in which order is summed. Networks without convolutions are too small for more than one thread. A learner
    whose threads have no processors of their own has one for each share of a batch (see `networks.shares`). Collective
    over the job.
    """
    config, me = rank.config, rank.comms.world.rank
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    sharing: dict[tuple[str, tuple[int, ...]], list[Role]] = defaultdict(list)  # by host and processors
    for place, where in zip(rank.places, rank.comms.world.allgather((hosts[me], cpus)), strict=True):
        sharing[where].append(place.role)
    roles = sharing[hosts[me], cpus]
    small = resolved(config.network.torso, rank.spec.observation_shape) == "mlp"
    matters = any(is_open(who, len(where[1])) for where, who in sharing.items())
    of = _timed(rank, small) if matters and not rank.job.deterministic else None
    if small:
        mine = Threads(1)
    elif of is None:
        mine = Threads(evenly(len(cpus), len(roles)))
    else:
        given = threads(roles, len(cpus), of)
        own = given[rank.place.role]
        mine = Threads(1, own) if crowded(roles, len(cpus), given) else Threads(own)
        rank.lines.append(
            f"threads: {own}, of {len(cpus)} processors that {len(roles)} ranks share (an env step takes "
            f"{of.learn_s * 1e6:,.0f} µs to learn from, {of.act_s * 1e6:,.0f} µs where it is done)"
        )
    torch.set_num_threads(mine.each)
    return mine


def _timed(rank: Rank, small: bool) -> Costs | None:
    """Let each rank time what its role does, all at once; return its group's means. Collective over the job.

    Ranks with small networks only take part. Servers, which belong to no group, have none.
    """
    job, unknown, role = job_of(rank.config, rank.spec), float("nan"), rank.place.role
    steps = stepping(job, TIMED_S) if role is Role.ACTOR and not small else unknown
    learns = role is Role.LEARNER and not small
    answers, learned = rank.devices.inference, rank.devices.learner
    rates = (answering(job, TIMED_S, answers), learning(job, TIMED_S, learned)) if learns else (unknown, unknown)
    mine = Pace(steps, *rates)
    measured = rank.comms.world.allgather(mine)
    of_group = [p for p, place in zip(measured, rank.places, strict=True) if place.group == rank.place.group]
    return None if small or rank.place.group is None else costs(job, Pace(*np.nanmean(of_group, axis=0)))
