"""How many threads each rank computes with, where ranks share processors."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from hpcddrl.comm.placement import Role
from hpcddrl.networks.torsos import resolved
from hpcddrl.runtime.pace import Pace, answering, learning, stepping
from hpcddrl.runtime.plan import job_of
from hpcddrl.runtime.processors import Costs, costs, crowded, evenly, is_open, threads
from hpcddrl.runtime.rank import Rank

TIMED_S = 0.2  # for each thing that is timed before the start


class Threads(NamedTuple):
    """What a rank computes with."""

    each: int  # that an operation is divided over
    shares: int = 1  # of a batch, each on a thread of its own


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
