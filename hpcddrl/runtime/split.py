"""How many ranks of a group learn and how many act, by what either takes here."""

from __future__ import annotations

from dataclasses import asdict, replace

from hpcddrl.config import Config
from hpcddrl.runtime.checks import checked, fitted
from hpcddrl.runtime.pace import measure, one_thread
from hpcddrl.runtime.plan import job_of
from hpcddrl.runtime.processors import Costs, costs
from hpcddrl.settings import dump, load

MEETING = 0.9  # of their speed, that is left to learners who average: all wait for the slowest


def with_split(config: Config, ranks: int) -> Config:
    """Return a configuration whose groups are split as is fastest; itself, if its counts are given.

    Stepping, acting and learning are timed in this process, alone on one thread, which takes some seconds.

    Raises:
        ValueError: so many ranks cannot be divided among the groups, or the configuration cannot be run here.
    """
    topology = config.topology
    if topology.split == "given":
        return config
    groups = topology.groups or 1
    each, left = divmod(ranks, groups)
    if left or not each:
        raise ValueError(
            f"topology.split = 'auto' with topology.groups = {groups}: {ranks} ranks cannot be divided among them "
            "evenly; start a multiple, or set topology.groups"
        )
    one = replace(topology, split="given", groups=groups, learners_per_group=1, actors_per_group=each - 1)
    apart = fitted(load(dump(config) | {"topology": asdict(one)}), ranks)
    spec = checked(apart)
    if each == 1:
        return apart
    with one_thread():
        job = job_of(apart, spec)
        learners = fastest(each, costs(job, measure(job)))
    chosen = replace(one, learners_per_group=learners, actors_per_group=0 if learners == each else each - learners)
    return load(dump(config) | {"topology": asdict(chosen)})


def fastest(ranks: int, of: Costs) -> int:
    """Return how many of a group's ranks should learn; if all do, each steps environments of its own.

    The others act for them. What a group does in a second is bounded by the slower of both; ranks that do both never
    wait for each other but where they average.

    Args:
        ranks: of a group, one at least.
        of: an env step.
    """

    def rate(learners: int) -> float:
        speed = learners * (MEETING if learners > 1 else 1.0)
        if learners == ranks:
            return speed / (of.learn_s + of.act_s)
        return min(speed / of.learn_s, (ranks - learners) / of.act_s)

    return max(range(1, ranks + 1), key=rate)  # the fewest, of those that are alike
