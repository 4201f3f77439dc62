"""A whole simulated job: from a layout and measured times to frames per second, lag and who is busy.

Every rank is a process of its own and every message an event, but for three shortcuts that let thousands of ranks run
in seconds to minutes. The steps of (half) a rollout are one event, as nothing happens to an actor between them (unless
cores are shared or a learner acts). Groups that share no server are alike and never wait for each other, so only some
of them are simulated and stand for all. And exchanges between groups are booked in bulk. The job is simulated until
every rank that steps has made so many rollouts, fewer where ranks are many: a total of about ``ROLLOUTS``, or of that
many steps where each is an event.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hpcddrl.comm.placement import Role
from hpcddrl.config import CentralActing
from hpcddrl.simulation.build import Group, Scenario, Servers
from hpcddrl.simulation.world import Rank, World

GROUPS = 4  # that are simulated, where they don't share a server
ROLLOUTS = 30_000  # about so many are simulated, all ranks together
FEWEST, MOST = 4, 200  # of one rank, while it is measured


class Load(NamedTuple):
    """How busy the ranks of a role are."""

    ranks: int
    mean: float  # share of the time that they work
    most: float  # that of the busiest
    wire: float  # share of the time that the busiest link into or out of one is


class Outcome(NamedTuple):
    """What a simulated job does."""

    ranks: int
    steps_per_s: float  # env steps of all environments
    updates_per_s: float  # of all owners of weights together
    lag: float  # mean, in updates; NaN where data come from a replay
    staleness: float  # of gradients at servers, mean; NaN where there are none
    load: dict[Role, Load]
    messages_per_s: dict[str, float]  # by kind
    bytes_per_s: dict[str, float]
    simulated_s: float  # that were measured


def simulate(scenario: Scenario, seed: int = 0) -> Outcome:
    """Simulate a job; the same seed gives the same outcome."""
    config, topology = scenario.config, scenario.config.topology
    assert topology.groups is not None
    length = config.algorithm.unroll_length
    world = World(scenario.machine, seed, length)
    servers = Servers(world, scenario)
    groups = [Group(world, scenario, servers) for _ in range(_simulated(scenario))]
    first = servers.ranks[0] if servers.ranks else groups[0].learners[0]
    each_s = scenario.machine.test_s + scenario.machine.report_s
    first.watch(scenario.report_every_s, scenario.ranks * each_s)
    servers.start()
    steppers = [rank for group in groups for rank in group.steppers]
    stepwise = isinstance(config.acting, CentralActing) or scenario.machine.cores is not None
    most = max(FEWEST, min(MOST, ROLLOUTS // (len(steppers) * (length if stepwise else 1))))
    world.run_until(steppers, max(2, most // 4) * length)
    world.start_over()
    world.run_until(steppers, most * length)
    return _outcome(scenario, world, servers, groups, topology.groups)


def _simulated(scenario: Scenario) -> int:
    """Return how many groups are simulated: all where they share a server, and what fills whole hosts."""
    topology, machine = scenario.config.topology, scenario.machine
    groups = topology.groups or 0
    if topology.servers:
        return groups
    ranks = scenario.ranks // groups
    least = 1 if machine.cores is None else math.lcm(machine.ranks_per_host, ranks) // ranks
    return min(groups, least * -(-GROUPS // least))


def _outcome(scenario: Scenario, world: World, servers: Servers, groups: Sequence[Group], all_groups: int) -> Outcome:
    """Sum up; groups that were not simulated do as those behind the first, which has more to do."""
    window_s, num_envs = world.now - world.start_s, scenario.config.env.num_envs
    steps = [sum(rank.steps.per_s for rank in group.steppers) for group in groups]
    updates = [group.learners[0].updates.per_s for group in groups]
    lags = [lag for group in groups for rank in group.learners for lag in rank.lags]
    staleness = [age for rank in servers.ranks for age in rank.lags]
    scale = all_groups / len(groups)
    roles = [(Role.SERVER, servers.ranks, 1.0)]
    roles += [(role, [r for g in groups for r in g.by_role(role)], scale) for role in Role if role is not Role.SERVER]
    return Outcome(
        ranks=scenario.ranks,
        steps_per_s=num_envs * _of_all(steps, all_groups),
        updates_per_s=servers.ranks[0].updates.per_s if servers.ranks else _of_all(updates, all_groups),
        lag=float(np.mean(lags)) if lags else float("nan"),
        staleness=float(np.mean(staleness)) if staleness else float("nan"),
        load={role: _load(ranks, window_s, round(len(ranks) * times)) for role, ranks, times in roles if ranks},
        messages_per_s={kind: count * scale / window_s for kind, count in world.messages.items()},
        bytes_per_s={kind: count * scale / window_s for kind, count in world.nbytes.items()},
        simulated_s=window_s,
    )


def _of_all(of_groups: Sequence[float], groups: int) -> float:
    first, others = of_groups[0], of_groups[1:]
    return first + (float(np.mean(others)) * (groups - 1) if others else 0.0)


def _load(ranks: Sequence[Rank], window_s: float, count: int) -> Load:
    busy = [rank.busy_s / window_s for rank in ranks]
    wire = max(max(rank.in_s, rank.out_s) for rank in ranks) / window_s
    return Load(count, min(1.0, float(np.mean(busy))), min(1.0, max(busy)), min(1.0, wire))
